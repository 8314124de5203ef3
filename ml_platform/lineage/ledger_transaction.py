"""Views of one product's ledger: what a reader sees, and what a writer appends, all of it or nothing."""

from datetime import datetime

from sqlalchemy import Connection, insert

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.decided import PromotionSigned, SignOff
from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.events import Event, EvidenceRecorded, Payload, PolicyPinned
from ml_platform.contracts.evidence import Evidence
from ml_platform.contracts.pin import PolicyPin
from ml_platform.errors import EpochConflictError, LedgerCorruptError, RefusedError
from ml_platform.lineage.ledger_envelopes import envelopes_of, find_envelope, pins_of, sign_offs_of
from ml_platform.lineage.ledger_rows import row_of
from ml_platform.lineage.ledger_schema import envelopes, events
from ml_platform.lineage.replay import Replay


class Reading:
    """One consistent view of a product, as long as the block lasts that opened it."""

    def __init__(self, connection: Connection, replay: Replay) -> None:
        self._connection = connection
        self.replay = replay

    @property
    def state(self) -> DeploymentState:
        """The product's state, with what this transaction has appended."""
        return self.replay.state()

    def envelopes(self, release_id: str) -> tuple[bytes, ...]:
        """Every envelope recorded for a release, in the order of the chain."""
        return envelopes_of(self._connection, self.replay, release_id)

    def pins(self) -> tuple[tuple[Event, bytes], ...]:
        """Every event that pins a policy, with its envelope, whose signature is not verified."""
        return pins_of(self._connection, self.replay)

    def sign_offs(self) -> tuple[tuple[Event, bytes], ...]:
        """Every sign-off of the present canary's promotion, with its envelope, whose signature is not verified."""
        return sign_offs_of(self._connection, self.replay)


class Transaction(Reading):
    """One writer's view of a product: what was, and what it appends; all of it is committed or none."""

    def __init__(self, connection: Connection, replay: Replay, now: datetime, actor: str) -> None:
        super().__init__(connection, replay)
        self._now = now
        self._actor = actor
        self.appending = False

    def expect_epoch(self, expected: int | None) -> None:
        """Raises EpochConflictError when somebody moved a slot since `expected`; None expects nothing."""
        if expected is not None and self.replay.epoch != expected:
            raise EpochConflictError(
                f"{self.replay.product} is at epoch {self.replay.epoch}, expected {expected}: a slot was moved in the "
                "meantime. Look at `mlp status` and decide again."
            )

    def append(self, payload: Payload) -> Event:
        """Appends an event. Raises RefusedError, before anything is written, for one that the rules forbid."""
        self.appending = True
        event = self.replay.next_event(payload, recorded_at=self._now, actor=self._actor)
        try:
            self.replay.add(event)
        except LedgerCorruptError as error:
            raise RefusedError(f"not recorded: {error}") from None
        self._connection.execute(insert(events).values(**row_of(event)))
        return event

    def append_evidence(self, evidence: Evidence, envelope: bytes) -> Event:
        """Appends evidence together with the envelope that holds it."""
        return self.append(EvidenceRecorded.of(evidence, self._keep(envelope)))

    def append_pin(self, pin: PolicyPin, envelope: bytes) -> Event:
        """Appends a policy pin together with the envelope that holds it."""
        return self.append(PolicyPinned(policy_sha256=pin.policy_sha256, envelope_sha256=self._keep(envelope)))

    def append_sign_off(self, said: SignOff, envelope: bytes) -> Event:
        """Appends an operator's sign-off together with the envelope that holds it."""
        return self.append(PromotionSigned(release_id=said.release_id, envelope_sha256=self._keep(envelope)))

    def _keep(self, envelope: bytes) -> str:
        envelope_sha256 = bytes_sha256(envelope)
        if find_envelope(self._connection, envelope_sha256) is None:
            self._connection.execute(insert(envelopes).values(envelope_sha256=envelope_sha256, content=envelope))
        return envelope_sha256

    def has_envelope(self, release_id: str, envelope: bytes) -> bool:
        """Whether this very envelope is recorded for a release."""
        recorded = self.replay.evidence.get(release_id, ())
        return bytes_sha256(envelope) in [said.envelope_sha256 for said in recorded]
