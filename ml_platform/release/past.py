"""The past that a decision looks back on: the ledger's replay, and when answers came; pure."""

from datetime import datetime, timedelta

from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.routing import Cohort
from ml_platform.lineage.replay import Replay
from ml_platform.release.situation import FLAPS, Past
from ml_platform.release.traffic import Traffic

MOVES = tuple(action for action in Action if action not in (Action.HOLD, Action.FREEZE))
DAY = timedelta(days=1)


def past_of(replay: Replay, traffic: Traffic, now: datetime, *, signed_off: bool) -> Past:
    """What was before `now` of the product's time. Moves of people have no such time: the next answer tells it."""
    decisions, unfrozen = decided_before(replay), replay.unfrozen.sequence if replay.unfrozen else 0
    rollbacks = [at for action, at in decisions if action is Action.ROLL_BACK]
    opened, served, stepped = replay.opened, replay.served, replay.stepped
    return Past(
        step_minutes=_minutes(traffic.first_at(stepped.epoch), now) if stepped else None,
        users=traffic.users(stepped.epoch) if stepped else dict.fromkeys(Cohort, 0),
        since_move=_minutes(traffic.first_at(replay.epoch), now),
        since_rollback=_minutes(rollbacks[-1], now) if rollbacks else None,
        # Who lets the product go on has looked at the moves before: counted again, they would freeze it at once.
        moves_today=sum(action in MOVES and now - at < DAY for action, at in decided_before(replay, unfrozen)),
        signed_off=signed_off,
        rebased=bool(opened and served and served.sequence > opened.sequence),
        waiting=replay.waiting,
        left_to_people=_is_left_to_people(replay),
    )


def judged_since(replay: Replay) -> datetime | None:
    """From when on, in our time, answers count against production alone; None for as long as it serves.

    What a freeze was about is for people, and who lets the product go on has looked at it: it counts no more.
    """
    mark = replay.frozen or replay.unfrozen
    return mark.recorded_at if mark else None


def decided_before(replay: Replay, after: int = 0) -> list[tuple[Action, datetime]]:
    """What was decided by the newest decisions after an event, and at which time of the product, the oldest first."""
    said = (event.payload["decision"] for event in replay.decisions if event.sequence > after)
    return [(Action(one["action"]), datetime.fromisoformat(one["at"])) for one in said]


def _is_left_to_people(replay: Replay) -> bool:
    """Whether the freeze that stands was decided because of harm, by the decision right before it."""
    before = replay.frozen.sequence - 1 if replay.frozen else None
    said = (event.payload["decision"] for event in replay.decisions if event.sequence == before)
    return any(one["action"] == Action.FREEZE and one["incident"] != FLAPS for one in said)


def _minutes(since: datetime | None, now: datetime) -> float | None:
    """Minutes since then; 0 where then is still to come, e.g. because days are played again."""
    return None if since is None else max(0.0, (now - since).total_seconds() / 60)
