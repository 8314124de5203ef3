"""The fast path: hard limits within their windows, and what ails both arms."""

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import Seen
from ml_platform.contracts.routing import Cohort
from ml_platform.release.assess import Recent, assess_breaches, broken, common_causes, suffer_together
from tests.samples.monitoring import monitor_policy
from tests.samples.seen import BEGIN, CANARY, PRODUCTION, make_seen

POLICY = monitor_policy(hard_limits=[{"signal": "error", "at_most": 0.3, "window_seconds": 60, "min_count": 20}])
NOW = BEGIN + timedelta(seconds=100)


def answers(canary: bool, bad: int, good: int, *, at: datetime = NOW, **changes: object) -> list[Seen]:
    """So many bad and good ones of an arm, all given at one moment."""
    values = [1.0] * bad + [0.0] * good
    return [
        make_seen(
            number,
            f"{canary} {at} {number}",
            canary=canary,
            signals={Signal.ERROR: value},
            response_id=f"{canary} {at} {number}",
            answered_at=at,
            **changes,
        )
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("bad", "good", "broken"), [(6, 14, False), (7, 13, True), (20, 0, True), (19, 0, False), (0, 500, False)]
)
def test_a_limit_is_broken_above_its_share_and_with_enough_answers(bad: int, good: int, *, broken: bool) -> None:
    found = assess_breaches(answers(True, bad, good), POLICY, CANARY, NOW)
    assert bool(found) is broken
    if found:
        assert (found[0].bad, found[0].answers, found[0].signal) == (bad, bad + good, Signal.ERROR)


def test_only_the_window_counts() -> None:
    old = answers(True, 50, 0, at=NOW - timedelta(seconds=61))
    assert not assess_breaches([*old, *answers(True, 1, 25)], POLICY, CANARY, NOW)
    assert assess_breaches(answers(True, 25, 0, at=NOW - timedelta(seconds=60)), POLICY, CANARY, NOW)


def test_only_the_release_counts_and_shadows_never() -> None:
    assert not assess_breaches(answers(False, 50, 0), POLICY, CANARY, NOW)
    assert not assess_breaches(answers(True, 50, 0, cohort=Cohort.SHADOW), POLICY, CANARY, NOW)
    assert assess_breaches(answers(False, 50, 0), POLICY, PRODUCTION, NOW)


def test_the_same_answer_counts_once() -> None:
    assert not assess_breaches(answers(True, 10, 0) * 5, POLICY, CANARY, NOW)


@pytest.mark.parametrize("seconds", [30, 3_000])
def test_a_clock_that_runs_ahead_by_less_than_the_window_is_forgiven(seconds: int) -> None:
    found = assess_breaches(answers(True, 25, 0, at=NOW + timedelta(seconds=seconds)), POLICY, CANARY, NOW)
    assert bool(found) is (seconds < 60)


def test_a_value_that_is_none_is_nothing_good() -> None:
    broken = [replace(one, signals={Signal.ERROR: math.nan}) for one in answers(True, 25, 0)]
    assert assess_breaches(broken, POLICY, CANARY, NOW)


def test_answers_that_do_not_show_the_signal_are_no_good_ones() -> None:
    silent = [replace(one, signals={}) for one in answers(True, 0, 500, at=NOW - timedelta(seconds=1))]
    assert assess_breaches([*silent, *answers(True, 7, 13)], POLICY, CANARY, NOW)


def test_nothing_seen_breaks_nothing_and_has_no_cause() -> None:
    assert assess_breaches([], POLICY, CANARY, NOW) == ()
    assert common_causes([], POLICY, NOW) == {}


def test_what_both_arms_suffer_has_a_common_cause_and_what_one_suffers_has_none() -> None:
    both = [*answers(True, 15, 10), *answers(False, 150, 100)]
    found = common_causes(both, POLICY, NOW)
    assert set(found) == {Signal.ERROR}
    sentence = found[Signal.ERROR]
    assert "15 of 25 in canary" in sentence
    assert "150 of 250 in production" in sentence
    assert common_causes([*answers(True, 15, 10), *answers(False, 0, 250)], POLICY, NOW) == {}
    assert common_causes([*answers(True, 0, 25), *answers(False, 150, 100)], POLICY, NOW) == {}


def test_each_signal_that_both_arms_suffer_is_named_and_no_other() -> None:
    limits = [{"signal": one, "at_most": 0.3, "window_seconds": 60, "min_count": 20} for one in ("unsafe", "error")]
    both = [*answers(True, 15, 10), *answers(False, 150, 100)]
    for unsafe_in_production, shared in ((1.0, {Signal.ERROR, Signal.UNSAFE}), (0.0, {Signal.ERROR})):
        seen = [
            replace(
                one,
                signals={**one.signals, Signal.UNSAFE: 1.0 if one.cohort is Cohort.CANARY else unsafe_in_production},
            )
            for one in both
        ]
        assert set(common_causes(seen, monitor_policy(hard_limits=limits), NOW)) == shared


def test_above_what_any_release_may_have_in_both_arms_is_a_common_cause_too() -> None:
    """A quarter of all answers: below the hard limit of 0.3, above error_rate's `at_most` of 0.2."""
    assert common_causes([*answers(True, 7, 18), *answers(False, 70, 180)], POLICY, NOW)
    assert common_causes([*answers(True, 4, 21), *answers(False, 40, 210)], POLICY, NOW) == {}


def test_one_user_who_asks_what_must_fail_takes_no_release_back() -> None:
    one = [replace(answer, user="someone") for answer in answers(True, 500, 0)]
    assert not assess_breaches([*one, *answers(True, 0, 25, at=NOW - timedelta(seconds=1))], POLICY, CANARY, NOW)
    assert not assess_breaches(one, POLICY, CANARY, NOW)


def test_recent_answers_are_all_that_is_kept() -> None:
    recent = Recent(POLICY)
    for second in range(0, 6_000, 10):
        recent.add(answers(True, 1, 4, at=BEGIN + timedelta(seconds=second)))
        recent.breaches(CANARY, BEGIN + timedelta(seconds=second))
    assert len(recent) <= 5 * 8


def test_the_order_of_arrival_does_not_matter() -> None:
    seen = [*answers(True, 15, 10), *answers(False, 150, 100), *answers(True, 9, 0, at=NOW - timedelta(seconds=30))]

    def outcome(order: Iterable[Seen]) -> tuple[object, ...]:
        recent = Recent(POLICY)
        for one in order:
            recent.add([one])
        return recent.breaches(CANARY, NOW), recent.breaches(PRODUCTION, NOW), recent.common_causes(NOW)

    assert outcome(seen) == outcome(seen[::-1]) == outcome([*seen, *seen])


@pytest.mark.parametrize(
    ("production", "canary", "shared"),
    [
        ((250, 1_000), (35, 50), False),
        ((280, 1_000), (18, 50), True),
        ((30, 1_000), (20, 50), False),
        ((310, 1_000), (14, 50), True),
        ((900, 1_000), (0, 50), False),
        ((9, 19), (20, 50), False),
        ((400, 1_000), (49, 50), True),
    ],
)
def test_at_the_edge_of_an_outage_chance_puts_one_arm_above_the_limit(
    production: tuple[int, int], canary: tuple[int, int], *, shared: bool
) -> None:
    assert suffer_together(POLICY.hard_limits[0], production, canary) is shared


def test_a_healthy_canary_in_an_outage_at_the_limit_is_seldom_said_to_have_broken_it_alone() -> None:
    """All answers are bad with one chance near the limit: without the test of chance, one in three would be aborted."""
    rng, limit, alone, plain = np.random.default_rng(2), POLICY.hard_limits[0], 0, 0
    for chance in rng.uniform(0.03, 0.35, 2_000):
        production, canary = ((int(rng.binomial(n, chance)), n) for n in (570, 30))
        fell, other = broken(limit, *canary), broken(limit, *production)
        alone += fell and not suffer_together(limit, production, canary)
        plain += fell and not other
    assert alone / 2_000 < 0.001
    assert plain / 2_000 > 0.05, "the simulation would not notice"
