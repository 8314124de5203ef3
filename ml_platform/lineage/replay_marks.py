"""The rules of the events that move no slot: alerts, refusals, freezes, decisions, sign-offs; pure."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ml_platform.contracts.decided import DecisionRecorded, ProductFrozen, ProductUnfrozen, PromotionSigned
from ml_platform.contracts.events import AdmissionRefused, AliasRestored, Event, EventKind
from ml_platform.contracts.policy import SlotName

if TYPE_CHECKING:
    from ml_platform.lineage.replay import Replay

DECISIONS_KEPT = 200
"""So many of the newest decisions a replay holds: more than any policy asks back for."""


class IllegalEventError(Exception):
    """An event that the rules do not allow where it stands; says why."""


def _alias_restored(replay: "Replay", payload: AliasRestored, event: Event) -> None:
    if payload.expected != replay.slots.get(payload.alias):
        raise IllegalEventError(f"slot {payload.alias} does not hold what it says")
    replay.alert = event


def _admission_refused(replay: "Replay", payload: AdmissionRefused, event: Event) -> None:
    serves = (replay.slots.get(payload.slot),) if payload.slot else replay.superseded
    if payload.release_id not in serves:
        raise IllegalEventError(f"release {payload.release_id[:12]} is not in the slot that it names")
    if any(known.payload == event.payload for known in replay.refusals):
        raise IllegalEventError("this refusal is recorded twice at this epoch")
    replay.refusals.append(event)


def _product_frozen(replay: "Replay", _: ProductFrozen, event: Event) -> None:
    if replay.frozen:
        raise IllegalEventError(f"the product is frozen already, since event {replay.frozen.sequence}")
    replay.frozen = event


def _product_unfrozen(replay: "Replay", _: ProductUnfrozen, event: Event) -> None:
    if not replay.frozen:
        raise IllegalEventError("the product is not frozen")
    replay.frozen, replay.unfrozen = None, event


def _decision_recorded(replay: "Replay", payload: DecisionRecorded, event: Event) -> None:
    decision = payload.decision
    if decision.product != replay.product:
        raise IllegalEventError(f"it records a decision on {decision.product}")
    if decision.epoch != replay.epoch:
        raise IllegalEventError(f"what was decided was decided at epoch {decision.epoch}")
    if decision.release_id is not None and decision.release_id not in replay.states:
        raise IllegalEventError(f"release {decision.release_id[:12]} is not registered")
    replay.decisions.append(event)
    del replay.decisions[:-DECISIONS_KEPT]


def _promotion_signed(replay: "Replay", payload: PromotionSigned, event: Event) -> None:
    if replay.slots.get(SlotName.CANARY) != payload.release_id:
        raise IllegalEventError(f"release {payload.release_id[:12]} is not in the canary slot")
    replay.signed.append(event)


MARKS: dict[EventKind, Callable[..., None]] = {
    EventKind.ALIAS_RESTORED: _alias_restored,
    EventKind.ADMISSION_REFUSED: _admission_refused,
    EventKind.PRODUCT_FROZEN: _product_frozen,
    EventKind.PRODUCT_UNFROZEN: _product_unfrozen,
    EventKind.DECISION_RECORDED: _decision_recorded,
    EventKind.PROMOTION_SIGNED: _promotion_signed,
}
