"""No past day of a backfill moves a slot, in whatever order its days are done."""

from datetime import date, datetime, timedelta
from itertools import permutations
from pathlib import Path

import pytest

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


def fill_in(controller: Controller, release: Release, at: datetime, last: Release | None) -> Move | Held:
    controller.register_release(release, POLICY, at, "tester")
    reference = controller.state(PRODUCT).slots.get(SlotName.PRODUCTION, "base")
    controller.record_verdicts(release, make_results(POLICY), inputs_of(release, reference), KEY, at, "tester")
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
