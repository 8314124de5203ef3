"""Signed envelopes beside the events of a ledger: found by their digests, and checked to say what the events say."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, select

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.decided import PromotionSigned
from ml_platform.contracts.events import Event, EventKind, EvidenceRecorded, PolicyPinned
from ml_platform.errors import EvidenceError, LedgerCorruptError
from ml_platform.lineage.keys import TrustedKeys
from ml_platform.lineage.ledger_schema import envelopes
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.statements import (
    read_evidence,
    read_pin,
    read_sign_off,
    verify_evidence,
    verify_pin,
    verify_sign_off,
)

Said = TypeVar("Said")


def find_envelope(connection: Connection, envelope_sha256: str) -> bytes | None:
    """The envelope of that digest as it is stored, or None."""
    query = select(envelopes.c.content).where(envelopes.c.envelope_sha256 == envelope_sha256)
    content = connection.scalar(query)
    # SQLite keeps a text or a number too where bytes belong: those are no envelope, which its digest will tell.
    return content if content is None or isinstance(content, bytes) else str(content).encode()


def envelopes_of(connection: Connection, replay: Replay, release_id: str) -> tuple[bytes, ...]:
    """The envelopes of a release in the order of the chain. Raises LedgerCorruptError for a missing or changed one."""
    return tuple(_envelope_of(connection, replay.product, said) for said in replay.evidence.get(release_id, ()))


def sign_offs_of(connection: Connection, replay: Replay) -> tuple[tuple[Event, bytes], ...]:
    """The sign-offs of the present canary, with their envelopes. Raises LedgerCorruptError likewise."""
    said = [(event, PromotionSigned.model_validate(event.payload)) for event in replay.signed]
    return tuple((event, _envelope_of(connection, replay.product, signed)) for event, signed in said)


def pins_of(connection: Connection, replay: Replay) -> tuple[tuple[Event, bytes], ...]:
    """The events that pin a policy, with their envelopes. Raises LedgerCorruptError for a missing or changed one."""
    said = [(event, PolicyPinned.model_validate(event.payload)) for event in replay.pins]
    return tuple((event, _envelope_of(connection, replay.product, pinned)) for event, pinned in said)


def check_envelope(
    connection: Connection, event: Event, trusted: TrustedKeys | None, operators: TrustedKeys | None
) -> None:
    """Raises LedgerCorruptError unless the envelope that an event names, if any, is whole and says what it says; with
    keys, unless one of them signed it."""
    if event.kind is EventKind.EVIDENCE_RECORDED:
        _check_evidence(connection, event, trusted)
    elif event.kind is EventKind.POLICY_PINNED:
        _check_pin(connection, event, operators)
    elif event.kind is EventKind.PROMOTION_SIGNED:
        _check_sign_off(connection, event, operators)


def _check_evidence(connection: Connection, event: Event, trusted: TrustedKeys | None) -> None:
    said = EvidenceRecorded.model_validate(event.payload)
    evidence = _signed(connection, event, said, read_evidence, verify_evidence, trusted)
    if EvidenceRecorded.of(evidence, said.envelope_sha256) != said:
        raise LedgerCorruptError(f"{event.where}: says something else than its envelope.")


def _check_pin(connection: Connection, event: Event, operators: TrustedKeys | None) -> None:
    said = PolicyPinned.model_validate(event.payload)
    pin = _signed(connection, event, said, read_pin, verify_pin, operators)
    _require_same(event, (pin.product, pin.policy_sha256, pin.after_sha256), said.policy_sha256)


def _check_sign_off(connection: Connection, event: Event, operators: TrustedKeys | None) -> None:
    said = PromotionSigned.model_validate(event.payload)
    signed = _signed(connection, event, said, read_sign_off, verify_sign_off, operators)
    _require_same(event, (signed.product, signed.release_id, signed.after_sha256), said.release_id)


def _signed(
    connection: Connection,
    event: Event,
    said: EvidenceRecorded | PolicyPinned | PromotionSigned,
    read: Callable[[bytes], Said],
    verify: Callable[[bytes, TrustedKeys], Said],
    keys: TrustedKeys | None,
) -> Said:
    """What the envelope of an event says; with keys, once one that was ever trusted has signed it."""
    envelope = _envelope_of(connection, event.product, said)
    try:
        return read(envelope) if keys is None else verify(envelope, _ever_trusted(keys))
    except EvidenceError as error:
        raise LedgerCorruptError(f"{event.where}: {error}") from None


def _require_same(event: Event, signed: tuple[str, str, str], named: str) -> None:
    """An operator's envelope is for this product, what the event names, and this place in the chain."""
    if signed != (event.product, named, event.previous_sha256):
        raise LedgerCorruptError(f"{event.where}: says something else than its envelope, or was copied here.")


def _ever_trusted(keys: TrustedKeys) -> TrustedKeys:
    return {key_id: key.model_copy(update={"revoked": False}) for key_id, key in keys.items()}


def _envelope_of(
    connection: Connection, product: str, said: EvidenceRecorded | PolicyPinned | PromotionSigned
) -> bytes:
    content = find_envelope(connection, said.envelope_sha256)
    if content is None or bytes_sha256(content) != said.envelope_sha256:
        found = "is missing" if content is None else "was changed"
        raise LedgerCorruptError(f"{_named(said)} of {product}: envelope {said.envelope_sha256[:12]} {found}.")
    return content


def _named(said: EvidenceRecorded | PolicyPinned | PromotionSigned) -> str:
    if isinstance(said, EvidenceRecorded):
        return f"evidence for gate '{said.gate}' of release {said.release_id[:12]}"
    if isinstance(said, PolicyPinned):
        return f"the pin of policy {said.policy_sha256[:12]}"
    return f"the sign-off of release {said.release_id[:12]}"
