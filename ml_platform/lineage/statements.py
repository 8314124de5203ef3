"""Evidence, policy pins, sign-offs and what was made as signed statements: DSSE envelopes around in-toto statements."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from securesystemslib import exceptions
from securesystemslib.dsse import Envelope

from ml_platform.contracts.canonical import bytes_sha256, canonical_bytes
from ml_platform.contracts.decided import SignOff
from ml_platform.contracts.evidence import Evidence, Made
from ml_platform.contracts.pin import PolicyPin
from ml_platform.errors import EvidenceError
from ml_platform.lineage.keys import SigningKey, TrustedKeys

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://ml-platform.example/evidence/v1"
PIN_TYPE = "https://ml-platform.example/policy-pin/v1"
SIGN_OFF_TYPE = "https://ml-platform.example/sign-off/v1"
MADE_TYPE = "https://ml-platform.example/made/v1"
MAX_ENVELOPE_BYTES = 1 << 20

Said = TypeVar("Said", Evidence, PolicyPin, SignOff, Made)


def sign_evidence(evidence: Evidence, key: SigningKey) -> bytes:
    """The envelope of the evidence, canonical JSON; the same bytes for the same evidence and key."""
    return _sign(_evidence_statement(evidence), key)


def verify_evidence(envelope: bytes, trusted: TrustedKeys) -> Evidence:
    """The evidence in an envelope that a trusted key signed; pure.

    Only one byte string is accepted for an evidence and a key: canonical JSON with exactly the known keys, one
    signature, this payload type, a subject that is the evidence's release. Raises EvidenceError.
    """
    payload, name = _verified(envelope, trusted, "Evaluate the release again")
    return _stated(payload, name, Evidence, _evidence_statement)


def read_evidence(envelope: bytes) -> Evidence:
    """What an envelope says, its signature NOT verified: for showing, never for deciding."""
    return _stated(_envelope(envelope).payload, _name(envelope), Evidence, _evidence_statement)


def sign_pin(pin: PolicyPin, key: SigningKey) -> bytes:
    """The envelope of a policy pin, signed by an operator; the same bytes for the same pin and key."""
    return _sign(_pin_statement(pin), key)


def verify_pin(envelope: bytes, operators: TrustedKeys) -> PolicyPin:
    """The policy pin in an envelope that a trusted operator signed; pure. As strict as `verify_evidence`."""
    payload, name = _verified(envelope, operators, "Pin the policy again")
    return _stated(payload, name, PolicyPin, _pin_statement)


def read_pin(envelope: bytes) -> PolicyPin:
    """What an envelope with a pin says, its signature NOT verified: for showing, never for deciding."""
    return _stated(_envelope(envelope).payload, _name(envelope), PolicyPin, _pin_statement)


def sign_promotion(said: SignOff, key: SigningKey) -> bytes:
    """The envelope of an operator's sign-off; the same bytes for the same sign-off and key."""
    return _sign(_sign_off_statement(said), key)


def verify_sign_off(envelope: bytes, operators: TrustedKeys) -> SignOff:
    """The sign-off in an envelope that a trusted operator signed; pure. As strict as `verify_evidence`."""
    payload, name = _verified(envelope, operators, "Sign the promotion again")
    return _stated(payload, name, SignOff, _sign_off_statement)


def read_sign_off(envelope: bytes) -> SignOff:
    """What an envelope with a sign-off says, its signature NOT verified: for showing, never for deciding."""
    return _stated(_envelope(envelope).payload, _name(envelope), SignOff, _sign_off_statement)


def sign_made(made: Made, key: SigningKey) -> bytes:
    """The envelope of a machine's word that it made an artifact; the same bytes for the same artifact and key."""
    return _sign(_made_statement(made), key)


def verify_made(envelope: bytes, trusted: TrustedKeys) -> Made:
    """What a trusted key signed to have made; pure. As strict as `verify_evidence`."""
    payload, name = _verified(envelope, trusted, "Make the artifact again")
    return _stated(payload, name, Made, _made_statement)


def signed_by(envelope: bytes) -> str:
    """The key id that an envelope names, not verified. Raises EvidenceError for what is no envelope."""
    return str(next(iter(_envelope(envelope).signatures)))


def _evidence_statement(evidence: Evidence) -> bytes:
    return _statement(evidence.product, evidence.release_id, PREDICATE_TYPE, evidence)


def _pin_statement(pin: PolicyPin) -> bytes:
    return _statement(pin.product, pin.policy_sha256, PIN_TYPE, pin)


def _sign_off_statement(said: SignOff) -> bytes:
    return _statement(said.product, said.release_id, SIGN_OFF_TYPE, said)


def _made_statement(made: Made) -> bytes:
    return _statement(made.kind, made.artifact_sha256, MADE_TYPE, made)


def _statement(name: str, sha256: str, predicate_type: str, predicate: Evidence | PolicyPin | SignOff | Made) -> bytes:
    return canonical_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": sha256}}],
            "predicateType": predicate_type,
            "predicate": predicate.model_dump(mode="json"),
        }
    )


def _sign(statement: bytes, key: SigningKey) -> bytes:
    envelope = Envelope(statement, PAYLOAD_TYPE, {})
    envelope.sign(key.signer)
    return canonical_bytes(envelope.to_dict())


def _verified(envelope: bytes, trusted: TrustedKeys, remedy: str) -> tuple[bytes, str]:
    """The payload of an envelope that a trusted key signed, and what errors call it."""
    parsed = _envelope(envelope)
    name = _name(envelope)
    key_id = next(iter(parsed.signatures))
    key = trusted.get(key_id)
    if key is None:
        raise EvidenceError(
            f"{name}: is signed by key {key_id[:12]}, which is not trusted. Trusted: {_listed(trusted)}."
        )
    if key.revoked:
        raise EvidenceError(f"{name}: is signed by key {key_id[:12]}, which was revoked. {remedy}.")
    try:
        parsed.verify([key.verifier()], threshold=1)
    except exceptions.Error:
        raise EvidenceError(
            f"{name}: the signature of key {key_id[:12]} does not fit. The envelope was changed."
        ) from None
    return bytes(parsed.payload), name


def _envelope(data: bytes) -> Envelope:
    """An envelope is accepted only if writing it again gives the same bytes."""
    name = _name(data)
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EvidenceError(f"{name}: has {len(data)} bytes, expected at most {MAX_ENVELOPE_BYTES}.")
    plain = _parsed(data, name)
    try:
        # Asked first: the library takes a key id that is no text, and beside it whatever else stands there.
        same = _has_one_signature(plain)
        envelope = Envelope.from_dict(plain)
        same = same and canonical_bytes(envelope.to_dict()) == data
    except (KeyError, TypeError, ValueError, AttributeError, exceptions.Error):
        same = False
    if not same:
        raise EvidenceError(
            f"{name}: is no canonical DSSE envelope with one signature: keys are unknown, missing, repeated or of "
            "another type, or the JSON is written in another way."
        )
    if envelope.payload_type != PAYLOAD_TYPE:
        raise EvidenceError(f"{name}: the payload type is '{envelope.payload_type}', expected '{PAYLOAD_TYPE}'.")
    return envelope


def _has_one_signature(plain: dict[str, Any]) -> bool:
    """Whether there is one, and it is a key id and a signature, both texts, and nothing else."""
    match plain.get("signatures"):
        case [{"keyid": str(), "sig": str(), **more}]:
            return not more
    return False


def _stated(payload: bytes, name: str, contract: type[Said], statement: Callable[[Said], bytes]) -> Said:
    """A payload is accepted only if stating its predicate again gives the same bytes."""
    plain = _parsed(payload, name)
    try:
        said = contract.model_validate(plain["predicate"])
        same = statement(said) == payload
    except (KeyError, TypeError, ValueError):
        same = False
    if not same:
        raise EvidenceError(
            f"{name}: its payload is no canonical in-toto statement about the subject that its predicate, "
            f"{contract.__name__}, names: keys are unknown, missing, repeated or of another type."
        )
    return said


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


def _name(envelope: bytes) -> str:
    return f"envelope {bytes_sha256(envelope)[:12]}"
