"""Evidence as a signed statement: a DSSE envelope around an in-toto statement about one release."""

import json
from typing import Any

from securesystemslib import exceptions
from securesystemslib.dsse import Envelope

from ml_platform.contracts.canonical import bytes_sha256, canonical_bytes
from ml_platform.contracts.evidence import Evidence
from ml_platform.errors import EvidenceError
from ml_platform.lineage.keys import SigningKey, TrustedKeys

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://ml-platform.example/evidence/v1"
MAX_ENVELOPE_BYTES = 1 << 20


def sign_evidence(evidence: Evidence, key: SigningKey) -> bytes:
    """The envelope of the evidence, canonical JSON; the same bytes for the same evidence and key."""
    envelope = Envelope(_statement(evidence), PAYLOAD_TYPE, {})
    envelope.sign(key.signer)
    return canonical_bytes(envelope.to_dict())


def verify_evidence(envelope: bytes, trusted: TrustedKeys) -> Evidence:
    """The evidence in an envelope that a trusted key signed; pure.

    Only one byte string is accepted for an evidence and a key: canonical JSON with exactly the known keys, one
    signature, this payload type, a subject that is the evidence's release. Raises EvidenceError.
    """
    parsed = _envelope(envelope)
    name = f"envelope {bytes_sha256(envelope)[:12]}"
    key_id = next(iter(parsed.signatures))
    key = trusted.get(key_id)
    if key is None:
        raise EvidenceError(
            f"{name}: is signed by key {key_id[:12]}, which is not trusted. Trusted: {_listed(trusted)}."
        )
    if key.revoked:
        raise EvidenceError(f"{name}: is signed by key {key_id[:12]}, which was revoked. Evaluate the release again.")
    try:
        parsed.verify([key.verifier()], threshold=1)
    except exceptions.Error:
        raise EvidenceError(
            f"{name}: the signature of key {key_id[:12]} does not fit. The envelope was changed."
        ) from None
    return _evidence(parsed.payload, name)


def read_evidence(envelope: bytes) -> Evidence:
    """What an envelope says, its signature NOT verified: for showing, never for deciding."""
    return _evidence(_envelope(envelope).payload, f"envelope {bytes_sha256(envelope)[:12]}")


def signed_by(envelope: bytes) -> str:
    """The key id that an envelope names, not verified. Raises EvidenceError for what is no envelope."""
    return str(next(iter(_envelope(envelope).signatures)))


def _statement(evidence: Evidence) -> bytes:
    return canonical_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": evidence.product, "digest": {"sha256": evidence.release_id}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": evidence.model_dump(mode="json"),
        }
    )


def _envelope(data: bytes) -> Envelope:
    """An envelope is accepted only if writing it again gives the same bytes."""
    name = f"envelope {bytes_sha256(data)[:12]}"
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EvidenceError(f"{name}: has {len(data)} bytes, expected at most {MAX_ENVELOPE_BYTES}.")
    plain = _parsed(data, name)
    try:
        envelope = Envelope.from_dict(plain)
        same = canonical_bytes(envelope.to_dict()) == data
    except (KeyError, TypeError, ValueError, AttributeError, exceptions.Error):
        same = False
    if not same or len(envelope.signatures) != 1:
        raise EvidenceError(
            f"{name}: is no canonical DSSE envelope with one signature: keys are unknown, missing, repeated or of "
            "another type, or the JSON is written in another way."
        )
    if envelope.payload_type != PAYLOAD_TYPE:
        raise EvidenceError(f"{name}: the payload type is '{envelope.payload_type}', expected '{PAYLOAD_TYPE}'.")
    return envelope


def _evidence(payload: bytes, name: str) -> Evidence:
    """A payload is accepted only if stating its evidence again gives the same bytes."""
    plain = _parsed(payload, name)
    try:
        evidence = Evidence.model_validate(plain["predicate"])
        same = _statement(evidence) == payload
    except (KeyError, TypeError, ValueError):
        same = False
    if not same:
        raise EvidenceError(
            f"{name}: its payload is no canonical in-toto statement '{PREDICATE_TYPE}' about the release that the "
            "evidence names: keys are unknown, missing, repeated or of another type."
        )
    return evidence


def _parsed(data: bytes, name: str) -> dict[str, Any]:
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        plain = None
    if not isinstance(plain, dict):
        raise EvidenceError(f"{name}: is no JSON object.")
    return plain


def _listed(trusted: TrustedKeys) -> str:
    return ", ".join(key_id[:12] for key_id in trusted) or "none"
