"""A controller over whole rollouts: good canaries go into production, bad ones go, and nothing moves without proof."""

from pathlib import Path

import pytest

from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.policy import SlotName
from tests.samples.rollouts import Rollout, make_rollout


@pytest.fixture
def world(tmp_path: Path) -> Rollout:
    return make_rollout(tmp_path / "home")


def test_a_good_canary_goes_up_its_steps_and_into_production(world: Rollout) -> None:
    canary = world.controller.state(world.product).slots[SlotName.CANARY]
    loop = world.loop()
    assert world.look(loop).decision.action is Action.HOLD  # no answers yet
    actions = []
    for _ in range(12):
        world.answer(150)
        world.pass_minutes(20)
        world.answer(150)
        decision = world.look(loop).decision
        actions.append(decision.action)
        if decision.action is Action.PROMOTE:
            break
    moves = [action for action in actions if action is not Action.HOLD]
    assert moves == [Action.STEP_UP, Action.PROMOTE]
    assert world.controller.state(world.product).slots == {SlotName.PRODUCTION: canary}
    decided = world.events("decision_recorded")
    assert [one["decision"]["action"] for one in decided] == ["step_up", "promote"]
    assert all(one["kept_sha256"] for one in decided)
    assert decided[-1]["decision"]["readings"][0]["verdict"] == "PASS"
    world.controller.ledger.verify()
