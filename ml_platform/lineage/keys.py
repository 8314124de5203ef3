"""Ed25519 keys: those that sign, kept 0600, and the public ones that are trusted, for evidence and for operators."""

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.contracts.home import Home
from ml_platform.errors import ContractError, EvidenceError, StorageError
from ml_platform.lineage.artifacts import write_atomically
from ml_platform.lineage.exclusive import exclusively
from ml_platform.lineage.key_values import SigningKey, TrustedKey, TrustedKeys, public_key_id

__all__ = [
    "KEY_FILE_VARIABLE",
    "KEY_VARIABLE",
    "OPERATOR",
    "OPERATORS_VARIABLE",
    "OPERATOR_KEY_FILE_VARIABLE",
    "OPERATOR_KEY_VARIABLE",
    "SIGNING",
    "TRUSTED_VARIABLE",
    "KeyRole",
    "SigningKey",
    "TrustedKey",
    "TrustedKeys",
    "given_key",
    "given_value",
    "keys_of",
    "locked_keys",
    "new_key",
    "operator_key",
    "public_key_id",
    "signing_key",
    "trust",
    "trusted_keys",
    "trusted_operators",
]

KEY_VARIABLE = "ML_PLATFORM_SIGNING_KEY"
KEY_FILE_VARIABLE = "ML_PLATFORM_SIGNING_KEY_FILE"
TRUSTED_VARIABLE = "ML_PLATFORM_TRUSTED_KEYS"
OPERATOR_KEY_VARIABLE = "ML_PLATFORM_OPERATOR_KEY"
OPERATOR_KEY_FILE_VARIABLE = "ML_PLATFORM_OPERATOR_KEY_FILE"
OPERATORS_VARIABLE = "ML_PLATFORM_TRUSTED_OPERATORS"

OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class KeyRole:
    """What a key is for: its file below `keys/`, the folder of those that are trusted, and the variables."""

    name: str
    private_file: str
    trusted_folder: str
    key_variable: str
    file_variable: str
    trusted_variable: str


SIGNING = KeyRole("signing", "signing_key.pem", "trusted", KEY_VARIABLE, KEY_FILE_VARIABLE, TRUSTED_VARIABLE)
"""Signs evidence: the key of the machines that evaluate."""

OPERATOR = KeyRole(
    "operator",
    "operator_key.pem",
    "operators",
    OPERATOR_KEY_VARIABLE,
    OPERATOR_KEY_FILE_VARIABLE,
    OPERATORS_VARIABLE,
)
"""Pins policies: the key of those who answer for a product, another root of trust than evidence."""


def signing_key(home: Home, environment: Mapping[str, str] | None = None) -> SigningKey:
    """The key that signs: from ML_PLATFORM_SIGNING_KEY (PEM), ML_PLATFORM_SIGNING_KEY_FILE, or the home.

    The home's key is created on first use, 0600, together with the entry that trusts it; processes
    that start at once get the same key. A key given by the environment is not trusted by itself.
    Raises EvidenceError for a file that others can read or that holds no such key, ContractError for a variable that
    is set to nothing.
    """
    values = os.environ if environment is None else environment
    return given_key(SIGNING, values) or _home_key(SIGNING, home)


def operator_key(home: Home, environment: Mapping[str, str] | None = None) -> SigningKey | None:
    """The key that pins policies, from ML_PLATFORM_OPERATOR_KEY, ML_PLATFORM_OPERATOR_KEY_FILE or the home.

    It is created on first use like the signing key, but only where nobody said yet who the operators are; None where
    they are named, by the environment or the home, and none of their keys is here: one that was made before somebody
    named others, or that was revoked, is none of theirs. Raises like `signing_key`.
    """
    values = os.environ if environment is None else environment
    if given := given_key(OPERATOR, values):
        return given
    if keys_of(OPERATOR, home, values) and not (home.keys / OPERATOR.private_file).exists():
        return None
    key = _home_key(OPERATOR, home)
    named = keys_of(OPERATOR, home, values).get(key.key_id)
    return None if named is None or named.revoked else key


def trusted_keys(home: Home, environment: Mapping[str, str] | None = None) -> TrustedKeys:
    """The keys whose evidence counts: ML_PLATFORM_TRUSTED_KEYS (public keys in hexadecimal, separated by commas or
    spaces, a revoked one behind `!`) where it is set, otherwise every `keys/trusted/*.json` of the home.

    Raises ContractError for an entry that cannot be read, or a variable that is empty: half a list of keys is none.
    """
    return keys_of(SIGNING, home, environment)


def trusted_operators(home: Home, environment: Mapping[str, str] | None = None) -> TrustedKeys:
    """The keys whose policy pins count: ML_PLATFORM_TRUSTED_OPERATORS or `keys/operators/*.json`; as `trusted_keys`."""
    return keys_of(OPERATOR, home, environment)


def keys_of(role: KeyRole, home: Home, environment: Mapping[str, str] | None = None) -> TrustedKeys:
    """The trusted keys of a role, revoked ones among them."""
    values = os.environ if environment is None else environment
    if listed := given_value(role.trusted_variable, values):
        keys = [_from_hexadecimal(text, role.trusted_variable) for text in listed.replace(",", " ").split()]
    else:
        keys = [TrustedKey.read(path) for path in sorted((home.keys / role.trusted_folder).glob("*.json"))]
    return {key.key_id: key for key in sorted(keys, key=lambda key: key.revoked)}  # revoked anywhere is revoked


def trust(home: Home, key: TrustedKey, role: KeyRole = SIGNING) -> Path:
    """Writes the entry that trusts (or, with `revoked`, distrusts) a key, and returns its path."""
    path = home.keys / role.trusted_folder / f"{key.key_id}.json"
    write_atomically(path, key.canonical_bytes() + b"\n")
    return path


def new_key(home: Home, role: KeyRole, comment: str) -> SigningKey:
    """Makes a key, trusts it and puts it where the role's key lies; the one before stays trusted.

    Trusts first, so that a crash between the two leaves at worst a trusted key that nobody has.
    """
    key = SigningKey.generate()
    trust(home, key.public.model_copy(update={"comment": comment}), role)
    path = home.keys / role.private_file
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{role.name}_key-")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(key.signer.private_bytes)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    return key


@contextmanager
def locked_keys(home: Home) -> Iterator[None]:
    """One process at a time makes or changes keys."""
    home.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    with exclusively(home.keys / ".lock"):
        yield


def given_key(role: KeyRole, values: Mapping[str, str]) -> SigningKey | None:
    """The key of a role that the environment gives, None where it gives none."""
    if pem := given_value(role.key_variable, values):
        return SigningKey.from_pem(pem.encode(), role.key_variable)
    if file := given_value(role.file_variable, values):
        return _read_private(Path(file), role)
    return None


def given_value(variable: str, values: Mapping[str, str]) -> str | None:
    """What a variable says, None where it is not set; one that is set to nothing is an error.

    A template without its value or an empty secret was meant to say something: taken for unset, it would
    let this home make and trust a key of its own.
    """
    text = values.get(variable)
    if text is not None and not text.strip():
        raise ContractError(
            f"{variable} is set, but empty. Give it its value, or unset it to use the keys of the home."
        )
    return text


def _home_key(role: KeyRole, home: Home) -> SigningKey:
    path = home.keys / role.private_file
    try:
        with locked_keys(home):
            return _read_private(path, role) if path.exists() else new_key(home, role, "created on first use")
    except OSError as error:
        raise StorageError(
            f"the {role.name} key {path} cannot be stored or read: {error}. Correct the folder."
        ) from error


def _from_hexadecimal(text: str, variable: str) -> TrustedKey:
    digits = text.removeprefix("!")
    data: dict[str, Any] = {"key_id": "", "public_key": digits, "revoked": text != digits}
    if len(digits) == 64 and set(digits) <= set("0123456789abcdef"):
        data["key_id"] = public_key_id(bytes.fromhex(digits))
        return TrustedKey.parse(data, where=variable)
    raise ContractError(f"{variable}: '{text[:80]}' is no public key: 64 lower-case hexadecimal digits.")


def _read_private(path: Path, role: KeyRole) -> SigningKey:
    if not path.is_file():
        raise EvidenceError(f"{path}: there is no such {role.name} key. Correct {role.file_variable}.")
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read()
    except OSError as error:
        raise EvidenceError(f"{path}: the {role.name} key cannot be read: {error}. Correct its permissions.") from error
    if mode & OTHERS:
        raise EvidenceError(
            f"{path}: the {role.name} key has mode {stat.S_IMODE(mode):04o}, so others than its owner may use it. "
            f"Replace it if that may have happened, then `chmod 600 {path}`."
        )
    return SigningKey.from_pem(pem, str(path))
