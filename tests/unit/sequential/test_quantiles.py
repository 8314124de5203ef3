"""Bounds of quantiles: exact chances of error, and an independent package beside them."""

import math

import numpy as np
import pytest
import ville
from scipy import stats

from ml_platform.release.sequential.quantiles import log_e_fewer, quantile_bounds, ranks, users_for_bound


@pytest.mark.parametrize(("n", "share"), [(1, 0.95), (7, 0.5), (60, 0.95), (60, 0.05)])
def test_expected_evidence_that_fewer_lie_below_is_one_at_most_where_no_fewer_do(n: int, share: float) -> None:
    counts = np.arange(n + 1)
    evidence = np.exp([log_e_fewer(int(count), n, share) for count in counts])
    assert (stats.binom.pmf(counts, n, share) * evidence).sum() == pytest.approx(1.0)
    assert (stats.binom.pmf(counts, n, share + (1 - share) / 2) * evidence).sum() < 1.0


def test_evidence_falls_as_more_lie_below() -> None:
    evidence = [log_e_fewer(below, 200, 0.9) for below in range(201)]
    assert evidence == sorted(evidence, reverse=True)


def test_evidence_stays_a_number_for_many_values() -> None:
    assert log_e_fewer(1_000_000, 1_000_000, 0.5) == -math.inf
    assert log_e_fewer(0, 1_000_000, 0.5) > 600_000


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_bounds_hold_at_all_of_500_looks(q: float) -> None:
    """Exact: how many values lie below the quantile is a sum of coin tosses, followed until a bound is wrong."""
    n, level, alive, ever, usual, alive_usual = 500, 0.1, np.array([1.0]), 0.0, 0.0, np.array([1.0])
    for seen in range(1, n + 1):
        low, high = ranks(seen, q, level)
        counts = np.arange(seen + 1)
        above = counts < low if low is not None else np.zeros(seen + 1, dtype=bool)
        below = counts >= high if high is not None else np.zeros(seen + 1, dtype=bool)
        alive = np.convolve(alive, [1 - q, q])
        ever += float(alive[above | below].sum())
        alive = np.where(above | below, 0.0, alive)
        tails = np.minimum(stats.binom.cdf(counts, seen, q), stats.binom.sf(counts - 1, seen, q)) <= level
        alive_usual = np.convolve(alive_usual, [1 - q, q])
        usual += float(alive_usual[tails].sum())
        alive_usual = np.where(tails, 0.0, alive_usual)
    assert ever <= 2 * level
    assert usual > 3 * level, "the calculation would not notice bounds that hold at one look only"


@pytest.mark.parametrize(("n", "q"), [(30, 0.5), (400, 0.9), (400, 0.95), (3_000, 0.5), (3_000, 0.95)])
def test_bounds_lie_within_those_of_ville_or_close_by(n: int, q: float) -> None:
    """That package mixes normal distributions with the variance of a fair coin: wide, far from the median."""
    low, high = ranks(n, q, 0.025)
    theirs = ville.QuantileCS(q, 0.05, intersect=False).fit(np.arange(1.0, n + 1)).interval()
    slack = 0.4 * math.sqrt(n)
    assert (0 if low is None else low) >= theirs[0] - slack
    assert (math.inf if high is None else high) <= theirs[1] + slack


def test_bounds_of_values_with_ties_are_values_that_were_seen() -> None:
    ordered = np.sort(np.repeat([1.0, 2.0, 50.0], [500, 400, 100]))
    assert quantile_bounds(ordered, 0.5, 0.05) == (1.0, 1.0, 2.0)
    value, low, high = quantile_bounds(ordered, 0.95, 0.05)
    assert (value, low, high) == (50.0, 50.0, 50.0)


def test_nothing_seen_has_no_quantile() -> None:
    assert quantile_bounds(np.zeros(0), 0.95, 0.05) == (None, None, None)


@pytest.mark.parametrize(("q", "level"), [(0.5, 0.05), (0.95, 0.025), (0.99, 0.001)])
def test_so_many_values_and_no_fewer_have_an_upper_bound(q: float, level: float) -> None:
    n = users_for_bound(q, level)
    assert ranks(n, q, level)[1] == n
    assert ranks(n - 1, q, level)[1] is None
