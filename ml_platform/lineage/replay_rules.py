"""The rules of replay: which event may follow what, and what it changes; pure."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.events import (
    PAYLOADS,
    Event,
    EventKind,
    EvidenceRecorded,
    PolicyPinned,
    PolicyRecorded,
    ReleaseEligible,
    ReleaseHeld,
    ReleaseRegistered,
)
from ml_platform.contracts.policy import SlotName
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
from ml_platform.lineage.replay_marks import MARKS, IllegalEventError

if TYPE_CHECKING:
    from ml_platform.lineage.replay import Replay

OPEN = (ReleaseState.CANARY, ReleaseState.PAUSED)
UNSERVED = (ReleaseState.REGISTERED, ReleaseState.HELD, ReleaseState.ELIGIBLE)
FALLEN = (ReleaseState.ABORTED, ReleaseState.ROLLED_BACK)
JUDGED = (*UNSERVED, *FALLEN)


def apply_event(replay: "Replay", event: Event) -> None:
    """Changes the replay as the event says. Raises IllegalEventError for one that may not stand there."""
    try:
        payload = PAYLOADS[event.kind].model_validate(event.payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise IllegalEventError(
            f"its payload does not fit: '{where}': {first['msg']}. Another version of ml_platform wrote it, or a hand"
        ) from None
    if payload.model_dump(mode="json") != event.payload:
        raise IllegalEventError("its payload is not in canonical form")
    if replay.frozen and event.kind.forward:
        raise IllegalEventError(f"the product is frozen since event {replay.frozen.sequence}")
    _RULES[event.kind](replay, payload, event)
    if event.kind.moves:
        replay.moved = event
        replay.refusals.clear()  # gateways look again, and say again what they still refuse


def _require_state(replay: "Replay", release_id: str, *allowed: ReleaseState) -> None:
    state = replay.states.get(release_id)
    if state not in allowed:
        found = f"is {state}" if state else "is not registered"
        raise IllegalEventError(f"release {release_id[:12]} {found}, expected {' or '.join(allowed)}")


def _require_canary(replay: "Replay", release_id: str, *allowed: ReleaseState) -> None:
    _require_state(replay, release_id, *allowed)
    if replay.slots.get(SlotName.CANARY) != release_id:
        raise IllegalEventError(f"release {release_id[:12]} is not in the canary slot")


def _close_canary(replay: "Replay", release_id: str, state: ReleaseState) -> None:
    del replay.slots[SlotName.CANARY]
    replay.opened = replay.stepped = None
    replay.signed.clear()
    replay.states[release_id] = state
    replay.canary_step, replay.exposure = 0, 0.0


def _is_past(replay: "Replay", release_id: str) -> bool:
    """Whether there is a release of a newer day: the days of a backfill are done in any order."""
    as_of = replay.releases[release_id].data.as_of
    return any(one.data.as_of > as_of for one in replay.releases.values())


def _leave_shadow(replay: "Replay") -> None:
    del replay.slots[SlotName.SHADOW]
    replay.shadowed = None


def _policy_recorded(replay: "Replay", payload: PolicyRecorded, _: Event) -> None:
    replay.policies[payload.policy.sha256] = payload.policy


def _policy_pinned(replay: "Replay", payload: PolicyPinned, event: Event) -> None:
    if payload.policy_sha256 not in replay.policies:
        raise IllegalEventError(f"promotion policy {payload.policy_sha256[:12]} was not recorded before")
    replay.pins.append(event)


def _release_registered(replay: "Replay", payload: ReleaseRegistered, event: Event) -> None:
    release, release_id = payload.release, payload.release.release_id
    if release.product != replay.product:
        raise IllegalEventError(f"it registers a release of {release.product}")
    if release_id in replay.states:
        raise IllegalEventError(f"release {release_id[:12]} is registered twice")
    if release.promotion_policy.content_sha256 not in replay.policies:
        raise IllegalEventError(f"the promotion policy of release {release_id[:12]} was not recorded before")
    replay.releases[release_id] = release
    replay.states[release_id] = ReleaseState.REGISTERED
    replay.registered[release_id] = event
    if replay.waiting and _is_past(replay, replay.waiting):
        replay.waiting = None


def _evidence_recorded(replay: "Replay", payload: EvidenceRecorded, _: Event) -> None:
    if payload.release_id not in replay.states:
        raise IllegalEventError(f"release {payload.release_id[:12]} is not registered")
    if any(known.envelope_sha256 == payload.envelope_sha256 for known in replay.evidence[payload.release_id]):
        raise IllegalEventError(f"envelope {payload.envelope_sha256[:12]} is recorded twice")
    replay.evidence[payload.release_id].append(payload)


def _judged(replay: "Replay", payload: ReleaseHeld | ReleaseEligible, _: Event) -> None:
    _require_state(replay, payload.release_id, *JUDGED)
    if replay.releases[payload.release_id].promotion_policy.content_sha256 != payload.policy_sha256:
        raise IllegalEventError("it was judged under another promotion policy than the release names")
    held = isinstance(payload, ReleaseHeld)
    if held and replay.slots.get(SlotName.SHADOW) == payload.release_id:
        raise IllegalEventError(f"release {payload.release_id[:12]} is in the shadow slot, which is closed before")
    replay.states[payload.release_id] = ReleaseState.HELD if held else ReleaseState.ELIGIBLE
    replay.judged[payload.release_id] = payload
    if (replay.frozen or replay.waiting == payload.release_id) and not _is_past(replay, payload.release_id):
        replay.waiting = None if held else payload.release_id


def _canary_opened(replay: "Replay", payload: CanaryOpened, event: Event) -> None:
    _require_state(replay, payload.release_id, ReleaseState.ELIGIBLE)
    if SlotName.CANARY in replay.slots:
        raise IllegalEventError(f"release {replay.slots[SlotName.CANARY][:12]} is already in the canary slot")
    if replay.slots.get(SlotName.SHADOW) == payload.release_id:
        _leave_shadow(replay)
    replay.slots[SlotName.CANARY] = payload.release_id
    replay.states[payload.release_id] = ReleaseState.CANARY
    replay.canary_step, replay.exposure = payload.step, payload.exposure
    replay.opened = replay.stepped = event
    replay.waiting = None


def _canary_replaced(replay: "Replay", payload: CanaryReplaced, _: Event) -> None:
    _require_canary(replay, payload.release_id, *OPEN)
    if payload.by == payload.release_id:
        raise IllegalEventError("a canary cannot replace itself")
    _require_state(replay, payload.by, ReleaseState.ELIGIBLE)
    _close_canary(replay, payload.release_id, ReleaseState.ELIGIBLE)


def _canary_advanced(replay: "Replay", payload: CanaryAdvanced, event: Event) -> None:
    _require_canary(replay, payload.release_id, ReleaseState.CANARY)
    if payload.step <= replay.canary_step or payload.exposure <= replay.exposure:
        raise IllegalEventError(f"step {payload.step} does not come after step {replay.canary_step}")
    replay.canary_step, replay.exposure = payload.step, payload.exposure
    replay.stepped = event


def _canary_paused(replay: "Replay", payload: CanaryPaused, _: Event) -> None:
    _require_canary(replay, payload.release_id, ReleaseState.CANARY)
    replay.states[payload.release_id] = ReleaseState.PAUSED


def _canary_resumed(replay: "Replay", payload: CanaryResumed, _: Event) -> None:
    _require_canary(replay, payload.release_id, ReleaseState.PAUSED)
    replay.states[payload.release_id] = ReleaseState.CANARY


def _canary_aborted(replay: "Replay", payload: CanaryAborted, event: Event) -> None:
    _require_canary(replay, payload.release_id, *OPEN)
    _close_canary(replay, payload.release_id, ReleaseState.ABORTED)
    replay.falls[replay.releases[payload.release_id].behaviour_sha256].append(event)


def _release_promoted(replay: "Replay", payload: ReleasePromoted, event: Event) -> None:
    _require_canary(replay, payload.release_id, ReleaseState.CANARY)
    _close_canary(replay, payload.release_id, ReleaseState.PRODUCTION)
    if previous := replay.slots.get(SlotName.PRODUCTION):
        replay.states[previous] = ReleaseState.SUPERSEDED
    replay.slots[SlotName.PRODUCTION] = payload.release_id
    replay.promoted.pop(payload.release_id, None)
    replay.promoted[payload.release_id] = replay.served = event


def _release_rolled_back(replay: "Replay", payload: ReleaseRolledBack, event: Event) -> None:
    _require_state(replay, payload.release_id, ReleaseState.PRODUCTION)
    _require_state(replay, payload.to, ReleaseState.SUPERSEDED)
    replay.states[payload.release_id] = ReleaseState.ROLLED_BACK
    replay.states[payload.to] = ReleaseState.PRODUCTION
    replay.slots[SlotName.PRODUCTION] = payload.to
    replay.falls[replay.releases[payload.release_id].behaviour_sha256].append(event)
    replay.promoted[payload.to] = replay.promoted.pop(payload.to)  # served last
    replay.served = event


def _shadow_opened(replay: "Replay", payload: ShadowOpened, event: Event) -> None:
    _require_state(replay, payload.release_id, ReleaseState.ELIGIBLE)  # so it is in no other slot
    if SlotName.PRODUCTION not in replay.slots:
        raise IllegalEventError("nothing is in production, which says how many questions a shadow gets copies of")
    if shadow := replay.slots.get(SlotName.SHADOW):
        raise IllegalEventError(f"release {shadow[:12]} is already in the shadow slot")
    replay.slots[SlotName.SHADOW] = payload.release_id
    replay.shadowed = event


def _shadow_closed(replay: "Replay", payload: ShadowClosed, _: Event) -> None:
    if replay.slots.get(SlotName.SHADOW) != payload.release_id:
        raise IllegalEventError(f"release {payload.release_id[:12]} is not in the shadow slot")
    _leave_shadow(replay)


_RULES: dict[EventKind, Callable[..., None]] = {
    EventKind.POLICY_RECORDED: _policy_recorded,
    EventKind.POLICY_PINNED: _policy_pinned,
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
    EventKind.SHADOW_OPENED: _shadow_opened,
    EventKind.SHADOW_CLOSED: _shadow_closed,
    **MARKS,
}
