"""A controller over whole rollouts: good canaries go into production, bad ones go, and nothing moves without proof."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.policy import SlotName
from ml_platform.monitoring.observations import Feed
from tests.samples.followed import SERVING
from tests.samples.releases import OPERATOR
from tests.samples.rollouts import WATCHED, Rollout, go_on, make_rollout, slots
from tests.samples.walls import Wall


@pytest.fixture
def world(tmp_path: Path) -> Rollout:
    return make_rollout(tmp_path / "home")


def test_a_good_canary_goes_up_its_steps_and_into_production(world: Rollout) -> None:
    canary, loop = slots(world)[SlotName.CANARY], world.loop()
    assert world.look(loop).decision.action is Action.HOLD  # no answers yet
    assert [one.action for one in go_on(world, loop)] == [Action.STEP_UP, Action.PROMOTE]
    assert slots(world) == {SlotName.PRODUCTION: canary}
    decided = world.events("decision_recorded")
    assert [one["decision"]["action"] for one in decided] == ["step_up", "promote"]
    assert decided[-1]["decision"]["readings"][0]["verdict"] == "PASS"
    assert not world.home.incidents.exists()
    world.controller.ledger.verify()


def test_a_bad_canary_goes_with_a_post_mortem_and_is_quarantined(world: Rollout) -> None:
    canary, loop = slots(world)[SlotName.CANARY], world.loop()
    (decision,) = go_on(world, loop, canary_errors=0.4)
    assert (decision.action, decision.release_id) == (Action.ABORT, canary)
    (path,) = world.home.incidents.rglob("*.md")
    text = path.read_text("utf-8")
    assert f"canary {canary[:12]} did harm" in text
    assert "model: " in text
    assert "Time to detection: " in text
    assert "not over yet" in text
    before = world.kinds()
    world.look(loop)
    world.look(world.successor(loop))
    assert world.kinds() == before


def test_a_post_mortem_is_completed_once_the_last_bad_answer_came(world: Rollout, monkeypatch: Any) -> None:
    monkeypatch.setattr("ml_platform.release.incidents.SETTLES", timedelta(0))
    loop = world.loop()
    go_on(world, loop, canary_errors=0.4)
    world.look(loop)
    (path,) = world.home.incidents.rglob("*.md")
    text = path.read_text("utf-8")
    assert "not over yet" not in text
    assert "Time to recovery: " in text
    path.unlink()
    world.look(world.successor(loop))
    assert path.read_text("utf-8").split("## How long")[0] == text.split("## How long")[0]


def test_a_canary_without_traffic_stays_where_it_is(world: Rollout) -> None:
    loop, before = world.loop(), world.kinds()
    for _ in range(5):
        world.pass_minutes(600)
        look = world.look(loop)
        assert look.decision.action is Action.HOLD
        assert "answers" in " ".join(look.decision.waits_for)
    world.answer(300, canary_errors=0.0)  # all at once: time has not passed
    assert world.look(loop).decision.action is Action.HOLD
    assert world.kinds() == before


def test_a_gap_in_traffic_moves_nothing(world: Rollout) -> None:
    loop = world.loop()
    world.answer(10)
    world.pass_minutes(600)
    world.answer(10)
    look = world.look(loop)
    assert look.decision.action is Action.HOLD
    assert "users of the canary at this step" in " ".join(look.decision.waits_for)


def test_the_first_canary_waits_for_an_operator(tmp_path: Path) -> None:
    from ml_platform.contracts.home import Home

    home = Home(tmp_path / "home")
    world = Rollout(home, home.ledger_url)
    world.try_out(1)
    world.answer(100)
    decision = world.look().decision
    assert decision.action is Action.HOLD
    assert decision.waits_for == ("an operator: `mlp promote`",)


def test_what_was_read_is_handed_on_over_moves_and_says_what_reading_it_again_would_say(
    world: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute of answers lies before each move; while they were read again, nobody looked at the new release."""
    opened: list[object] = []

    def counted(*given: Any, **named: Any) -> Feed:
        opened.append(named["since"])
        return Feed(*given, **named)

    monkeypatch.setattr("ml_platform.release.controlling.Feed", counted)
    loop = world.loop()
    assert [one.action for one in go_on(world, loop)] == [Action.STEP_UP, Action.PROMOTE]
    world.answer(8, errors=0.4)
    here = world.look(loop).decision
    assert len(opened) == 1
    there = world.look(world.successor(loop)).decision
    assert len(opened) == 2
    assert here.readings
    assert (here.action, here.readings, here.waits_for) == (there.action, there.readings, there.waits_for)
    world.answer(30, errors=1.0)
    first = world.loop("controller-2")
    assert world.look(first).decision.action is Action.ROLL_BACK
    world.answer(20)
    assert world.look(first).decision.action is Action.HOLD
    assert len(opened) == 3


def test_a_release_that_brings_another_time_is_read_anew(world: Rollout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the feed before counts by the features' time, in which nothing would pass any more."""
    opened: list[object] = []

    def counted(*given: Any, **named: Any) -> Feed:
        opened.append(named["since"])
        return Feed(*given, **named)

    monkeypatch.setattr("ml_platform.release.controlling.Feed", counted)
    loop = world.loop()
    world.look(loop)
    world.serving = SERVING
    first = slots(world)[SlotName.CANARY]
    world.controller.abort_canary(world.product, first, "another one", datetime.now(UTC), "ops")
    world.promote(world.try_out(7))
    world.look(loop)
    assert len(opened) == 2
    world.try_out(8)
    world.look(loop)
    assert len(opened) == 2


def test_production_that_breaks_a_hard_limit_is_taken_back(world: Rollout) -> None:
    loop = world.loop()
    go_on(world, loop)
    bad = slots(world)[SlotName.PRODUCTION]
    good = world.controller.state(world.product).last_good
    world.answer(30, errors=1.0)
    look = world.look(loop)
    assert look.decision.action is Action.ROLL_BACK
    assert look.decision.breaches[0].release_id == bad
    assert slots(world) == {SlotName.PRODUCTION: good}
    assert look.production == good
    world.answer(50)
    assert world.look(loop).decision.action is Action.HOLD


def test_two_releases_that_fail_one_after_the_other_freeze_the_product(world: Rollout) -> None:
    """What it was taken back to fails as well: it is not the release, and nobody is taken back further."""
    loop = world.loop()
    go_on(world, loop)
    world.try_out(3)
    go_on(world, loop)
    assert world.controller.state(world.product).last_good
    world.pass_minutes(60)
    world.answer(30, errors=1.0)
    assert world.look(loop).decision.action is Action.ROLL_BACK
    after = slots(world)
    world.answer(30, errors=1.0)
    look = world.look(loop)
    assert look.decision.action is Action.FREEZE
    assert "common cause" in look.decision.reason
    assert look.frozen
    for _ in range(3):
        assert world.look(loop).decision.action is Action.HOLD
    assert slots(world) == after
    assert world.kinds().count("decision_recorded") == 6


def test_beside_a_canary_a_release_is_not_blamed_for_the_answers_of_the_one_before_it(tmp_path: Path) -> None:
    """No hard limit: production is proven too bad, and goes while a canary is open. Who serves then did nothing."""
    no_limit = [{"signal": "error", "at_most": 0.5, "window_seconds": 60, "min_count": 100_000}]
    world = make_rollout(tmp_path / "home", watched=MonitorPolicy.parse(WATCHED | {"hard_limits": no_limit}, where=""))
    loop = world.loop()
    go_on(world, loop)
    good, bad = world.controller.state(world.product).last_good, slots(world)[SlotName.PRODUCTION]
    world.try_out(3)
    world.answer(200, errors=0.95)
    decision = world.look(loop).decision
    assert (decision.action, decision.release_id) == (Action.ROLL_BACK, bad)
    (recorded,) = world.events("decision_recorded")[-1]["decision"]["readings"]
    assert (recorded["verdict"], recorded["canary"]) == ("FAIL", None)
    (page,) = world.home.incidents.rglob("*.md")
    assert "after the first bad answer that counted" in page.read_text("utf-8")
    assert slots(world)[SlotName.PRODUCTION] == good
    for new in (0, 50):
        world.answer(new)
        look = world.look(loop)
        assert look.decision.action in (Action.PAUSE, Action.HOLD), look.decision.reason
        assert look.frozen is None
    assert look.production == good


def test_when_both_arms_suffer_nothing_moves_and_it_is_on_record_once(world: Rollout) -> None:
    loop, before = world.loop(), slots(world)
    for _ in range(4):
        world.answer(100, canary_errors=0.9, errors=0.9)
        look = world.look(loop)
        assert look.decision.action is Action.HOLD
        assert look.decision.incident == "both arms are degraded"
    assert slots(world) == before
    assert world.kinds().count("decision_recorded") == 1
    world.look(world.successor(loop))
    assert world.kinds().count("decision_recorded") == 1


def test_what_both_arms_suffered_is_nobodys_fault_after_its_end_either(world: Rollout, monkeypatch: Any) -> None:
    loop = world.loop()
    go_on(world, loop)
    world.try_out(3)
    wall = Wall.of(monkeypatch)
    before = slots(world)
    world.answer(60, answered_at=wall.now())
    for _ in range(6):
        wall.ahead += timedelta(seconds=20)
        world.answer(60, errors=1.0, canary_errors=1.0, answered_at=wall.now())
        assert world.look(loop).decision.action is Action.HOLD
    for _ in range(6):
        wall.ahead += timedelta(seconds=20)
        world.answer(30, answered_at=wall.now())
        decision = world.look(loop).decision
        assert decision.action is Action.HOLD, decision.reason
    assert slots(world) == before


def test_a_frozen_product_holds_but_still_aborts(world: Rollout) -> None:
    loop = world.loop()
    world.controller.freeze(world.product, "a holiday", datetime.now(UTC), "operator")
    assert go_on(world, loop, rounds=5) == []
    assert world.look(loop).frozen == "a holiday"
    (decision,) = go_on(world, loop, canary_errors=0.9)
    assert decision.action is Action.ABORT


def test_what_became_eligible_in_a_freeze_opens_when_it_goes_on(world: Rollout) -> None:
    loop = world.loop()
    go_on(world, loop)
    world.controller.freeze(world.product, "a holiday", datetime.now(UTC), "operator")
    waiting = world.prove(world.release(5))
    assert world.controller.open_canary(world.product, waiting, world.now, "run").sentence.startswith(
        "held: the product"
    )
    assert world.look(loop).decision.action is Action.HOLD
    world.controller.unfreeze(world.product, "back", datetime.now(UTC), "operator")
    world.answer(10)
    world.pass_minutes(60)
    world.answer(10)
    decision = world.look(loop).decision
    assert (decision.action, decision.release_id) == (Action.OPEN, waiting)
    assert slots(world)[SlotName.CANARY] == waiting


def test_who_lets_a_product_go_on_that_moved_too_often_lets_it_move_again(tmp_path: Path) -> None:
    """The moves before are looked at: counted again, they would freeze it at the very next look."""
    once_a_day = WATCHED | {"moves": WATCHED["moves"] | {"max_per_day": 1}}
    world = make_rollout(tmp_path / "home", watched=MonitorPolicy.parse(once_a_day, where="a sample"))
    canary, loop = slots(world)[SlotName.CANARY], world.loop()
    assert [one.action for one in go_on(world, loop, rounds=4)] == [Action.STEP_UP, Action.FREEZE]
    world.controller.unfreeze(world.product, "it was the policy", datetime.now(UTC), "ann")
    look = world.look(loop)
    assert (look.decision.action, look.decision.release_id) == (Action.PROMOTE, canary), look.decision.reason
    assert look.frozen is None
    assert world.look(world.successor(loop)).decision.action is Action.HOLD
    assert world.kinds().count("product_frozen") == 1


def test_a_promotion_waits_for_the_signature_that_its_policy_asks_for(tmp_path: Path) -> None:
    signing = WATCHED | {"sign_off": {"always": True, "cost_rises_by": None}}
    world = make_rollout(tmp_path / "home", watched=MonitorPolicy.parse(signing, where="a sample"))
    loop = world.loop()
    assert [one.action for one in go_on(world, loop)] == [Action.STEP_UP]
    decision = world.look(loop).decision
    assert "an operator's signature" in decision.waits_for[0]
    canary = slots(world)[SlotName.CANARY]
    world.controller.sign_off(world.product, canary, OPERATOR, "I looked", datetime.now(UTC), "operator")
    assert world.look(loop).decision.action is Action.PROMOTE
    world.controller.ledger.verify(world.trust.evidence, world.trust.operators)
