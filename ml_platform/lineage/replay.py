"""Replay: what a product's events amount to, one event after the other; pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.events import (
    KIND_OF,
    NO_EVENT_SHA256,
    PAYLOADS,
    CanaryAborted,
    CanaryAdvanced,
    CanaryOpened,
    CanaryPaused,
    CanaryReplaced,
    CanaryResumed,
    Event,
    EventKind,
    EvidenceRecorded,
    Payload,
    PolicyRecorded,
    ReleaseEligible,
    ReleaseHeld,
    ReleasePromoted,
    ReleaseRegistered,
    ReleaseRolledBack,
)
from ml_platform.contracts.policy import PromotionPolicy, SlotName
from ml_platform.contracts.release import Release
from ml_platform.errors import LedgerCorruptError

OPEN = (ReleaseState.CANARY, ReleaseState.PAUSED)
UNSERVED = (ReleaseState.REGISTERED, ReleaseState.HELD, ReleaseState.ELIGIBLE)


class _IllegalError(Exception):
    """An event that the rules do not allow where it stands; says why."""


@dataclass
class Replay:
    """Everything that one product's chain says, up to the last event that was added.

    An event that is out of order, breaks the chain, does not fit its contract or is no legal transition raises
    LedgerCorruptError that names it; the replay is not to be used afterwards.
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
    slots: dict[SlotName, str] = field(default_factory=dict)
    canary_step: int = 0
    exposure: float = 0.0

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
            payload = _payload(event)
            _RULES[event.kind](self, payload)
        except (_IllegalError, ValueError) as problem:
            raise LedgerCorruptError(f"{event.where}: {problem}.") from None
        if isinstance(payload, ReleaseRegistered):
            self.registered[payload.release.release_id] = event
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
            releases=dict(self.states),
        )

    def _check_link(self, event: Event) -> None:
        expected = (self.product, self.sequence + 1, self.epoch + event.kind.moves, self.head_sha256)
        found = (event.product, event.sequence, event.epoch, event.previous_sha256)
        names = ("product", "sequence", "epoch", "previous digest")
        for name, want, have in zip(names, expected, found, strict=True):
            if want != have:
                raise _IllegalError(f"its {name} is {_short(have)}, expected {_short(want)}")

    def _state_of(self, release_id: str, *allowed: ReleaseState) -> None:
        state = self.states.get(release_id)
        if state not in allowed:
            found = f"is {state}" if state else "is not registered"
            raise _IllegalError(f"release {release_id[:12]} {found}, expected {' or '.join(allowed)}")

    def _canary(self, release_id: str, *allowed: ReleaseState) -> None:
        self._state_of(release_id, *allowed)
        if self.slots.get(SlotName.CANARY) != release_id:
            raise _IllegalError(f"release {release_id[:12]} is not in the canary slot")

    def _close_canary(self, release_id: str, state: ReleaseState) -> None:
        del self.slots[SlotName.CANARY]
        self.states[release_id] = state
        self.canary_step, self.exposure = 0, 0.0


def _payload(event: Event) -> Payload:
    payload = PAYLOADS[event.kind].model_validate(event.payload)
    if payload.model_dump(mode="json") != event.payload:
        raise _IllegalError("its payload is not in canonical form")
    return payload


def _policy_recorded(replay: Replay, payload: PolicyRecorded) -> None:
    replay.policies[payload.policy.sha256] = payload.policy


def _release_registered(replay: Replay, payload: ReleaseRegistered) -> None:
    release = payload.release
    if release.product != replay.product:
        raise _IllegalError(f"it registers a release of {release.product}")
    if release.release_id in replay.states:
        raise _IllegalError(f"release {release.release_id[:12]} is registered twice")
    if release.promotion_policy.content_sha256 not in replay.policies:
        raise _IllegalError(f"the promotion policy of release {release.release_id[:12]} was not recorded before")
    replay.releases[release.release_id] = release
    replay.states[release.release_id] = ReleaseState.REGISTERED


def _evidence_recorded(replay: Replay, payload: EvidenceRecorded) -> None:
    if payload.release_id not in replay.states:
        raise _IllegalError(f"release {payload.release_id[:12]} is not registered")
    if any(known.envelope_sha256 == payload.envelope_sha256 for known in replay.evidence[payload.release_id]):
        raise _IllegalError(f"envelope {payload.envelope_sha256[:12]} is recorded twice")
    replay.evidence[payload.release_id].append(payload)


def _judged(replay: Replay, payload: ReleaseHeld | ReleaseEligible) -> None:
    replay._state_of(payload.release_id, *UNSERVED)
    if replay.releases[payload.release_id].promotion_policy.content_sha256 != payload.policy_sha256:
        raise _IllegalError("it was judged under another promotion policy than the release names")
    held = isinstance(payload, ReleaseHeld)
    replay.states[payload.release_id] = ReleaseState.HELD if held else ReleaseState.ELIGIBLE
    replay.judged[payload.release_id] = payload


def _canary_opened(replay: Replay, payload: CanaryOpened) -> None:
    replay._state_of(payload.release_id, ReleaseState.ELIGIBLE)
    if SlotName.CANARY in replay.slots:
        raise _IllegalError(f"release {replay.slots[SlotName.CANARY][:12]} is already in the canary slot")
    replay.slots[SlotName.CANARY] = payload.release_id
    replay.states[payload.release_id] = ReleaseState.CANARY
    replay.canary_step, replay.exposure = payload.step, payload.exposure


def _canary_replaced(replay: Replay, payload: CanaryReplaced) -> None:
    replay._canary(payload.release_id, *OPEN)
    if payload.by == payload.release_id:
        raise _IllegalError("a canary cannot replace itself")
    replay._state_of(payload.by, ReleaseState.ELIGIBLE)
    replay._close_canary(payload.release_id, ReleaseState.ABORTED)


def _canary_advanced(replay: Replay, payload: CanaryAdvanced) -> None:
    replay._canary(payload.release_id, ReleaseState.CANARY)
    if payload.step <= replay.canary_step or payload.exposure <= replay.exposure:
        raise _IllegalError(f"step {payload.step} does not come after step {replay.canary_step}")
    replay.canary_step, replay.exposure = payload.step, payload.exposure


def _canary_paused(replay: Replay, payload: CanaryPaused) -> None:
    replay._canary(payload.release_id, ReleaseState.CANARY)
    replay.states[payload.release_id] = ReleaseState.PAUSED


def _canary_resumed(replay: Replay, payload: CanaryResumed) -> None:
    replay._canary(payload.release_id, ReleaseState.PAUSED)
    replay.states[payload.release_id] = ReleaseState.CANARY


def _canary_aborted(replay: Replay, payload: CanaryAborted) -> None:
    replay._canary(payload.release_id, *OPEN)
    replay._close_canary(payload.release_id, ReleaseState.ABORTED)


def _release_promoted(replay: Replay, payload: ReleasePromoted) -> None:
    replay._canary(payload.release_id, ReleaseState.CANARY)
    replay._close_canary(payload.release_id, ReleaseState.PRODUCTION)
    if previous := replay.slots.get(SlotName.PRODUCTION):
        replay.states[previous] = ReleaseState.SUPERSEDED
    replay.slots[SlotName.PRODUCTION] = payload.release_id


def _release_rolled_back(replay: Replay, payload: ReleaseRolledBack) -> None:
    replay._state_of(payload.release_id, ReleaseState.PRODUCTION)
    replay._state_of(payload.to, ReleaseState.SUPERSEDED)
    replay.states[payload.release_id] = ReleaseState.ROLLED_BACK
    replay.states[payload.to] = ReleaseState.PRODUCTION
    replay.slots[SlotName.PRODUCTION] = payload.to


_RULES: dict[EventKind, Callable[..., None]] = {
    EventKind.POLICY_RECORDED: _policy_recorded,
    EventKind.RELEASE_REGISTERED: _release_registered,
    EventKind.EVIDENCE_RECORDED: _evidence_recorded,
    EventKind.RELEASE_HELD: _judged,
    EventKind.RELEASE_ELIGIBLE: _judged,
    EventKind.CANARY_OPENED: _canary_opened,
    EventKind.CANARY_REPLACED: _canary_replaced,
    EventKind.CANARY_ADVANCED: _canary_advanced,
    EventKind.CANARY_PAUSED: _canary_paused,
    EventKind.CANARY_RESUMED: _canary_resumed,
    EventKind.CANARY_ABORTED: _canary_aborted,
    EventKind.RELEASE_PROMOTED: _release_promoted,
    EventKind.RELEASE_ROLLED_BACK: _release_rolled_back,
}


def _short(value: object) -> str:
    text = str(value)
    return text[:12] + "…" if len(text) == len(NO_EVENT_SHA256) else text
