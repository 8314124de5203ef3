"""Ed25519 keys: one that signs, kept 0600, and the public ones that are trusted."""

import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from pydantic import Field, model_validator
from securesystemslib.signer import CryptoSigner, SSlibKey

from ml_platform.contracts.base import Contract, Sha256
from ml_platform.contracts.home import Home
from ml_platform.errors import ContractError, EvidenceError, StorageError
from ml_platform.lineage.artifacts import write_atomically

KEY_VARIABLE = "ML_PLATFORM_SIGNING_KEY"
KEY_FILE_VARIABLE = "ML_PLATFORM_SIGNING_KEY_FILE"
TRUSTED_VARIABLE = "ML_PLATFORM_TRUSTED_KEYS"
PRIVATE_KEY = "signing_key.pem"
TRUSTED = "trusted"

OTHERS = stat.S_IRWXG | stat.S_IRWXO


class TrustedKey(Contract):
    """A public key, 32 bytes in hexadecimal, whose signatures count; one file below `keys/trusted/`.

    A revoked key stays listed: what it signed no longer counts, and is known for what it is.
    """

    key_id: Sha256
    public_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    revoked: bool = False
    comment: str = ""

    @model_validator(mode="after")
    def _named_by_its_digest(self) -> Self:
        expected = public_key_id(bytes.fromhex(self.public_key))
        if self.key_id != expected:
            raise ValueError(f"key_id must be the SHA-256 of the public key, {expected}")
        return self

    @classmethod
    def of(cls, public_key: bytes, comment: str = "") -> "TrustedKey":
        """The entry for 32 raw bytes."""
        return cls(key_id=public_key_id(public_key), public_key=public_key.hex(), comment=comment)

    def verifier(self) -> SSlibKey:
        """The key in the form that securesystemslib verifies with."""
        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key)), self.key_id)


TrustedKeys = Mapping[str, TrustedKey]
"""Trusted keys by key id, revoked ones among them."""


@dataclass(frozen=True)
class SigningKey:
    """A private key; its representation never shows it."""

    signer: CryptoSigner

    @property
    def key_id(self) -> str:
        """SHA-256 of the raw public key, 64 hexadecimal digits."""
        return str(self.signer.public_key.keyid)

    @property
    def public(self) -> TrustedKey:
        """What others need to verify this key's signatures."""
        return TrustedKey(key_id=self.key_id, public_key=self.signer.public_key.keyval["public"])

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id[:12]})"

    @classmethod
    def generate(cls) -> "SigningKey":
        """A new key that is stored nowhere yet."""
        return cls.of(Ed25519PrivateKey.generate())

    @classmethod
    def of(cls, private: Ed25519PrivateKey) -> "SigningKey":
        """The signing key around a private key."""
        public = private.public_key()
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return cls(CryptoSigner(private, SSlibKey.from_crypto(public, public_key_id(raw))))

    @classmethod
    def from_pem(cls, pem: bytes, where: str) -> "SigningKey":
        """The key in an unencrypted PKCS#8 PEM. Raises EvidenceError that names its origin, never the key."""
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise EvidenceError(
                f"{where}: is no unencrypted Ed25519 private key in PEM (PKCS#8). Correct it, or remove it so that "
                "a new key is made."
            )
        return cls.of(private)


def public_key_id(public_key: bytes) -> str:
    """SHA-256 of the 32 raw bytes of a public key, 64 hexadecimal digits."""
    return hashlib.sha256(public_key).hexdigest()


def signing_key(home: Home, environment: Mapping[str, str] | None = None) -> SigningKey:
    """The key that signs: from ML_PLATFORM_SIGNING_KEY (PEM), ML_PLATFORM_SIGNING_KEY_FILE, or the home.

    The home's key is created on first use, 0600, together with the entry that trusts it; processes
    that start at once get the same key. A key given by the environment is not trusted by itself.
    Raises EvidenceError for a file that others can read or that holds no such key.
    """
    values = os.environ if environment is None else environment
    if pem := values.get(KEY_VARIABLE):
        return SigningKey.from_pem(pem.encode(), KEY_VARIABLE)
    if file := values.get(KEY_FILE_VARIABLE):
        return _read_private(Path(file))
    path = home.keys / PRIVATE_KEY
    try:
        with _locked(home.keys):
            return _read_private(path) if path.exists() else _create(home, path)
    except OSError as error:
        raise StorageError(f"the signing key {path} cannot be stored or read: {error}. Correct the folder.") from error


def trusted_keys(home: Home, environment: Mapping[str, str] | None = None) -> TrustedKeys:
    """The keys whose evidence counts: ML_PLATFORM_TRUSTED_KEYS (public keys in hexadecimal, separated
    by commas or spaces) where it is set, otherwise every `keys/trusted/*.json` of the home.

    Raises ContractError for an entry that cannot be read: half a list of keys is no list of keys.
    """
    values = os.environ if environment is None else environment
    if listed := values.get(TRUSTED_VARIABLE):
        return {key.key_id: key for key in map(_from_hexadecimal, listed.replace(",", " ").split())}
    keys = [TrustedKey.read(path) for path in sorted((home.keys / TRUSTED).glob("*.json"))]
    return {key.key_id: key for key in sorted(keys, key=lambda key: key.revoked)}  # revoked in any file is revoked


def trust(home: Home, key: TrustedKey) -> Path:
    """Writes the entry that trusts (or, with `revoked`, distrusts) a key, and returns its path."""
    path = home.keys / TRUSTED / f"{key.key_id}.json"
    write_atomically(path, key.canonical_bytes() + b"\n")
    return path


def _from_hexadecimal(text: str) -> TrustedKey:
    data: dict[str, Any] = {"key_id": "", "public_key": text}
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        data["key_id"] = public_key_id(bytes.fromhex(text))
        return TrustedKey.parse(data, where=TRUSTED_VARIABLE)
    raise ContractError(f"{TRUSTED_VARIABLE}: '{text[:80]}' is no public key: 64 lower-case hexadecimal digits.")


def _read_private(path: Path) -> SigningKey:
    if not path.is_file():
        raise EvidenceError(f"{path}: there is no such signing key. Correct {KEY_FILE_VARIABLE}.")
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read()
    except OSError as error:
        raise EvidenceError(f"{path}: the signing key cannot be read: {error}. Correct its permissions.") from error
    if mode & OTHERS:
        raise EvidenceError(
            f"{path}: the signing key has mode {stat.S_IMODE(mode):04o}, so others than its owner may use it. "
            f"Replace it if that may have happened, then `chmod 600 {path}`."
        )
    return SigningKey.from_pem(pem, str(path))


def _create(home: Home, path: Path) -> SigningKey:
    """Trusts first, so that a crash between the two leaves at worst a trusted key that nobody has."""
    key = SigningKey.generate()
    trust(home, key.public.model_copy(update={"comment": "created on first use"}))
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".signing_key-")
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
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
