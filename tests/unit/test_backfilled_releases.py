"""No past day of a backfill moves a slot, in whatever order its days are done."""

from datetime import date, datetime, timedelta
from itertools import permutations
from pathlib import Path

import pytest

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitoring import Action, Decision
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.lineage.keys import SigningKey
from ml_platform.release.controller import Controller, Held, Move
from tests.samples.releases import (
    NOW,
    PRODUCT,
    inputs_of,
    make_controller,
    make_policy,
    make_release,
    make_results,
    pin,
)

KEY, POLICY = SigningKey.generate(), make_policy()
FIRST, SECOND, THIRD, FOURTH = (make_release(date(2013, 4, day)) for day in (1, 2, 3, 4))


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    made = make_controller(tmp_path, KEY)
    pin(made, POLICY)
    return made


def fill_in(
    controller: Controller, release: Release, at: datetime, last: Release | None, failing: str | None = None
) -> Move | Held:
    controller.register_release(release, POLICY, at, "tester")
    reference = controller.state(PRODUCT).slots.get(SlotName.PRODUCTION, "base")
    results = make_results(POLICY, **{failing: Verdict.FAIL} if failing else {})
    controller.record_verdicts(release, results, inputs_of(release, reference), KEY, at, "tester")
    to = last.data.as_of if last else None
    return controller.open_canary(PRODUCT, release.release_id, at, "tester", backfilled_to=to)


@pytest.mark.parametrize("order", [*permutations((FIRST, SECOND, THIRD))], ids=range(6))
def test_only_the_last_day_of_a_backfill_moves_a_slot_and_the_others_none(
    controller: Controller, order: tuple[Release, ...]
) -> None:
    said = {one.data.as_of: fill_in(controller, one, NOW, THIRD) for one in order}
    assert controller.state(PRODUCT).slots == {SlotName.CANARY: THIRD.release_id}
    assert controller.state(PRODUCT).epoch == 1
    for one in (FIRST, SECOND):
        held = said[one.data.as_of]
        assert isinstance(held, Held)
        assert "2013-04-03" in held.sentence


def test_a_backfill_of_days_before_a_candidate_that_fell_moves_nothing(controller: Controller) -> None:
    """The newer release is in no slot any more, and still those days are past."""
    fill_in(controller, FOURTH, NOW, None)
    controller.abort_canary(PRODUCT, FOURTH.release_id, "it failed", NOW + timedelta(minutes=1), "tester")
    epoch = controller.state(PRODUCT).epoch
    said = [fill_in(controller, one, NOW + timedelta(minutes=2), THIRD) for one in (FIRST, SECOND, THIRD)]
    assert {one.sentence for one in said} == {"held: a past day of a backfill, 2013-04-04 is newer"}
    assert (controller.state(PRODUCT).epoch, controller.state(PRODUCT).slots) == (epoch, {})


def test_a_person_who_asks_for_a_past_day_alone_may_have_it(controller: Controller) -> None:
    fill_in(controller, FOURTH, NOW, None)
    controller.abort_canary(PRODUCT, FOURTH.release_id, "it failed", NOW + timedelta(minutes=1), "tester")
    assert isinstance(fill_in(controller, THIRD, NOW + timedelta(minutes=2), None), Move)


def test_the_gates_of_a_past_day_are_told_before_its_age(controller: Controller) -> None:
    controller.register_release(FIRST, POLICY, NOW, "tester")
    said = controller.open_canary(PRODUCT, FIRST.release_id, NOW, "tester", backfilled_to=THIRD.data.as_of)
    assert isinstance(said, Held)
    assert set(said.gates) == set(POLICY.gate_names)


@pytest.mark.parametrize("order", [*permutations((FIRST, SECOND, THIRD))], ids=range(6))
def test_after_a_freeze_the_newest_day_of_a_backfill_waits_in_whatever_order_its_days_were_done(
    controller: Controller, order: tuple[Release, ...]
) -> None:
    controller.freeze(PRODUCT, "somebody looks", NOW, "tester")
    for one in order:
        assert isinstance(fill_in(controller, one, NOW, THIRD), Held)
    controller.unfreeze(PRODUCT, "all is well", NOW, "tester")
    assert controller.ledger.replay(PRODUCT).waiting == THIRD.release_id


def test_after_a_freeze_no_day_of_a_backfill_waits_that_is_older_than_a_candidate_that_fell(
    controller: Controller,
) -> None:
    fill_in(controller, FOURTH, NOW, None)
    controller.abort_canary(PRODUCT, FOURTH.release_id, "it failed", NOW + timedelta(minutes=1), "tester")
    controller.freeze(PRODUCT, "somebody looks", NOW, "tester")
    for one in (THIRD, SECOND, FIRST):
        fill_in(controller, one, NOW, THIRD)
    controller.unfreeze(PRODUCT, "all is well", NOW, "tester")
    assert controller.ledger.replay(PRODUCT).waiting is None


def test_a_past_day_that_is_held_in_a_freeze_leaves_the_newest_waiting(controller: Controller) -> None:
    controller.freeze(PRODUCT, "somebody looks", NOW, "tester")
    fill_in(controller, SECOND, NOW, SECOND)
    fill_in(controller, FIRST, NOW, SECOND, failing="late_recall")
    assert controller.ledger.replay(PRODUCT).waiting == SECOND.release_id


def test_what_waits_gives_way_to_a_newer_day_whatever_comes_of_that(controller: Controller) -> None:
    """Its run may end between the registration and the gates, and the older one may be a past day of its backfill."""
    controller.freeze(PRODUCT, "somebody looks", NOW, "tester")
    fill_in(controller, FIRST, NOW, SECOND)
    controller.register_release(SECOND, POLICY, NOW, "tester")
    assert controller.ledger.replay(PRODUCT).waiting is None


def test_a_decision_to_open_a_day_that_is_past_by_then_is_held(controller: Controller) -> None:
    """A newer day may be registered between the look and the move, which changes no epoch."""
    controller.freeze(PRODUCT, "somebody looks", NOW, "tester")
    fill_in(controller, FIRST, NOW, SECOND)
    controller.unfreeze(PRODUCT, "all is well", NOW, "tester")
    decision = Decision(
        product=PRODUCT,
        action=Action.OPEN,
        release_id=controller.ledger.replay(PRODUCT).waiting,
        reason="it became eligible in a freeze",
        epoch=controller.state(PRODUCT).epoch,
        at=NOW,
    )
    controller.register_release(SECOND, POLICY, NOW, "tester")
    said = controller.apply(decision, None, NOW, "controller")
    assert isinstance(said, Held)
    assert said.sentence == "held: a past day of a backfill, 2013-04-02 is newer"
    assert controller.state(PRODUCT).slots == {}
