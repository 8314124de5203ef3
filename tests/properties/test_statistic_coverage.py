"""Bounds cover what they promise: by exact enumeration where it can be done, by seeded simulation elsewhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ml_platform.evaluation.intervals import effective_n, quantile_with_bounds, ratio_bounds, share_bounds
from ml_platform.evaluation.paired import detectable_loss, difference_bounds

SHARES = (0.001, 0.005, 0.02, 0.05, 0.08, 0.2, 0.3, 0.45, 0.9)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.975])
@pytest.mark.parametrize("n", [1, 2, 5, 12, 35])
def test_the_lower_bound_of_a_paired_difference_never_covers_less_than_promised(n: int, confidence: float) -> None:
    """All outcomes of n pairs are enumerated, so this is no estimate: Tango without correction fails it at 0.91."""
    outcomes = np.array(
        [[gained, lost, n - gained - lost] for gained in range(n + 1) for lost in range(n + 1 - gained)]
    )
    lows = np.array([difference_bounds(gained, lost, n, confidence).low for gained, lost, _ in outcomes])
    for winning in SHARES:
        for losing in SHARES:
            if winning + losing <= 1:
                chances = stats.multinomial.pmf(outcomes, n, [winning, losing, 1 - winning - losing])
                assert chances[lows <= winning - losing + 1e-9].sum() >= confidence


@pytest.mark.parametrize(("n", "winning", "losing"), [(160, 0.05, 0.05), (160, 0.9, 0.02), (1000, 0.02, 0.04)])
def test_the_lower_bound_covers_in_samples_of_the_size_that_we_use(n: int, winning: float, losing: float) -> None:
    drawn = np.random.default_rng(n).multinomial(n, [winning, losing, 1 - winning - losing], size=1_500)
    lows = [difference_bounds(int(gained), int(lost), n, 0.95).low for gained, lost, _ in drawn]
    covered = np.mean([low is not None and low <= winning - losing for low in lows])
    assert 0.945 <= covered <= 0.99


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_bounds_of_a_share_cover_when_items_of_an_entity_resemble_each_other(share: float) -> None:
    """40 entities of 5 items, intra-cluster correlation 1/3: counting every item fully covers only 0.87."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(40), 5)
    clustered, naive = 0, 0
    for _ in range(1_000):
        chance = rng.beta(2 * share, 2 * (1 - share), size=40)
        values = (rng.random(200) < chance[clusters]).astype(float)
        size = effective_n(values, clusters, 0.95)
        lows = (share_bounds(float(values.mean()) * size, size, 0.95).low, share_bounds(values.sum(), 200, 0.95).low)
        clustered += lows[0] is not None and lows[0] <= share
        naive += lows[1] is not None and lows[1] <= share
    assert clustered / 1_000 >= 0.93
    assert naive / 1_000 < 0.9, "the simulation would not notice the difference"


def test_bootstrap_bounds_of_a_skewed_mean_cover() -> None:
    rng = np.random.default_rng(3)
    covered = np.zeros(2)
    for _ in range(200):
        values = rng.gamma(2.0, size=60)
        bounds = ratio_bounds(values, np.ones(60), np.arange(60), 0.95)
        assert bounds.low is not None
        assert bounds.high is not None
        covered += [bounds.low <= 2.0, bounds.high >= 2.0]
    assert np.all(covered / 200 >= 0.90)


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_bounds_of_a_quantile_cover_whatever_the_distribution(q: float) -> None:
    rng = np.random.default_rng(9)
    truth = float(stats.pareto(1.5).ppf(q))
    bounds = [quantile_with_bounds(rng.pareto(1.5, size=100) + 1, q, 0.95)[1] for _ in range(1_500)]
    assert np.mean([one.low is not None and one.low <= truth for one in bounds]) >= 0.94
    assert np.mean([one.high is not None and one.high >= truth for one in bounds]) >= 0.94


counts = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 200)).filter(lambda c: sum(c) > 0)


@settings(max_examples=150, deadline=None)
@given(counts)
def test_worse_answers_never_raise_the_lower_bound(outcome: tuple[int, int, int]) -> None:
    gained, lost, agreed = outcome
    n = gained + lost + agreed
    bounds = difference_bounds(gained, lost, n, 0.95)
    assert bounds.low is not None
    assert bounds.high is not None
    assert -1 <= bounds.low <= (gained - lost) / n <= bounds.high <= 1
    mirrored = difference_bounds(lost, gained, n, 0.95)
    assert mirrored.high == pytest.approx(-bounds.low)
    if agreed:
        worse = difference_bounds(gained, lost + 1, n, 0.95).low
        assert worse is not None
        assert worse <= bounds.low + 1e-9
    if gained:
        worse = difference_bounds(gained - 1, lost, n, 0.95).low
        assert worse is not None
        assert worse <= bounds.low + 1e-9


@settings(max_examples=150, deadline=None)
@given(counts)
def test_the_detectable_loss_is_never_nothing_and_shrinks_with_more_of_the_same(outcome: tuple[int, int, int]) -> None:
    gained, lost, agreed = outcome
    n = gained + lost + agreed
    once, tenfold = detectable_loss(gained, lost, n, 0.95), detectable_loss(10 * gained, 10 * lost, 10 * n, 0.95)
    assert once is not None
    assert tenfold is not None
    assert 0 < tenfold <= once <= 1


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.51, 0.999))
def test_bounds_of_a_share_enclose_it_and_widen_with_confidence(case: tuple[int, int], confidence: float) -> None:
    successes, n = case
    inner, outer = share_bounds(successes, n, confidence), share_bounds(successes, n, (1 + confidence) / 2)
    values = [outer.low, inner.low, successes / n, inner.high, outer.high]
    assert values == sorted(value for value in values if value is not None)
