"""A monitor policy that the store does not have blinds a controller for as long, and no longer."""

from pathlib import Path

import pytest

from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import StorageError
from ml_platform.release import monitor_policies
from ml_platform.release.decide import decide
from ml_platform.release.monitor_policies import MonitorPolicies
from ml_platform.release.situation import Findings, Plan
from tests.samples.decisions import ALONE_BAD, CANARY, FINE, GOOD, NOW, POLICY, PRODUCTION, STEPS, breach, standing
from tests.samples.rollouts import Rollout, make_rollout, slots


@pytest.fixture
def world(tmp_path: Path) -> Rollout:
    return make_rollout(tmp_path / "home")


def test_who_saw_no_policy_once_watches_as_soon_as_it_is_back(world: Rollout, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        return None

    loop = world.loop()
    with monkeypatch.context() as lost:
        lost.setattr(monitor_policies, "find_content", nothing)
        world.answer(150, canary_errors=1.0)
        decision = world.look(loop).decision
        assert decision.action is Action.HOLD
        assert "is not in the store" in decision.reason
    assert world.look(loop).decision.action is Action.HOLD
    monkeypatch.setattr(monitor_policies, "ASKED_AGAIN_S", 0.0)
    assert world.look(loop).decision.action is Action.ABORT


def test_what_is_known_to_be_lost_stays_so_while_the_store_is_down(
    world: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = world.controller.ledger.replay(world.product).releases[slots(world)[SlotName.PRODUCTION]]
    policies = MonitorPolicies(world.store)
    monkeypatch.setattr(monitor_policies, "ASKED_AGAIN_S", 0.0)

    def down(*_: object) -> None:
        raise StorageError("down")

    with monkeypatch.context() as failing:
        failing.setattr(monitor_policies, "find_content", down)
        with pytest.raises(StorageError, match="down"):
            policies.of(release)
        failing.setattr(monitor_policies, "find_content", lambda *_: None)
        lost = policies.of(release)
        failing.setattr(monitor_policies, "find_content", down)
        assert policies.of(release) == lost
    assert policies.of(release).policy == world.watched


@pytest.mark.parametrize(
    "findings", [ALONE_BAD, Findings(breaches=(breach(PRODUCTION),))], ids=["its own mean", "a hard limit"]
)
def test_production_goes_by_its_own_policy_beside_a_canary_without_one(findings: Findings) -> None:
    plan = Plan(STEPS, None, "It is lost.", POLICY)
    decision = decide(plan, standing(), findings, GOOD, NOW)
    assert (decision.action, decision.release_id) == (Action.ROLL_BACK, PRODUCTION)
    assert decision.monitor_policy_sha256 == POLICY.sha256
    blind = decide(plan, standing(), FINE, GOOD, NOW)
    assert (blind.action, blind.release_id, blind.incident) == (
        Action.HOLD,
        CANARY,
        "the monitor policy cannot be read",
    )
