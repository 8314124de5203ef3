"""Who may ask, say and operate: API keys of 256 random bits, kept as their SHA-256 and nothing else."""

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field

from ml_platform.contracts.base import Contract, Name, Sha256
from ml_platform.contracts.home import Home
from ml_platform.errors import InvalidInputError, MlPlatformError, StorageError
from ml_platform.lineage.artifacts import write_atomically
from ml_platform.lineage.keys import locked_keys

logger = logging.getLogger(__name__)

PREFIX = "mlp_"
FILE = "api_keys.json"
LOCAL_FILE = "local_api_key"
LOCAL_NAME = "local"
SHOWN = 12


class Scope(StrEnum):
    """What a key is good for."""

    ASK = "ask"
    FEEDBACK = "feedback"
    OPERATE = "operate"


class ApiKey(Contract):
    """A key as it is kept: the digest that finds it, and what it may do.

    `product` None stands for all products. `rate_per_second` and `burst` limit its requests over all workers.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
    key_sha256: Sha256
    product: Name | None
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    revoked_because: str = ""
    rate_per_second: Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)] = 50.0
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 100

    @property
    def key_id(self) -> str:
        """The first digits of its digest, by which people name it: they tell nothing about the key."""
        return self.key_sha256[:SHOWN]

    def valid(self, now: datetime) -> bool:
        """Whether it counts at that moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def allows(self, scope: Scope, product: str | None = None) -> bool:
        """Whether it may do that, for that product where one is named."""
        return scope in self.scopes and (product is None or self.product is None or self.product == product)

    def state(self, now: datetime) -> str:
        """In one word, for people."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if self.valid(now) else "expired"


class ApiKeys(Contract):
    """The file of all keys, revoked and expired ones among them."""

    keys: tuple[ApiKey, ...] = ()


def token_sha256(token: str) -> str:
    """The digest under which a key is kept. A plain hash is enough: nobody guesses 256 random bits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def keys_file(home: Home) -> Path:
    """Where the keys of a home lie."""
    return home.keys / FILE


def read_keys(home: Home) -> ApiKeys:
    """The keys of a home, none where there is no file. Raises ContractError for a file that cannot be read."""
    path = keys_file(home)
    return ApiKeys.read(path) if path.exists() else ApiKeys()


def grant(
    home: Home,
    name: str,
    product: str | None,
    scopes: Iterable[Scope],
    *,
    now: datetime,
    expires_at: datetime | None = None,
    rate_per_second: float = 50.0,
    burst: int = 100,
) -> tuple[str, ApiKey]:
    """Makes a key and returns it with its entry; it is shown this once.

    Raises InvalidInputError for a name that a valid key has.
    """
    token = PREFIX + secrets.token_urlsafe(32)
    entry = ApiKey.parse(
        {
            "name": name,
            "key_sha256": token_sha256(token),
            "product": product,
            "scopes": sorted({scope.value for scope in scopes}),
            "created_at": now.isoformat(),
            "expires_at": expires_at.isoformat() if expires_at else None,
            "rate_per_second": rate_per_second,
            "burst": burst,
        },
        where=f"the key '{name}'",
    )
    with locked_keys(home):
        kept = read_keys(home)
        if any(key.name == name and key.valid(now) for key in kept.keys):
            raise InvalidInputError(f"there is a valid key '{name}' already. Revoke it first, or take another name.")
        _write(keys_file(home), ApiKeys(keys=(*kept.keys, entry)).canonical_bytes() + b"\n")
    return token, entry


def revoke(home: Home, which: str, now: datetime, reason: str = "") -> tuple[ApiKey, ...]:
    """Revokes the valid keys of that name, or the one whose digest begins so; gateways follow within a second.

    Raises InvalidInputError when there is none, or when the digits fit several.
    """
    with locked_keys(home):
        kept = read_keys(home)
        named = {key.key_sha256 for key in kept.keys if key.name == which and key.valid(now)}
        if not named and len(which) >= 4:
            named = {key.key_sha256 for key in kept.keys if key.key_sha256.startswith(which) and key.valid(now)}
            if len(named) > 1:
                raise InvalidInputError(f"'{which}' fits {len(named)} keys. Give more digits: see `mlp access list`.")
        if not named:
            raise InvalidInputError(f"there is no valid key '{which}'. See `mlp access list`.")
        update = {"revoked_at": now, "revoked_because": reason}
        changed = tuple(key.model_copy(update=update) if key.key_sha256 in named else key for key in kept.keys)
        _write(keys_file(home), ApiKeys(keys=changed).canonical_bytes() + b"\n")
    return tuple(key for key in changed if key.key_sha256 in named)


def ensure_local_key(home: Home) -> Path:
    """The file (0600) with a key for all products and scopes, for whoever owns this home; made once.

    It is made anew when the key in it no longer counts.
    """
    path, now = home.keys / LOCAL_FILE, datetime.now(UTC)
    if path.exists():
        sha256 = token_sha256(path.read_text(encoding="utf-8").strip())
        if any(key.key_sha256 == sha256 and key.valid(now) for key in read_keys(home).keys):
            return path
    if any(key.name == LOCAL_NAME and key.valid(now) for key in read_keys(home).keys):
        revoke(home, LOCAL_NAME, now)
    token, _ = grant(home, LOCAL_NAME, None, Scope, now=now, rate_per_second=100_000.0, burst=100_000)
    _write(path, token.encode() + b"\n")
    return path


@dataclass
class Access:
    """The keys of a home as a gateway sees them: it looks for a change at most every half second.

    A file that can no longer be read leaves those that were known, and says so once.
    """

    home: Home
    clock: Callable[[], float] = time.monotonic
    every_s: float = 0.5
    _known: dict[str, ApiKey] = field(default_factory=dict)
    _looked_at: float = float("-inf")
    _seen: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        self._seen = self._stamp()
        self._known = _by_digest(read_keys(self.home))
        self._looked_at = self.clock()

    def find(self, token: str, now: datetime) -> ApiKey | None:
        """The key that counts now, None for none. It is found by its digest, so nothing tells how near a guess was."""
        return self.find_by_sha256(token_sha256(token), now)

    def find_by_sha256(self, key_sha256: str, now: datetime) -> ApiKey | None:
        """The key of that digest if it counts now; for who showed it before and has proof of that."""
        at = self.clock()
        if at - self._looked_at >= self.every_s:
            self._looked_at = at
            self._look()
        key = self._known.get(key_sha256)
        return key if key is not None and key.valid(now) else None

    def id_of(self, token: str) -> str | None:
        """The id of a key that was made here, also of one that counts no more; None for any other."""
        key = self._known.get(token_sha256(token))
        return None if key is None else key.key_id

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._known = _by_digest(read_keys(self.home))
        except (MlPlatformError, OSError) as error:
            logger.error("the API keys stay as they were: %s", error)  # noqa: TRY400 - the trace says no more

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = keys_file(self.home).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def _by_digest(keys: ApiKeys) -> dict[str, ApiKey]:
    return {key.key_sha256: key for key in keys.keys}


def _write(path: Path, data: bytes) -> None:
    """Replaces a file that only its owner may read, as temporary files are made."""
    try:
        write_atomically(path, data)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}. Nothing was changed.") from error
