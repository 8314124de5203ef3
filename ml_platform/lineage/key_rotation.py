"""Keys over time: listed, replaced with an overlap, revoked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ml_platform.contracts.home import Home
from ml_platform.errors import InvalidInputError, RefusedError
from ml_platform.lineage.keys import (
    OPERATOR,
    SIGNING,
    KeyRole,
    SigningKey,
    TrustedKey,
    given_key,
    given_value,
    keys_of,
    locked_keys,
    new_key,
    trust,
)

ROLES = (SIGNING, OPERATOR)
MIN_PREFIX = 4


@dataclass(frozen=True)
class ListedKey:
    """A key of a role; `signs` tells whether its private half is the one that signs here.

    `trusted` is False for one that signs here and that nobody said is trusted: nothing that it signs counts.
    """

    role: KeyRole
    key: TrustedKey
    signs: bool
    trusted: bool = True


def list_keys(home: Home, environment: Mapping[str, str] | None = None) -> tuple[ListedKey, ...]:
    """Every key that is or was trusted, for evidence and for pins; none is made by asking."""
    values = os.environ if environment is None else environment
    found = []
    for role in ROLES:
        private = _private(home, role, values)
        keys = keys_of(role, home, values)
        found += [ListedKey(role, key, private is not None and private.key_id == key.key_id) for key in keys.values()]
        if private is not None and private.key_id not in keys:
            found.append(ListedKey(role, private.public, signs=True, trusted=False))
    return tuple(found)


def rotate_key(home: Home, role: KeyRole, environment: Mapping[str, str] | None = None) -> SigningKey:
    """A new key that signs from now on; what the old one signed counts until it is revoked or expires.

    Raises RefusedError where the environment gives the key or lists those that are trusted: it is rotated there.
    """
    values = os.environ if environment is None else environment
    _require_home(role, values, "rotated")
    with locked_keys(home):
        return new_key(home, role, "made by rotation")


def revoke_key(
    home: Home, prefix: str, reason: str, environment: Mapping[str, str] | None = None
) -> tuple[TrustedKey, SigningKey | None]:
    """The key whose id begins so, revoked: nothing that it signed counts any more, whenever it was signed.

    The second value is its successor where it was the key that signs here, for a revoked key is of no use. Raises
    InvalidInputError for an unknown key, RefusedError where the environment lists the trusted keys.
    """
    values = os.environ if environment is None else environment
    if not reason.strip():
        raise RefusedError("a key is revoked with a reason only. Say why, for those who ask later.")
    found = _find(home, prefix, values)
    _require_home_list(found.role, values, "revoked", f"put ! before {found.key.public_key}")
    with locked_keys(home):
        successor = None
        if found.signs and given_key(found.role, values) is None:
            successor = new_key(home, found.role, f"successor of {found.key.key_id[:12]}, which was revoked")
        revoked = found.key.model_copy(update={"revoked": True, "revoked_because": reason})
        trust(home, revoked, found.role)
    return revoked, successor


def _find(home: Home, prefix: str, values: Mapping[str, str]) -> ListedKey:
    wanted = prefix.strip().lower()
    listed = list_keys(home, values)
    matching = [one for one in listed if len(wanted) >= MIN_PREFIX and one.key.key_id.startswith(wanted)]
    if len(matching) != 1:
        known = ", ".join(f"{one.key.key_id[:12]} ({one.role.name})" for one in listed) or "none"
        found = f"{len(matching)} keys begin so" if matching else "no trusted key begins so"
        raise InvalidInputError(f"key '{prefix}': {found}, expected one, by 4 digits or more. Known: {known}.")
    return matching[0]


def _private(home: Home, role: KeyRole, values: Mapping[str, str]) -> SigningKey | None:
    if given := given_key(role, values):
        return given
    path = home.keys / role.private_file
    return SigningKey.from_pem(path.read_bytes(), str(path)) if path.is_file() else None


def _require_home(role: KeyRole, values: Mapping[str, str], done: str) -> None:
    for variable in (role.key_variable, role.file_variable):
        if given_value(variable, values):
            raise RefusedError(
                f"the {role.name} key is given by {variable}, so it is not {done} here. Replace it where it comes from."
            )
    _require_home_list(role, values, done, "add the new public key")


def _require_home_list(role: KeyRole, values: Mapping[str, str], done: str, remedy: str) -> None:
    if given_value(role.trusted_variable, values):
        raise RefusedError(
            f"the trusted {role.name} keys are listed in {role.trusted_variable}, so none is {done} here: {remedy} "
            "there."
        )
