"""Ed25519 keys as values: a public one that is trusted, a private one that signs."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from pydantic import Field, model_validator
from securesystemslib.signer import CryptoSigner, SSlibKey

from ml_platform.contracts.base import Contract, Sha256
from ml_platform.errors import EvidenceError


class TrustedKey(Contract):
    """A public key, 32 bytes in hexadecimal, whose signatures count; one file below `keys/trusted/` or
    `keys/operators/`.

    A revoked key stays listed: what it signed no longer counts, and is known for what it is.
    """

    key_id: Sha256
    public_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    revoked: bool = False
    revoked_because: str = ""
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
