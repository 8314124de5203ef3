"""From answers to readings: who is compared, what counts once, and what never passes."""

import math
from dataclasses import replace
from datetime import timedelta
from itertools import islice

import numpy as np
import pytest

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import MonitorPolicy, Signal
from ml_platform.contracts.monitoring import MetricReading, Seen
from ml_platform.contracts.routing import Cohort
from ml_platform.release.sequential.rates import Events
from ml_platform.release.tallies import Tally
from tests.samples.monitoring import monitor_policy
from tests.samples.seen import EPOCH, make_rollout, make_seen

RATE = {"kind": "rate", "metric": "error_rate", "signal": "error", "margin": 0.05, "at_most": 0.2}
LABELLED = {"kind": "rate", "metric": "missed_rate", "signal": "missed", "margin": 0.1, "at_most": 0.5}
QUANTILE = {
    "kind": "quantile",
    "metric": "p95",
    "signal": "latency_ms",
    "quantile": 0.95,
    "margin": 0.5,
    "at_most": 5000,
}
MEAN = {"kind": "mean", "metric": "cost", "signal": "cost_usd", "ceiling": 1e-4, "margin": 1e-5, "at_most": 5e-5}


def policy(*metrics: dict[str, object]) -> MonitorPolicy:
    return monitor_policy(metrics=list(metrics))


def reading(seen: list[Seen], metric: dict[str, object], *, since: int = 0) -> MetricReading:
    tally = Tally(since)
    tally.add(seen)
    return tally.readings(policy(metric))[0]


def errors(n: int, production: float, canary: float, exposure: float = 0.5) -> list[Seen]:
    return list(make_rollout(n, Signal.ERROR, production, canary, exposure=exposure))


def numbers(signal: Signal, n: int, production: float, canary: float, spread: float = 0.3) -> list[Seen]:
    """Users of either arm with values around these, from 1 - spread to 1 + spread times them."""
    seen = []
    for number in range(n):
        one = make_seen(number)
        middle = canary if one.cohort is Cohort.CANARY else production
        seen.append(replace(one, signals={signal: middle * (1 + spread * math.sin(number))}))
    return seen


def test_what_happens_to_many_is_proven_by_how_many_it_does_not_happen_to() -> None:
    seen = errors(50, 0.4, 1.0)
    production, canary = (
        sum(one.signals[Signal.ERROR] for one in seen if one.cohort is arm)
        for arm in (Cohort.PRODUCTION, Cohort.CANARY)
    )
    only_those_it_happened_to = Events(np.array([0.5]), np.array([production]), np.array([canary])).log_e

    found = reading(seen, RATE | {"margin": 0.4, "at_most": 0.95})

    assert found.verdict is Verdict.FAIL
    assert found.e_threshold is not None
    assert only_those_it_happened_to < math.log(found.e_threshold)


def test_a_canary_as_good_as_production_passes_once_enough_users_are_seen() -> None:
    few, many = (reading(errors(n, 0.02, 0.02), RATE) for n in (100, 2_000))
    assert few.verdict is Verdict.INCONCLUSIVE
    assert few.waits_for is not None
    assert "more users in the canary" in few.waits_for
    assert many.verdict is Verdict.PASS
    assert many.effect_upper is not None
    assert many.effect_upper < many.limit == 0.05
    assert many.production is not None
    assert many.production.value == pytest.approx(0.02, abs=0.002)


def test_harm_is_proven_though_it_is_inside_the_margin() -> None:
    """The margin is how much may stay unproven, no allowance for what is proven."""
    found = reading(errors(4_000, 0.01, 0.035), RATE)
    assert found.verdict is Verdict.FAIL
    assert found.effect_upper is not None
    assert found.effect_upper < found.limit
    assert found.e_value is not None
    assert found.e_value >= found.e_threshold == pytest.approx(20.0)


def test_a_reading_names_the_smallest_harm_that_it_could_see_by_now() -> None:
    visible = [reading(errors(n, 0.02, 0.02), RATE).smallest_visible for n in (200, 800, 3_200)]
    assert None not in visible
    assert visible == sorted(visible, reverse=True)


@pytest.mark.parametrize("metric", [RATE, LABELLED, QUANTILE, MEAN])
def test_nothing_seen_never_passes(metric: dict[str, object]) -> None:
    found = reading([], metric)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.waits_for is not None
    assert found.effect is None


@pytest.mark.parametrize("arm", [True, False])
@pytest.mark.parametrize("metric", [RATE, QUANTILE, MEAN])
def test_an_arm_without_users_never_passes(metric: dict[str, object], *, arm: bool) -> None:
    """So few that chance explains that nobody is in the other arm; of more, see the next test."""
    signals = {Signal.ERROR: 0.0, Signal.LATENCY_MS: 10.0, Signal.COST_USD: 1e-6}
    found = reading([make_seen(number, canary=arm, signals=signals) for number in range(12)], metric)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert f"users of the {'production' if arm else 'canary'}" in (found.waits_for or "")


def test_arms_that_chance_cannot_explain_are_an_error_and_neither_stop_nor_pass() -> None:
    """A shipper that lost half of production's answers would make any canary look harmful."""
    seen = [one for one in errors(2_000, 0.05, 0.05) if one.cohort is Cohort.CANARY or int(one.user[5:]) % 2]
    found = reading(seen, RATE)
    assert found.verdict is Verdict.ERROR
    assert "cannot be compared" in found.reason


def test_all_answers_bad_in_both_arms_never_passes() -> None:
    generous = RATE | {"at_most": 1.0}
    assert reading(errors(2_000, 1.0, 1.0), generous).verdict is Verdict.INCONCLUSIVE


def test_a_canary_above_what_any_release_may_have_does_not_pass_though_production_is_too() -> None:
    found = reading(errors(8_000, 0.3, 0.3), RATE)
    assert found.effect_upper is not None
    assert found.effect_upper < found.limit
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "20.0%" in found.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.5])
def test_one_value_that_is_none_keeps_everything_from_passing(value: float) -> None:
    seen = errors(2_000, 0.02, 0.02)
    assert reading(seen, RATE).verdict is Verdict.PASS
    found = reading([*seen, make_seen(9_999, "another", signals={Signal.ERROR: value})], RATE)
    assert found.verdict is Verdict.ERROR
    assert "1 answer(s)" in found.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -3.0])
def test_numbers_that_are_none_keep_a_quantile_from_passing(value: float) -> None:
    seen = numbers(Signal.LATENCY_MS, 2_000, 100.0, 100.0)
    assert reading(seen, QUANTILE).verdict is Verdict.PASS
    assert (
        reading([*seen, make_seen(9_999, "x", signals={Signal.LATENCY_MS: value})], QUANTILE).verdict is Verdict.ERROR
    )


def test_proven_harm_stops_though_other_values_are_none() -> None:
    seen = [*errors(1_000, 0.02, 0.3), make_seen(9_999, "another", signals={Signal.ERROR: math.nan})]
    assert reading(seen, RATE).verdict is Verdict.FAIL


@pytest.mark.parametrize("outsider", ["shadow", "operator", "nobody", "before", "certain"])
def test_whoever_was_not_assigned_by_chance_in_this_rollout_counts_nowhere(outsider: str) -> None:
    seen = errors(400, 0.05, 0.05)
    changes: dict[str, dict[str, object]] = {
        "shadow": {"cohort": Cohort.SHADOW},
        "operator": {"cohort": Cohort.OPERATOR},
        "nobody": {},
        "before": {"epoch": EPOCH - 1},
        "certain": {"exposure": 0.0, "canary": False},
    }
    others = []
    for number in range(1_000, 1_400):
        name = f"response {number}" if outsider == "nobody" else ""
        others.append(make_seen(number, name, signals={Signal.ERROR: 1.0}, **changes[outsider]))  # type: ignore[arg-type]
    assert reading([*seen, *others], RATE, since=EPOCH) == reading(seen, RATE, since=EPOCH)


def test_a_user_who_asks_a_thousand_times_counts_once() -> None:
    """A hundred users of whom one in the canary fails a thousand times: by answers that would be a catastrophe."""
    seen = errors(100, 0.0, 0.0)
    one = next(one for one in seen if one.cohort is Cohort.CANARY)
    again = [make_seen(number, one.user, signals={Signal.ERROR: 1.0}) for number in range(200, 1_200)]
    found = reading([*seen, *again], RATE)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.e_value is not None
    assert found.e_value < 2.0
    assert found.canary is not None
    assert found.canary.value == 0.0, "his first answer was good"
    assert found.canary.answers == found.canary.users + 1_000


def test_the_same_answers_again_change_nothing() -> None:
    tally, seen = Tally(), errors(300, 0.05, 0.1)
    tally.add(seen)
    once = tally.readings(policy(RATE)), tally.users(Cohort.CANARY)
    tally.add(reversed(seen))
    assert (tally.readings(policy(RATE)), tally.users(Cohort.CANARY)) == once


def test_an_answer_that_is_disliked_later_is_counted_as_one_that_was_disliked() -> None:
    metric = RATE | {"signal": "disliked"}
    later = list(make_rollout(300, Signal.DISLIKED, 0.1, 0.4))
    at_first = [replace(one, signals={Signal.DISLIKED: 0.0}) for one in later]
    assert reading([*at_first, *later], metric) == reading(later, metric)
    assert reading(at_first, metric) != reading(later, metric)


def test_labels_count_once_they_are_mature_and_only_where_enough_answers_have_one() -> None:
    labelled = list(make_rollout(2_000, Signal.MISSED, 0.1, 0.1))
    assert reading(labelled, LABELLED).verdict is Verdict.PASS
    without = [replace(one, labelled=False, signals={}) if number % 3 else one for number, one in enumerate(labelled)]
    found = reading(without, LABELLED)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "33% have one" in found.reason
    assert found.canary is not None
    assert found.canary.coverage == pytest.approx(1 / 3, abs=0.03)


def test_harm_that_is_seen_in_too_few_labels_is_not_proven() -> None:
    harmful = list(make_rollout(2_000, Signal.MISSED, 0.1, 0.4))
    assert reading(harmful, LABELLED).verdict is Verdict.FAIL
    without = [replace(one, labelled=False, signals={}) if number % 3 else one for number, one in enumerate(harmful)]
    assert reading(without, LABELLED).verdict is Verdict.INCONCLUSIVE


def test_a_slow_canary_is_stopped_and_one_inside_the_margin_passes() -> None:
    assert reading(numbers(Signal.LATENCY_MS, 2_000, 100.0, 110.0), QUANTILE).verdict is Verdict.PASS
    found = reading(numbers(Signal.LATENCY_MS, 300, 100.0, 250.0), QUANTILE)
    assert found.verdict is Verdict.FAIL
    assert found.effect == pytest.approx(2.5, rel=0.05)
    assert found.limit == 1.5


def test_a_quantile_waits_for_as_many_users_as_its_bound_takes() -> None:
    found = reading(numbers(Signal.LATENCY_MS, 60, 100.0, 100.0), QUANTILE)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.effect_upper is None
    assert "about" in (found.waits_for or "")


def test_a_dear_canary_is_stopped_beyond_the_margin_only() -> None:
    assert reading(numbers(Signal.COST_USD, 2_000, 2e-5, 2.3e-5), MEAN).verdict is Verdict.PASS
    beyond = reading(numbers(Signal.COST_USD, 2_000, 2e-5, 4e-5), MEAN)
    assert beyond.verdict is Verdict.FAIL
    assert beyond.effect_lower is not None
    assert beyond.effect_lower > beyond.limit


def test_values_above_the_ceiling_count_as_the_ceiling() -> None:
    seen = numbers(Signal.COST_USD, 500, 2e-5, 2e-5)
    wild = [replace(one, signals={Signal.COST_USD: 1e9}) if one.user == "user 7" else one for one in seen]
    ceiling = [replace(one, signals={Signal.COST_USD: 1e-4}) if one.user == "user 7" else one for one in seen]
    assert reading(wild, MEAN) == reading(ceiling, MEAN)


def test_alpha_is_shared_by_the_metrics_and_beta_is_not() -> None:
    one = reading(errors(500, 0.02, 0.02), RATE)
    tally = Tally()
    tally.add(errors(500, 0.02, 0.02))
    several = tally.readings(policy(RATE, *(RATE | {"metric": f"error_{copy}"} for copy in "abc")))
    assert one.e_threshold == pytest.approx(20.0)
    assert several[0].e_threshold == pytest.approx(80.0)
    assert several[0].effect_upper == one.effect_upper


def test_production_alone_is_judged_by_what_no_release_may_exceed_with_nobody_left_out() -> None:
    for share, verdict in ((0.02, Verdict.PASS), (0.35, Verdict.FAIL)):
        tally = Tally(EPOCH)
        seen = islice(make_rollout(4_000, Signal.ERROR, share, share), 2_000)
        tally.add(replace(one, exposure=0.0, cohort=Cohort.PRODUCTION, user=one.response_id) for one in seen)
        found = tally.alone(policy(RATE))[0]
        assert found.verdict is verdict, found.reason
        assert found.canary is None
        assert found.production is not None
        assert found.production.users == 2_000
        assert tally.readings(policy(RATE))[0].verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("metric", "signal", "fine", "bad"), [
    (QUANTILE, Signal.LATENCY_MS, 3_000.0, 6_000.0), (MEAN, Signal.COST_USD, 2e-5, 8e-5),
])  # fmt: skip
def test_numbers_of_production_alone_are_judged_too(
    metric: dict[str, object], signal: Signal, fine: float, bad: float
) -> None:
    for value, verdict in ((fine, Verdict.PASS), (bad, Verdict.FAIL)):
        tally = Tally()
        tally.add(make_seen(number, canary=False, exposure=0.0, signals={signal: value}) for number in range(500))
        assert tally.alone(policy(metric))[0].verdict is verdict


def test_production_alone_is_judged_by_its_own_answers_though_the_rollout_began_before_it_served() -> None:
    tally = Tally(EPOCH, alone_since=EPOCH + 1)
    before = [make_seen(number, canary=False, signals={Signal.ERROR: 1.0}) for number in range(200)]
    after = [make_seen(n, canary=False, signals={Signal.ERROR: 0.0}, epoch=EPOCH + 1) for n in range(300, 400)]
    tally.add([*before, *after])
    alone, compared = tally.alone(policy(RATE))[0].production, tally.readings(policy(RATE))[0].production
    assert alone is not None
    assert compared is not None
    assert (alone.users, alone.value, compared.users) == (100, 0.0, 300)


def test_nothing_seen_of_production_alone_never_passes() -> None:
    assert {one.verdict for one in Tally().alone(policy(RATE, LABELLED, QUANTILE, MEAN))} == {Verdict.INCONCLUSIVE}


def test_first_is_who_answered_first_in_our_time_though_the_product_stands_still() -> None:
    """Between two publications of features all answers have one product time; exposures go on changing."""
    early = make_seen(1, "someone", exposure=0.05, canary=False, signals={Signal.ERROR: 0.0})
    late = make_seen(2, "someone", exposure=0.9, canary=True, signals={Signal.ERROR: 1.0}, at=early.at)
    for order in ((early, late), (late, early)):
        found = reading(list(order), RATE)
        assert found.production is not None
        assert found.production.users == 1
        assert early.answered_at < late.answered_at == early.answered_at + timedelta(seconds=1)
