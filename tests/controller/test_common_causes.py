"""What every release suffers takes back no second one, neither while it lasts nor once it is over."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.home import Home
from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.monitoring import Action, Decision
from ml_platform.contracts.policy import SlotName
from tests.samples.rollouts import WATCHED, Rollout, slots
from tests.samples.walls import Wall

MOVES = {"cool_down_minutes": 10, "max_per_day": 20, "min_users": 20}


class Outage:
    """A product with two releases to go back to, whose engine is down for everybody."""

    def __init__(self, world: Rollout, wall: Wall) -> None:
        self.world, self.wall, self.loop = world, wall, world.loop()

    def look(self, users: int, errors: float, *, after_minutes: float = 0.0) -> Decision:
        self.wall.ahead += timedelta(minutes=after_minutes)
        self.world.pass_minutes(after_minutes)
        self.world.answer(users, errors=errors, answered_at=self.wall.now())
        return self.world.look(self.loop).decision

    def restart(self) -> None:
        self.loop.close()
        self.loop = self.world.loop()


@pytest.fixture
def outage(tmp_path: Path, monkeypatch: Any) -> Outage:
    home = Home(tmp_path / "home")
    watched = MonitorPolicy.parse(WATCHED | {"moves": MOVES}, where="a sample")
    world = Rollout(home, home.ledger_url, watched=watched)
    for seed in (1, 2, 3):
        world.serve(seed)
    found = Outage(world, Wall.of(monkeypatch))
    assert found.look(150, 1.0).action is Action.ROLL_BACK
    assert found.look(150, 1.0).action is Action.FREEZE
    return found


def test_an_outage_that_is_over_takes_back_no_other_release(outage: Outage) -> None:
    frozen = slots(outage.world)
    for _ in range(2):
        decision = outage.look(50, 0.0, after_minutes=15)
        assert decision.action is Action.HOLD
        assert decision.reason.startswith("The product is frozen")
    outage.world.controller.unfreeze(outage.world.product, "the engine is back", outage.wall.now(), "operator")
    known = outage.look(50, 0.0)
    outage.restart()
    new = outage.look(50, 0.0)
    assert [(one.action, one.incident) for one in (known, new)] == [(Action.HOLD, None)] * 2
    assert slots(outage.world) == frozen


def test_an_outage_that_lasts_takes_back_no_other_release_until_somebody_lets_it_go_on(outage: Outage) -> None:
    frozen, world = slots(outage.world), outage.world
    for _ in range(2):
        decision = outage.look(150, 1.0, after_minutes=15)
        assert decision.action is Action.HOLD
        assert "a person decides what is next" in decision.reason
    assert slots(world) == frozen
    world.controller.unfreeze(world.product, "it is the release after all", outage.wall.now(), "operator")
    assert outage.look(150, 1.0).action is Action.ROLL_BACK
    assert slots(world)[SlotName.PRODUCTION] != frozen[SlotName.PRODUCTION]
