"""What stands for and against an automatic run: read off the ledger's replay and the runs that were started; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.contracts.triggers import Trigger
from ml_platform.lineage.replay import Replay
from ml_platform.monitoring.triggers import Outcome, PastStart, Standing

OUTCOMES = {
    ReleaseState.HELD: Outcome.REFUSED,
    ReleaseState.ABORTED: Outcome.REFUSED,
    ReleaseState.ROLLED_BACK: Outcome.REFUSED,
    ReleaseState.CANARY: Outcome.ACCEPTED,
    ReleaseState.PAUSED: Outcome.ACCEPTED,
    ReleaseState.PRODUCTION: Outcome.ACCEPTED,
    ReleaseState.SUPERSEDED: Outcome.ACCEPTED,
}
"""What became of an automatic start by the state of its release; a release that never came to a slot crashed."""


@dataclass(frozen=True, slots=True)
class AutomaticRun:
    """A run that a sensor started and that has ended, whether or not a candidate came of it."""

    trigger: Trigger
    started_at: datetime


def newest_release(replay: Replay) -> Release | None:
    """The release of the newest day, the one that was registered last among several; None before the first."""
    return max(reversed(replay.releases.values()), key=lambda release: release.data.as_of, default=None)


def standing_of(
    replay: Replay, frozen: str | None, ended: Iterable[AutomaticRun], in_flight: str | None, day: date
) -> Standing:
    """What stands when it is asked whether to train for `day`; `in_flight` names a run of the product under way."""
    return Standing(
        frozen=frozen,
        blocked=_blocked(replay, in_flight, day),
        starts=past_starts(replay, ended),
        since=_trained_by_people(replay),
    )


def past_starts(replay: Replay, ended: Iterable[AutomaticRun]) -> tuple[PastStart, ...]:
    """Every automatic start that ended, the oldest first: by the ledger where it has a candidate, else by its run."""
    starts = [
        PastStart(
            release.trigger,
            OUTCOMES.get(replay.states[release_id], Outcome.CRASHED),
            replay.registered[release_id].recorded_at,
        )
        for release_id, release in replay.releases.items()
        if release.trigger is not None
    ]
    known = [start.trigger for start in starts]
    starts += [PastStart(run.trigger, Outcome.CRASHED, run.started_at) for run in ended if run.trigger not in known]
    return tuple(sorted(starts, key=lambda start: start.seen_at))


def _blocked(replay: Replay, in_flight: str | None, day: date) -> str | None:
    if in_flight is not None:
        return f"{in_flight} is under way: one run of a product at a time."
    newest, canary = newest_release(replay), replay.slots.get(SlotName.CANARY)
    if newest is None:
        return "there is no candidate yet that another could follow. Train the first with `mlp run`."
    if canary is not None:
        paused = ", paused" if replay.states[canary] is ReleaseState.PAUSED else ""
        return f"canary {canary[:12]} of {replay.releases[canary].data.as_of} is still being judged{paused}."
    if day <= newest.data.as_of:
        return f"no day is complete since {newest.data.as_of}, which the newest candidate has learned from."
    return None


def _trained_by_people(replay: Replay) -> datetime | None:
    """When people last made a candidate that was of no past day by then; None for never."""
    newest, found = date.min, None
    for release_id, release in replay.releases.items():
        if release.trigger is None and release.data.as_of >= newest:
            found = replay.registered[release_id].recorded_at
        newest = max(newest, release.data.as_of)
    return found
