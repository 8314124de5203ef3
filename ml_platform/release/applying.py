"""Applying decisions: what was decided is recorded with its numbers, and done, in one transaction or not at all."""

from collections.abc import Callable

from ml_platform.contracts.decided import LONGEST_REASON, DecisionRecorded
from ml_platform.contracts.monitoring import Action, Decision
from ml_platform.release.door import Door
from ml_platform.release.freezing import freeze
from ml_platform.release.moves import Held, Move
from ml_platform.release.moving import abort_canary, advance_canary, open_canary, pause_canary, promote
from ml_platform.release.rollback import roll_back


class HeldBackError(Exception):
    """What was decided may not be done: nothing of the transaction is to be kept. For `Controller.apply` only."""

    def __init__(self, held: Held) -> None:
        super().__init__(held.sentence)
        self.held = held


def apply_decision(door: Door, decision: Decision, kept_sha256: str | None) -> Move | None:
    """Appends the decision and the move that it asks for; None for one that moves no slot. Raises HeldBackError."""
    door.transaction.append(DecisionRecorded(decision=decision, kept_sha256=kept_sha256))
    if decision.action is Action.FREEZE:
        # With many metrics it may be long; the whole of it stands in the decision itself.
        whole = len(decision.reason) <= LONGEST_REASON
        freeze(door, decision.reason if whole else f"{decision.reason[: LONGEST_REASON - 1]}…")
    if decision.action not in _MOVES or decision.release_id is None:
        return None
    done = _MOVES[decision.action](door, decision, decision.release_id)
    if isinstance(done, Held):
        raise HeldBackError(done)
    if not done.changed:
        raise HeldBackError(Held(done.product, done.release_id, because=done.sentence))
    return done


_MOVES: dict[Action, Callable[[Door, Decision, str], Move | Held]] = {
    # Nobody asked for this day, so it must be the newest that there is, as in a backfill.
    Action.OPEN: lambda door, _, release_id: open_canary(door, release_id, door.find(release_id).data.as_of),
    Action.STEP_UP: lambda door, decision, release_id: advance_canary(door, release_id, decision.at),
    Action.PROMOTE: lambda door, decision, release_id: promote(door, release_id, decision.reason),
    Action.PAUSE: lambda door, decision, release_id: pause_canary(door, release_id, decision.reason),
    Action.ABORT: lambda door, decision, release_id: abort_canary(door, release_id, decision.reason),
    Action.ROLL_BACK: lambda door, decision, _: roll_back(door, decision.reason, None),
}
