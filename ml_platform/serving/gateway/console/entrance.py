"""The entrance of the console: a form takes an API key once, a cookie stands for it from then on."""

import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from ml_platform.serving.gateway.access import ApiKey, Scope
from ml_platform.serving.gateway.console.sessions import PATH, Sessions, cookie_of, set_cookie
from ml_platform.serving.gateway.doorway import Doorway, require
from ml_platform.serving.gateway.exchange import Exchange, Header
from ml_platform.serving.gateway.failures import HttpError

logger = logging.getLogger(__name__)

FORM = b"application/x-www-form-urlencoded"
FORM_BYTES = 4_096
_NEXT = re.compile(r"/console(/[A-Za-z0-9_.-]+){0,3}")


@dataclass(frozen=True)
class Entrance:
    """Lets people in. `on_loopback` says whether only this machine reaches the gateway."""

    door: Doorway
    sessions: Sessions
    on_loopback: bool

    def enter(self, exchange: Exchange) -> ApiKey:
        """The key behind a request, by its cookie or its Authorization header, counted as one more.

        Raises HttpError: 401 for none, 403 without the scope `operate`, 429 too often.
        """
        key = self.door.known(exchange) or self._by_cookie(exchange)
        if key is None:
            raise HttpError(401, "not_signed_in", "", headers=(("www-authenticate", "Bearer"),))
        return self.door.admit(key, Scope.OPERATE)

    async def sign_in(self, exchange: Exchange) -> tuple[str, Header]:
        """Where to go on, and the cookie, for the key in a form. Raises HttpError: 401 and 403 are for people."""
        require_same_site(exchange)
        exchange.body_bytes = FORM_BYTES
        form = _form(await exchange.body_of_kind(FORM))
        now = datetime.now(UTC)
        key = self.door.access.find(form.get("key", "").strip(), now)
        if key is None:
            raise HttpError(401, "invalid_api_key", "That key does not count: it is unknown, expired or revoked.")
        require(self.door.admit(key, None), Scope.OPERATE)
        logger.info("the key '%s' signed in to the console", key.name, extra={"response_id": exchange.response_id})
        cookie = set_cookie(self.sessions.begin(key.key_sha256, now), secure=self._secure(exchange))
        return next_path(form.get("next", "")), (b"set-cookie", cookie)

    def sign_out(self, exchange: Exchange) -> Header:
        """The header that takes the cookie away."""
        require_same_site(exchange)
        return b"set-cookie", set_cookie("", secure=self._secure(exchange), lasts=timedelta(0))

    def insecure(self, exchange: Exchange) -> bool:
        """Whether the page comes from beyond this machine and without TLS: browsers keep no cookie then."""
        return self._secure(exchange) and not _behind_tls(exchange)

    def _by_cookie(self, exchange: Exchange) -> ApiKey | None:
        now = datetime.now(UTC)
        key_sha256 = self.sessions.read(cookie_of(exchange.headers.get(b"cookie", b"")), now)
        return None if key_sha256 is None else self.door.access.find_by_sha256(key_sha256, now)

    def _secure(self, exchange: Exchange) -> bool:
        return not self.on_loopback or _behind_tls(exchange)


def next_path(said: str) -> str:
    """Where to go after signing in: a page of the console and nothing else."""
    return said if _NEXT.fullmatch(said) and not said.startswith(f"{PATH}/log") else PATH


def require_same_site(exchange: Exchange) -> None:
    """Raises HttpError 403 for a form on another site's page. Browsers tell; others have no cookie to abuse."""
    site, origin = exchange.header(b"sec-fetch-site"), exchange.header(b"origin")
    try:
        same = origin is None or urlsplit(origin).netloc == (exchange.header(b"host") or "")
    except ValueError:
        same = False
    if site not in (None, "same-origin", "none") or not same:
        raise HttpError(403, "cross_site", "This form was sent by another site's page, so nothing was done.")


def _behind_tls(exchange: Exchange) -> bool:
    """Whether a proxy says that it took TLS off; who lies about it only makes his own cookie stricter."""
    return exchange.headers.get(b"x-forwarded-proto", b"").lower() == b"https"


def _form(body: bytes) -> dict[str, str]:
    try:
        found = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        raise HttpError(400, "invalid_form", "the form has too many fields.") from None
    return {name: values[-1] for name, values in found.items()}
