"""A controller whose stores fail for a moment, or whose lease is another's: what stops is asked for again at once."""

from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import BusyError, StorageError
from ml_platform.release.controller import Controller
from tests.samples.rollouts import Rollout, go_on, make_rollout, slots


@pytest.fixture
def world(tmp_path: Path) -> Rollout:
    return make_rollout(tmp_path / "home")


@pytest.mark.parametrize("error", [BusyError("somebody else writes"), StorageError("the connection broke")])
def test_what_stops_is_tried_again_at_the_next_look_when_only_the_connection_failed(
    world: Rollout, monkeypatch: Any, error: Exception
) -> None:
    def fails(*_: Any) -> None:
        raise error

    loop = world.loop()
    world.answer(300, canary_errors=0.9)
    with monkeypatch.context() as patch:
        patch.setattr(Controller, "apply", fails)
        decision = world.look(loop).decision
        assert decision.action is Action.HOLD
        assert str(error) in decision.reason
    assert world.look(loop).decision.action is Action.ABORT
    assert SlotName.CANARY not in slots(world)


def test_a_rollback_is_tried_again_at_the_next_look_too(world: Rollout, monkeypatch: Any) -> None:
    def fails(*_: Any) -> None:
        raise BusyError("somebody else writes")

    loop = world.loop()
    go_on(world, loop)
    world.answer(30, errors=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Controller, "apply", fails)
        assert world.look(loop).decision.action is Action.HOLD
    assert world.look(loop).decision.action is Action.ROLL_BACK
