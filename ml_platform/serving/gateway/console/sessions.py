"""Sessions of the console: a cookie that proves that its browser once showed a key, without holding the key.

It names the key by its digest, ends by itself, and is signed with a secret of the home, so every worker takes it. The
key is looked up at each request: one that is revoked or expired ends its sessions within a second.
"""

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from ml_platform.contracts.home import Home
from ml_platform.lineage.artifacts import write_atomically
from ml_platform.lineage.keys import locked_keys

COOKIE = "mlp_console"
PATH = "/console"
LASTS = timedelta(hours=12)
SECRET_FILE = "console_secret"  # noqa: S105 - a name, no secret
_FORM = re.compile(r"([0-9a-f]{64})\.([0-9]{1,12})\.([0-9a-f]{64})")


def console_secret(home: Home) -> bytes:
    """The secret of this home's cookies (0600), made on first use; to delete it ends all sessions."""
    path = home.keys / SECRET_FILE
    with locked_keys(home):
        if not path.exists():
            write_atomically(path, secrets.token_hex(32).encode() + b"\n")
        return bytes.fromhex(path.read_text(encoding="ascii").strip())


@dataclass(frozen=True)
class Sessions:
    """Makes cookies and reads them; pure but for its secret."""

    secret: bytes

    def begin(self, key_sha256: str, now: datetime) -> str:
        """The value of a cookie that stands for a key until LASTS from now."""
        said = f"{key_sha256}.{int((now + LASTS).timestamp())}"
        return f"{said}.{self._sign(said)}"

    def read(self, cookie: str, now: datetime) -> str | None:
        """The digest of the key that a cookie stands for; None for one that is forged, damaged or over."""
        found = _FORM.fullmatch(cookie)
        if found is None:
            return None
        key_sha256, ends, signature = found.groups()
        if not hmac.compare_digest(signature, self._sign(f"{key_sha256}.{ends}")):
            return None
        return key_sha256 if now.timestamp() < int(ends) else None

    def _sign(self, said: str) -> str:
        return hmac.new(self.secret, said.encode(), "sha256").hexdigest()


def cookie_of(header: bytes) -> str:
    """The console's cookie in a Cookie header, empty where it has none."""
    for part in header.decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def set_cookie(value: str, *, secure: bool, lasts: timedelta = LASTS) -> bytes:
    """The Set-Cookie header: out of reach of scripts, of other sites, and of other paths of this one."""
    words = [
        f"{COOKIE}={value}",
        f"Path={PATH}",
        f"Max-Age={int(lasts.total_seconds())}",
        "HttpOnly",
        "SameSite=Strict",
    ]
    return "; ".join([*words, "Secure"] if secure else words).encode()
