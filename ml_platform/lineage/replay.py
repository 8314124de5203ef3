"""Replay: what a product's events amount to, one event after the other; pure."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.events import (
    KIND_OF,
    NO_EVENT_SHA256,
    Event,
    EvidenceRecorded,
    Payload,
    ReleaseEligible,
    ReleaseHeld,
)
from ml_platform.contracts.policy import PromotionPolicy, SlotName
from ml_platform.contracts.release import Release
from ml_platform.errors import LedgerCorruptError
from ml_platform.lineage.replay_marks import IllegalEventError
from ml_platform.lineage.replay_rules import apply_event


@dataclass
class Replay:
    """Everything that one product's chain says, up to the last event that was added.

    An event that is out of order, breaks the chain, does not fit its contract or is no legal transition raises
    LedgerCorruptError that names it; the replay is not to be used afterwards.

    `pins` are the events that pin a policy, their signatures not verified; `promoted` is the promotion of each release
    that was in production, the one that served last at the end; `falls` are the aborts and rollbacks, by the
    `behaviour_sha256` of the release; `alert` is the newest alert; `opened` opened the canary that is in its slot,
    `shadowed` the shadow; `refusals` are the refused admissions of the present epoch; `stepped` began the canary's
    present step, `frozen` the freeze, `unfrozen` ended the last one; `decisions` are the newest ones recorded, `signed`
    the sign-offs of the present canary, not verified; `moved` is the last move, `served` the one that filled the
    production slot; `waiting` became eligible in a freeze and is of the newest day.
    """

    product: str
    sequence: int = 0
    epoch: int = 0
    head_sha256: str = NO_EVENT_SHA256
    policies: dict[str, PromotionPolicy] = field(default_factory=dict)
    releases: dict[str, Release] = field(default_factory=dict)
    states: dict[str, ReleaseState] = field(default_factory=dict)
    judged: dict[str, ReleaseHeld | ReleaseEligible] = field(default_factory=dict)
    evidence: dict[str, list[EvidenceRecorded]] = field(default_factory=lambda: defaultdict(list))
    registered: dict[str, Event] = field(default_factory=dict)
    pins: list[Event] = field(default_factory=list)
    promoted: dict[str, Event] = field(default_factory=dict)
    falls: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    alert: Event | None = None
    slots: dict[SlotName, str] = field(default_factory=dict)
    canary_step: int = 0
    exposure: float = 0.0
    opened: Event | None = None
    shadowed: Event | None = None
    refusals: list[Event] = field(default_factory=list)
    stepped: Event | None = None
    frozen: Event | None = None
    unfrozen: Event | None = None
    decisions: list[Event] = field(default_factory=list)
    signed: list[Event] = field(default_factory=list)
    moved: Event | None = None
    served: Event | None = None
    waiting: str | None = None

    @property
    def superseded(self) -> tuple[str, ...]:
        """The releases that production could be taken back to, the one that served last first."""
        return tuple(one for one in reversed(self.promoted) if self.states[one] is ReleaseState.SUPERSEDED)

    def next_event(self, payload: Payload, **recorded: object) -> Event:
        """The event that would carry the payload now; `recorded` is recorded_at and actor."""
        kind = KIND_OF[type(payload)]
        return Event.model_validate(
            {
                "product": self.product,
                "sequence": self.sequence + 1,
                "epoch": self.epoch + kind.moves,
                "kind": kind,
                "payload": payload.model_dump(mode="json"),
                "previous_sha256": self.head_sha256,
                **recorded,
            }
        )

    def add(self, event: Event, sha256: str | None = None) -> None:
        """Takes in the next event; `sha256` is its digest where the caller has just worked it out."""
        try:
            self._check_link(event)
            apply_event(self, event)
        except (IllegalEventError, ValueError) as problem:
            raise LedgerCorruptError(f"{event.where}: {problem}.") from None
        self.sequence, self.epoch, self.head_sha256 = event.sequence, event.epoch, sha256 or event.sha256

    def add_all(self, events: Iterable[Event]) -> Self:
        """Takes in events one after the other."""
        for event in events:
            self.add(event)
        return self

    def state(self) -> DeploymentState:
        """The slots and releases now."""
        return DeploymentState(
            product=self.product,
            epoch=self.epoch,
            sequence=self.sequence,
            head_sha256=self.head_sha256,
            slots=dict(self.slots),
            canary_step=self.canary_step,
            exposure=self.exposure,
            rollout=f"{self.opened.payload['release_id']}#{self.opened.sequence}" if self.opened else "",
            last_good=next(iter(self.superseded), None),
            frozen=self.frozen.payload["reason"] if self.frozen else None,
            releases=dict(self.states),
        )

    def _check_link(self, event: Event) -> None:
        expected = (self.product, self.sequence + 1, self.epoch + event.kind.moves, self.head_sha256)
        found = (event.product, event.sequence, event.epoch, event.previous_sha256)
        names = ("product", "sequence", "epoch", "previous digest")
        for name, want, have in zip(names, expected, found, strict=True):
            if want != have:
                raise IllegalEventError(f"its {name} is {_short(have)}, expected {_short(want)}")


def _short(value: object) -> str:
    text = str(value)
    return text[:12] + "…" if len(text) == len(NO_EVENT_SHA256) else text
