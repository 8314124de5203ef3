"""Which outcome is the label of an answer, and why the others are not."""

import random
from datetime import datetime, timedelta

import pytest

from ml_platform.contracts.serving import ServingTime
from ml_platform.monitoring.labels import Flaw, Label, Told, label_of, told
from tests.samples.observed import AGE, serving_content
from tests.samples.provenance import NOW, make_outcome

CLOCK, FEATURES = ServingTime.CLOCK, ServingTime.FEATURES
HOUR = timedelta(hours=1)


def told_at(hours: float, happened: bool | None = True, *, received: float | None = None, key: str = "") -> Told:
    """What was known so many hours after the answer."""
    occurred = NOW + hours * HOUR
    heard = NOW + (hours if received is None else received) * HOUR
    return Told(key or f"{hours}-{happened}-{received}", heard, occurred, heard, (happened,))


def label(*outcomes: Told, time: ServingTime = CLOCK) -> Label:
    return label_of(NOW, AGE, outcomes, time)


def test_an_outcome_in_time_is_the_label() -> None:
    assert label(told_at(2)) == Label((True,))
    assert label(told_at(2, False)) == Label((False,))


def test_nothing_is_no_label() -> None:
    assert label() == Label(None)


@pytest.mark.parametrize(
    ("outcome", "flaw"),
    [
        (told_at(6.001), Flaw.LATE),
        (told_at(2, received=7), Flaw.LATE),
        (told_at(-1), Flaw.BEFORE_ANSWER),
        (told_at(3, received=1), Flaw.FROM_THE_FUTURE),
        (told_at(2, None), Flaw.UNUSABLE),
    ],
)
def test_an_outcome_that_cannot_be_the_label_says_why(outcome: Told, flaw: Flaw) -> None:
    assert label(outcome) == Label(None, (flaw,))


def test_the_very_end_of_the_age_is_in_time() -> None:
    assert label(told_at(6)).happened == (True,)


def test_clocks_may_differ_by_a_minute_and_in_a_replay_by_years() -> None:
    skewed = told_at(3, received=3 - 0.9 / 60)
    assert label(skewed).happened == (True,)
    assert label(told_at(-0.9 / 60)).happened == (True,)
    replayed = Told("k", NOW + HOUR, NOW + HOUR, datetime.fromisoformat("2026-01-01T00:00Z"), (True,))
    assert label(replayed, time=FEATURES).happened == (True,)


def test_what_is_said_twice_counts_once() -> None:
    assert label(told_at(2), told_at(3), told_at(4)) == Label((True,), (Flaw.DUPLICATE, Flaw.DUPLICATE))


def test_of_outcomes_that_contradict_each_other_none_counts() -> None:
    assert label(told_at(2), told_at(3, False)) == Label(None, (Flaw.CONTRADICTORY, Flaw.CONTRADICTORY))


def test_a_contradiction_that_came_late_changes_nothing() -> None:
    assert label(told_at(2), told_at(9, False)) == Label((True,), (Flaw.LATE,))


def test_the_order_does_not_matter() -> None:
    outcomes = [told_at(2), told_at(3), told_at(-2), told_at(8, False), told_at(4, None)]
    expected = label(*outcomes)
    for seed in range(20):
        random.Random(seed).shuffle(outcomes)  # noqa: S311 - a test
        assert label(*outcomes) == expected


def test_a_product_that_asks_for_nothing_is_labelled_by_any_sound_outcome() -> None:
    bare = Told("k", NOW + HOUR, NOW + HOUR, NOW + HOUR, ())
    assert label_of(NOW, AGE, [bare], CLOCK, asked=False) == Label(())
    assert label_of(NOW, AGE, [], CLOCK, asked=False) == Label(None)


@pytest.mark.parametrize(
    ("value", "truth"),
    [(True, True), (False, False), (1, True), (0.0, False), (17.5, True), ("yes", None), (None, None)],
)
def test_only_a_boolean_or_a_number_happened(value: object, truth: bool | None) -> None:
    outcome = make_outcome(1, values={"late": value})
    assert told(outcome, serving_content().evaluation, CLOCK).happened == (truth,)


def test_an_outcome_is_known_when_it_was_heard_of_or_in_a_replay_when_it_happened() -> None:
    outcome = make_outcome(1)
    assert told(outcome, None, CLOCK).at == outcome.received_at
    assert told(outcome, None, FEATURES).at == outcome.occurred_at
