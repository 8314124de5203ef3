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


def test_a_controller_of_one_product_keeps_none_of_another_or_of_all_from_working(world: Rollout) -> None:
    """Beside each other they do no harm: each move names its epoch, so it is made once."""
    loops = [world.loop("of-another", only="another"), world.loop("of-this", only=world.product), world.loop("of-all")]
    assert [loop.round() for loop in loops] == [True, True, True]
    assert not world.loop("second-of-this", only=world.product).round()
    world.answer(300, canary_errors=0.9)
    for loop in reversed(loops):
        assert loop.round()
    assert world.kinds().count("decision_recorded") == world.kinds().count("canary_aborted") == 1


def test_a_controller_that_looked_once_leaves_no_lease_behind(world: Rollout) -> None:
    """So that nobody stands by for the ten seconds after `mlp controller --once`."""
    loop = world.loop("once")
    assert loop.round()
    assert not world.loop("meanwhile").round()
    loop.close()
    assert world.loop("next").round()
