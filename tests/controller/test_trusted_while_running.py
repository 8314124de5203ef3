"""Whose signatures count is asked in every round: a controller lives for months, and keys come and go meanwhile."""

from pathlib import Path

import pytest

from ml_platform.cli.controller import _loop
from ml_platform.contracts.monitoring import Action, Decision
from ml_platform.contracts.policy import SlotName
from ml_platform.lineage.key_rotation import revoke_key
from ml_platform.lineage.keys import OPERATOR, SIGNING, trust
from ml_platform.release.controlling import ControllerLoop
from tests.samples.rollouts import Rollout, make_rollout, slots


@pytest.fixture
def world(tmp_path: Path) -> Rollout:
    return make_rollout(tmp_path / "home")


def trust_all(world: Rollout) -> None:
    for role, keys in ((SIGNING, world.trust.evidence), (OPERATOR, world.trust.operators)):
        for key in keys.values():
            trust(world.home, key, role)


def next_look(world: Rollout, loop: ControllerLoop, canary_errors: float = 0.0) -> Decision:
    world.answer(150, canary_errors=canary_errors)
    world.pass_minutes(40)
    world.answer(150, canary_errors=canary_errors)
    return world.look(loop).decision


def test_what_a_revoked_key_proved_goes_no_further_with_a_controller_that_ran_before(world: Rollout) -> None:
    trust_all(world)
    loop = _loop(world.home, None, lambda _: None)
    assert next_look(world, loop).action is Action.STEP_UP
    for key_id in world.trust.evidence:
        revoke_key(world.home, key_id, "laptop stolen")
    for _ in range(2):
        decision = next_look(world, loop)
        assert decision.action is Action.HOLD, decision.reason
        assert "was decided" in decision.reason
    assert next_look(world, loop, canary_errors=1.0).action is Action.ABORT


def test_keys_that_are_made_after_its_start_count(world: Rollout) -> None:
    loop = _loop(world.home, None, lambda _: None)
    trust_all(world)
    assert next_look(world, loop).action is Action.STEP_UP


def test_keys_that_cannot_be_read_hold_what_goes_forward_and_nothing_that_stops(world: Rollout) -> None:
    trust_all(world)
    loop = _loop(world.home, None, lambda _: None)
    entry = next((world.home.keys / SIGNING.trusted_folder).glob("*.json"))
    whole = entry.read_bytes()
    entry.write_bytes(whole[:20])
    held = next_look(world, loop)
    assert held.action is Action.HOLD
    assert "the trusted keys cannot be read" in held.reason
    assert entry.name in held.reason
    entry.write_bytes(whole)
    assert next_look(world, loop).action is Action.STEP_UP
    entry.write_bytes(whole[:20])
    assert next_look(world, loop, canary_errors=1.0).action is Action.ABORT
    assert SlotName.CANARY not in slots(world)
