"""Events: what the ledger records, one payload a kind; nothing else ever changes what serves."""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field

from ml_platform.contracts.base import Contract, Name, Sha256
from ml_platform.contracts.decided import DecisionRecorded, ProductFrozen, ProductUnfrozen, PromotionSigned
from ml_platform.contracts.evidence import Evidence, Verdict
from ml_platform.contracts.policy import PromotionPolicy, SlotName
from ml_platform.contracts.release import Release
from ml_platform.contracts.slot_moves import (
    CanaryAborted,
    CanaryAdvanced,
    CanaryOpened,
    CanaryPaused,
    CanaryReplaced,
    CanaryResumed,
    ReleasePromoted,
    ReleaseRolledBack,
    ShadowClosed,
    ShadowOpened,
)

NO_EVENT_SHA256 = "0" * 64
"""What the first event of a product names as the one before it."""


class EventKind(StrEnum):
    """Every kind of event; the moves among them are the arrows that DESIGN.md draws."""

    POLICY_RECORDED = "policy_recorded"
    POLICY_PINNED = "policy_pinned"
    RELEASE_REGISTERED = "release_registered"
    EVIDENCE_RECORDED = "evidence_recorded"
    RELEASE_HELD = "release_held"
    RELEASE_ELIGIBLE = "release_eligible"
    CANARY_OPENED = "canary_opened"
    CANARY_REPLACED = "canary_replaced"
    CANARY_ADVANCED = "canary_advanced"
    CANARY_PAUSED = "canary_paused"
    CANARY_RESUMED = "canary_resumed"
    CANARY_ABORTED = "canary_aborted"
    RELEASE_PROMOTED = "release_promoted"
    RELEASE_ROLLED_BACK = "release_rolled_back"
    SHADOW_OPENED = "shadow_opened"
    SHADOW_CLOSED = "shadow_closed"
    ALIAS_RESTORED = "alias_restored"
    ADMISSION_REFUSED = "admission_refused"
    PRODUCT_FROZEN = "product_frozen"
    PRODUCT_UNFROZEN = "product_unfrozen"
    DECISION_RECORDED = "decision_recorded"
    PROMOTION_SIGNED = "promotion_signed"

    @property
    def moves(self) -> bool:
        """Whether an event of this kind changes what serves, and so raises the epoch."""
        return self.name.startswith(("CANARY_", "SHADOW_")) or self in (self.RELEASE_PROMOTED, self.RELEASE_ROLLED_BACK)

    @property
    def forward(self) -> bool:
        """Whether it gives a release more users, or copies of what they ask: what a freeze forbids."""
        return self.moves and self not in (
            self.CANARY_PAUSED,
            self.CANARY_ABORTED,
            self.RELEASE_ROLLED_BACK,
            self.SHADOW_CLOSED,
        )


class PolicyRecorded(Contract):
    """The promotion policy that releases name by its digest, kept whole."""

    policy: PromotionPolicy


class PolicyPinned(Contract):
    """From here on a recorded policy counts, if an operator signed the envelope, which is kept beside the events."""

    policy_sha256: Sha256
    envelope_sha256: Sha256


class ReleaseRegistered(Contract):
    """A release, held ones too."""

    release: Release


class EvidenceRecorded(Contract):
    """A signed envelope, kept beside the events under its digest, and what it says."""

    release_id: Sha256
    gate: Name
    verdict: Verdict
    policy_sha256: Sha256
    envelope_sha256: Sha256
    expires_at: AwareDatetime

    @classmethod
    def of(cls, evidence: Evidence, envelope_sha256: str) -> Self:
        """What the event says of an envelope with this evidence."""
        return cls(
            release_id=evidence.release_id,
            gate=evidence.result.gate,
            verdict=evidence.result.verdict,
            policy_sha256=evidence.policy_sha256,
            envelope_sha256=envelope_sha256,
            expires_at=evidence.expires_at,
        )


class ReleaseHeld(Contract):
    """A release that may not serve: the gates that hold it, each with its reason."""

    release_id: Sha256
    policy_sha256: Sha256
    gates: Annotated[dict[Name, str], Field(min_length=1)]


class ReleaseEligible(Contract):
    """A release that passed every gate of its policy, until the first of its evidence expires."""

    release_id: Sha256
    policy_sha256: Sha256
    expires_at: AwareDatetime


class AliasRestored(Contract):
    """An alert: somebody moved an alias in MLflow by hand; it is put back to what the slot holds, and moved nothing.

    `found` is the version that it pointed to and `found_release` its release, as far as known; None is no version.
    `expected` is the release in the slot. The actor and the time of the event are those who noticed it.
    """

    alias: SlotName
    found: str | None
    found_release: Sha256 | None
    expected: Sha256 | None
    edited_by: Annotated[str, Field(min_length=1)]


class AdmissionRefused(Contract):
    """A gateway does not let a release serve, whatever its slot says, and keeps serving what it had; it moved nothing.

    `slot` is None for the release that production would be taken back to. Once a gateway, release, slot and reason at
    an epoch: whoever looks again and refuses again has nothing to add.
    """

    release_id: Sha256
    slot: SlotName | None
    reason: Annotated[str, Field(min_length=1, max_length=4000)]
    gateway: Annotated[str, Field(min_length=1, max_length=200)]


Payload = (
    PolicyRecorded
    | PolicyPinned
    | ReleaseRegistered
    | EvidenceRecorded
    | ReleaseHeld
    | ReleaseEligible
    | CanaryOpened
    | CanaryReplaced
    | CanaryAdvanced
    | CanaryPaused
    | CanaryResumed
    | CanaryAborted
    | ReleasePromoted
    | ReleaseRolledBack
    | ShadowOpened
    | ShadowClosed
    | AliasRestored
    | AdmissionRefused
    | ProductFrozen
    | ProductUnfrozen
    | DecisionRecorded
    | PromotionSigned
)

PAYLOADS: dict[EventKind, type[Payload]] = {
    EventKind.POLICY_RECORDED: PolicyRecorded,
    EventKind.POLICY_PINNED: PolicyPinned,
    EventKind.RELEASE_REGISTERED: ReleaseRegistered,
    EventKind.EVIDENCE_RECORDED: EvidenceRecorded,
    EventKind.RELEASE_HELD: ReleaseHeld,
    EventKind.RELEASE_ELIGIBLE: ReleaseEligible,
    EventKind.CANARY_OPENED: CanaryOpened,
    EventKind.CANARY_REPLACED: CanaryReplaced,
    EventKind.CANARY_ADVANCED: CanaryAdvanced,
    EventKind.CANARY_PAUSED: CanaryPaused,
    EventKind.CANARY_RESUMED: CanaryResumed,
    EventKind.CANARY_ABORTED: CanaryAborted,
    EventKind.RELEASE_PROMOTED: ReleasePromoted,
    EventKind.RELEASE_ROLLED_BACK: ReleaseRolledBack,
    EventKind.SHADOW_OPENED: ShadowOpened,
    EventKind.SHADOW_CLOSED: ShadowClosed,
    EventKind.ALIAS_RESTORED: AliasRestored,
    EventKind.ADMISSION_REFUSED: AdmissionRefused,
    EventKind.PRODUCT_FROZEN: ProductFrozen,
    EventKind.PRODUCT_UNFROZEN: ProductUnfrozen,
    EventKind.DECISION_RECORDED: DecisionRecorded,
    EventKind.PROMOTION_SIGNED: PromotionSigned,
}

KIND_OF: dict[type[Payload], EventKind] = {payload: kind for kind, payload in PAYLOADS.items()}


class Event(Contract):
    """One link of a product's chain: its digest covers everything here, the previous digest included.

    `sequence` counts the product's events from 1, `epoch` the moves among them, this one included.
    """

    product: Name
    sequence: Annotated[int, Field(ge=1)]
    epoch: Annotated[int, Field(ge=0)]
    kind: EventKind
    payload: dict[str, Any]
    previous_sha256: Sha256
    recorded_at: AwareDatetime
    actor: Annotated[str, Field(min_length=1)]

    @property
    def where(self) -> str:
        """What errors call this event."""
        return f"event {self.sequence} of {self.product} ({self.kind})"
