"""The statistics of the report against scipy, closed forms and brute force."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import optimize, stats

from ml_platform.evaluation.intervals import effective_n, quantile_with_bounds, ratio_bounds, share_bounds
from ml_platform.evaluation.paired import (
    detectable_loss,
    difference_bounds,
    holm,
    mcnemar_p_value,
    mean_detectable_loss,
    minimum_detectable_effect,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 9), (97, 100), (500, 1000)])
def test_share_bounds_are_the_exact_bounds_of_scipy(successes: int, n: int) -> None:
    found = share_bounds(successes, n, 0.95)
    expected = stats.binomtest(successes, n).proportion_ci(confidence_level=0.9, method="exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_perfect_shares_have_the_closed_form_bound() -> None:
    assert share_bounds(59, 59, 0.95).low == pytest.approx(0.05 ** (1 / 59))
    assert share_bounds(0, 59, 0.95).high == pytest.approx(1 - 0.05 ** (1 / 59))


def test_nothing_measured_has_no_bounds() -> None:
    assert share_bounds(0, 0, 0.95) == difference_bounds(0, 0, 0, 0.95)
    assert share_bounds(0, 0, 0.95).low is None
    assert detectable_loss(0, 0, 0, 0.95) is None
    assert minimum_detectable_effect(0, 0.1, 0.95) is None
    assert mean_detectable_loss(np.array([1.0]), 1, 0.95) is None
    assert quantile_with_bounds(np.array([]), 0.95, 0.95)[0] is None


def test_independent_items_count_fully_and_copies_of_an_entity_hardly() -> None:
    values = np.array([1.0, 0.0] * 20)
    assert effective_n(values, np.arange(40), 0.95) == 40
    copied = np.repeat([1.0, 0.0] * 10, 5)
    assert 15 < effective_n(copied, np.repeat(np.arange(20), 5), 0.95) <= 20
    assert effective_n(np.ones(50), np.repeat(np.arange(10), 5), 0.95) == 10
    assert effective_n(values, np.zeros(40, dtype=np.int64), 0.95) == 1
    assert effective_n(np.array([]), np.array([], dtype=np.int64), 0.95) == 0


def test_bootstrap_bounds_of_a_skewed_mean_agree_with_scipy() -> None:
    values = np.random.default_rng(5).lognormal(size=60)
    found = ratio_bounds(values, np.ones(60), np.arange(60), 0.95)
    oracle = stats.bootstrap((values,), np.mean, confidence_level=0.9, n_resamples=20_000, method="BCa", rng=1)
    interval = oracle.confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=0.03)


def test_bootstrap_bounds_of_a_ratio_agree_with_scipy() -> None:
    rng = np.random.default_rng(6)
    cost, right = rng.gamma(4.0, size=80), (rng.random(80) < 0.8).astype(float)
    found = ratio_bounds(cost, right, np.arange(80), 0.95)

    def cost_per_right(top: np.ndarray, bottom: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(top.sum(axis=axis) / bottom.sum(axis=axis))

    interval = stats.bootstrap(
        (cost, right), cost_per_right, paired=True, confidence_level=0.9, n_resamples=20_000, method="BCa", rng=1
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=0.03)


def test_bootstrap_bounds_are_the_same_in_every_run_and_exact_for_constants() -> None:
    values = np.random.default_rng(7).normal(size=30)
    ones, clusters = np.ones(30), np.arange(30)
    assert ratio_bounds(values, ones, clusters, 0.95) == ratio_bounds(values, ones, clusters, 0.95)
    assert ratio_bounds(ones * 3, ones, clusters, 0.95) == (constant := ratio_bounds(ones * 3, ones, clusters, 0.9))
    assert constant.low == constant.high == 3.0


@pytest.mark.parametrize(
    ("tops", "bottoms"),
    [
        ([], []),
        ([1.0], [1.0]),
        ([1.0, 2.0, 3.0] * 2, [1.0] * 6),
        ([1.0, 2.0] * 9, [0.0] * 18),
        ([1.0] * 9, [1.0] + [0.0] * 8),
    ],
)
def test_ratios_that_are_undefined_or_rest_on_too_few_have_no_bounds(tops: list[float], bottoms: list[float]) -> None:
    found = ratio_bounds(np.array(tops), np.array(bottoms), np.arange(len(tops)), 0.95)
    assert (found.low, found.high) == (None, None)


def test_the_95th_percentile_has_an_upper_bound_from_59_values_on() -> None:
    assert quantile_with_bounds(np.arange(58.0), 0.95, 0.95)[1].high is None
    value, bounds = quantile_with_bounds(np.arange(59.0), 0.95, 0.95)
    assert bounds.high == 58.0
    assert value == math.ceil(0.95 * 59) - 1


@pytest.mark.parametrize(("n", "q"), [(20, 0.5), (20, 0.95), (101, 0.5), (400, 0.95)])
def test_quantile_bounds_have_the_binomial_coverage_that_they_promise(n: int, q: float) -> None:
    _, bounds = quantile_with_bounds(np.arange(1.0, n + 1), q, 0.95)
    if bounds.low is not None:
        rank = int(bounds.low)
        assert stats.binom.sf(rank - 1, n, q) >= 0.95 > stats.binom.sf(rank, n, q)
    if bounds.high is not None:
        rank = int(bounds.high)
        assert stats.binom.cdf(rank - 1, n, q) >= 0.95 > stats.binom.cdf(rank - 2, n, q)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 3), (1, 9), (9, 1), (0, 5), (40, 60)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar_p_value(gained, lost) == pytest.approx(expected, abs=1e-12)


def test_counts_scaled_to_an_effective_size_are_rounded_toward_no_difference() -> None:
    assert mcnemar_p_value(10.9, 1.1) == mcnemar_p_value(10, 2)
    assert mcnemar_p_value(1.1, 10.9) == mcnemar_p_value(2, 10)
    assert mcnemar_p_value(0.9, 0.0) == mcnemar_p_value(5.5, 5.5) == 1.0


def _score_statistic(gained: int, lost: int, n: int, difference: float) -> float:
    """Tango's statistic from first principles: the likelihood is maximised numerically under the difference."""

    def negative_log_likelihood(losing: float) -> float:
        winning, agreeing = losing + difference, 1 - 2 * losing - difference
        cells = [(gained, winning), (lost, losing), (n - gained - lost, agreeing)]
        return -sum(count * math.log(max(share, 1e-300)) for count, share in cells if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    losing = float(
        optimize.minimize_scalar(
            negative_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
        ).x
    )
    return (gained - lost - n * difference - 1) / math.sqrt(n * (2 * losing + difference * (1 - difference)))


@pytest.mark.parametrize(("gained", "lost", "n"), [(3, 8, 60), (12, 12, 160), (90, 4, 160), (1, 0, 25), (5, 2, 1000)])
def test_the_lower_bound_solves_the_score_equation_of_the_likelihood(gained: int, lost: int, n: int) -> None:
    low = difference_bounds(gained, lost, n, 0.95).low
    assert low is not None
    assert _score_statistic(gained, lost, n, low) == pytest.approx(stats.norm.ppf(0.95), abs=1e-3)


def test_full_agreement_still_leaves_room_for_a_loss() -> None:
    low = difference_bounds(0, 0, 160, 0.95).low
    assert low is not None
    assert -0.03 < low < -0.018, "the exact bound for no loss in 160 is 1 - 0.05^(1/160) = 1.9 %"


def test_the_facts_on_detectable_effects_are_reproduced() -> None:
    """FACTS.md: at 10 % discordance n = 200 detects 6.3 points and n = 1,000 detects 2.8, two-sided 5 %."""
    assert minimum_detectable_effect(200, 0.1, 0.975) == pytest.approx(0.063, abs=5e-4)
    assert minimum_detectable_effect(1000, 0.1, 0.975) == pytest.approx(0.028, abs=5e-4)


def test_the_detectable_effect_is_detected_with_80_percent_power() -> None:
    n, discordance = 400, 0.1
    effect = minimum_detectable_effect(n, discordance, 0.95)
    assert effect is not None
    shares = [(discordance - effect) / 2, (discordance + effect) / 2, 1 - discordance]
    gained, lost, _ = np.random.default_rng(11).multinomial(n, shares, size=20_000).T
    statistic = (lost - gained) / np.sqrt(np.maximum(gained + lost, 1))
    assert np.mean(statistic > stats.norm.ppf(0.95)) == pytest.approx(0.8, abs=0.04)


def test_few_items_can_detect_only_enormous_losses_even_when_all_agree() -> None:
    assert detectable_loss(0, 0, 1, 0.95) == 1.0
    five, many = detectable_loss(0, 0, 5, 0.95), detectable_loss(0, 0, 500, 0.95)
    assert five is not None
    assert many is not None
    assert five > 0.3 > 0.02 > many


def test_a_clear_improvement_needs_no_more_items_because_it_varies_little() -> None:
    gain, toss = detectable_loss(155, 0, 160, 0.95), detectable_loss(78, 77, 160, 0.95)
    assert gain is not None
    assert toss is not None
    assert gain < 0.05 < toss


def _closed_testing(p_values: Sequence[float]) -> list[float]:
    """Holm as the closed procedure of Bonferroni tests: every subset that holds a hypothesis must reject."""
    everything = range(len(p_values))
    subsets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(everything, size)]
    return [max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s) for i in everything]


@pytest.mark.parametrize("p_values", [[0.01], [0.01, 0.04, 0.03, 0.005], [0.5, 0.5], [1.0, 0.001, 0.02, 0.02, 0.9]])
def test_holm_is_the_closed_bonferroni_procedure(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(_closed_testing(p_values))
    assert holm([]) == ()


def test_bootstrap_bounds_do_not_depend_on_how_many_draws_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(8).lognormal(size=37)
    whole = ratio_bounds(values, np.ones(37), np.arange(37), 0.95)
    monkeypatch.setattr("ml_platform.evaluation.intervals.CELLS", 37 * 101)
    assert ratio_bounds(values, np.ones(37), np.arange(37), 0.95) == whole
