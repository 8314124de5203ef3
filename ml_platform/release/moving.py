"""Moves of the canary, inside the transaction that makes them; each asks the door what holds the release back."""

from datetime import date, datetime, timedelta

from ml_platform.contracts.decided import DecisionRecorded
from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.slot_moves import (
    CanaryAborted,
    CanaryAdvanced,
    CanaryOpened,
    CanaryPaused,
    CanaryReplaced,
    CanaryResumed,
    ReleasePromoted,
)
from ml_platform.errors import RefusedError
from ml_platform.lineage.quarantine import quarantine_in
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.replay_rules import FALLEN, UNSERVED
from ml_platform.release.door import Door
from ml_platform.release.moves import Held, Move


def open_canary(door: Door, release_id: str, backfilled_to: date | None = None) -> Move | Held:
    """Puts an eligible release into the canary slot, in the place of an older one.

    `backfilled_to` is the last day of the backfill that made it, None for a run of its own: of the days that a
    backfill fills in only the newest that there is may move a slot.
    """
    release, replay = door.find(release_id), door.transaction.replay
    if replay.states[release_id] not in (*UNSERVED, *FALLEN):
        return door.already(release_id)
    found = door.assess(release)
    if held := door.why_held(release, found):
        return held
    if backfilled_to and release.data.as_of < (newest := _newest_day(replay, backfilled_to)):
        return Held(replay.product, release_id, because=f"a past day of a backfill, {newest} is newer")
    door.say(release, found)
    if canary := replay.slots.get(SlotName.CANARY):
        door.transaction.append(CanaryReplaced(release_id=canary, by=release_id))
    exposure = door.policy_of(release).canary.steps[0]
    event = door.transaction.append(CanaryOpened(release_id=release_id, step=1, exposure=exposure))
    return Move(replay.product, release_id, SlotName.CANARY, exposure, event.epoch, changed=True)


def _newest_day(replay: Replay, backfilled_to: date) -> date:
    return max([backfilled_to, *(release.data.as_of for release in replay.releases.values())])


def advance_canary(door: Door, release_id: str, at: datetime | None = None) -> Move | Held:
    """Takes the canary to the next step of its plan, when its present one has lasted as long as the plan says.

    `at` is the time of the product, for which the caller answers; None is our clock.
    """
    release, replay = door.find(release_id), door.transaction.replay
    if held := door.why_held(release, door.assess(release)):
        return held
    plan, step = door.policy_of(release).canary, replay.canary_step + 1
    if step > len(plan.steps):
        raise RefusedError(
            f"canary {release_id[:12]} of {replay.product} is at the last of its {len(plan.steps)} steps. Promote it."
        )
    if replay.states[release_id] is ReleaseState.CANARY and (since := _stepped_at(replay, door.now, at)):
        until = since + timedelta(minutes=plan.min_minutes_per_step)
        if (at or door.now) < until:
            because = f"step {replay.canary_step} lasts until {until:%Y-%m-%d %H:%M} UTC, its plan says"
            return Held(replay.product, release_id, because=because)
    said = CanaryAdvanced(release_id=release_id, step=step, exposure=plan.steps[step - 1])
    return door.move(said, f"canary went on to step {step}, {said.exposure:.0%}")


def _stepped_at(replay: Replay, now: datetime, at: datetime | None) -> datetime | None:
    """When the present step began, by the clock that is asked; None where only the caller can know."""
    if replay.stepped is None:
        return None
    if at is None:
        return min(replay.stepped.recorded_at, now)
    # The last one is what is being done.
    before = [DecisionRecorded.model_validate(event.payload).decision for event in replay.decisions[:-1]]
    since = replay.opened.epoch if replay.opened else 0
    steps = [one.at for one in before if one.action is Action.STEP_UP and one.epoch >= since]
    return steps[-1] if steps else None


def pause_canary(door: Door, release_id: str, reason: str) -> Move:
    """Lets the canary keep its users and go no further."""
    door.find(release_id)
    return door.move(CanaryPaused(release_id=release_id, reason=reason), "canary paused")


def resume_canary(door: Door, release_id: str, reason: str) -> Move | Held:
    """Lets a paused canary go on."""
    release = door.find(release_id)
    if held := door.why_held(release, door.assess(release)):
        return held
    return door.move(CanaryResumed(release_id=release_id, reason=reason), "canary resumed")


def abort_canary(door: Door, release_id: str, reason: str) -> Move:
    """Takes the canary out of its slot and quarantines it."""
    door.find(release_id)
    replay = door.transaction.replay
    move = door.move(CanaryAborted(release_id=release_id, reason=reason), "canary aborted")
    quarantine = quarantine_in(replay, release_id)
    return Move(replay.product, release_id, None, 0.0, move.epoch, True, f"canary aborted. {quarantine.sentence}")


def promote(door: Door, release_id: str, reason: str | None) -> Move | Held:
    """Puts the canary into production."""
    release = door.find(release_id)
    if held := door.why_held(release, door.assess(release)):
        return held
    return door.move(ReleasePromoted(release_id=release_id, reason=reason), "promoted to production")
