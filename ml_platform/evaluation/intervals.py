"""One-sided confidence bounds for shares, means, ratios and quantiles, honest about repeated entities."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Clusters = NDArray[np.int64]

RESAMPLES = 4_000
SEED = 20_130_331
FEWEST_CLUSTERS = 8
"""A bootstrap of fewer draws from too few values to be believed."""
CELLS = 1 << 20
"""So many draws are held in memory at once."""


@dataclass(frozen=True)
class Bounds:
    """A one-sided lower and a one-sided upper bound, each at the same confidence; None where none exists."""

    low: float | None
    high: float | None


def share_bounds(successes: float, n: float, confidence: float) -> Bounds:
    """Clopper-Pearson: each bound covers the true share with at least `confidence`, for every n and share.

    `n` may be an effective sample size and need not be whole (Korn & Graubard 1998). Source: Clopper
    & Pearson 1934 in the beta form of Brown, Cai & DasGupta 2001, eq. 10.
    """
    if n <= 0:
        return Bounds(None, None)
    low = 0.0 if successes <= 0 else float(stats.beta.ppf(1 - confidence, successes, n - successes + 1))
    high = 1.0 if successes >= n else float(stats.beta.ppf(confidence, successes + 1, n - successes))
    return Bounds(low, high)


def effective_n(values: Floats, clusters: Clusters, confidence: float) -> float:
    """How many independent items these items are worth when those of one cluster resemble each other.

    n divided by the design effect, which is never taken below 1, and shrunk by the ratio of t quantiles
    that pays for estimating it from few clusters (Korn & Graubard 1998). Where the values do not vary the
    design effect cannot be seen, and the number of clusters is taken. At least 1, at most n; 0 for no items.
    """
    n = len(values)
    _, members = np.unique(clusters, return_inverse=True)
    count = int(members.max()) + 1 if n else 0
    if count == n or n == 0:
        return float(n)
    mean = float(values.mean())
    plain = float(((values - mean) ** 2).sum()) / n / n
    if plain == 0.0 or count == 1:
        return float(count)
    sums = np.bincount(members, weights=values - mean, minlength=count)
    clustered = count / (count - 1) * float((sums**2).sum()) / n / n
    quantiles = stats.t.ppf(confidence, n - 1) / stats.t.ppf(confidence, count - 1)
    return float(min(n, max(1.0, n / max(1.0, clustered / plain) * quantiles**2)))


def ratio_bounds(numerators: Floats, denominators: Floats, clusters: Clusters, confidence: float) -> Bounds:
    """BCa bootstrap bounds of sum(numerators) / sum(denominators), drawing whole clusters; seeded.

    With denominators of 1 it is a mean. None where fewer than FEWEST_CLUSTERS clusters, or a resample without
    a denominator, leave it undefined. Source: Efron 1987, "Better bootstrap confidence intervals", eq. 6.6-6.8.
    """
    _, members = np.unique(clusters, return_inverse=True)
    tops, bottoms = (np.bincount(members, weights=part) for part in (numerators, denominators))
    count = len(tops)
    if count < FEWEST_CLUSTERS or bottoms.sum() == 0 or np.any(bottoms.sum() - bottoms == 0):
        return Bounds(None, None)
    value = tops.sum() / bottoms.sum()
    without = (tops.sum() - tops) / (bottoms.sum() - bottoms)
    if np.allclose(without, value, rtol=1e-12, atol=0.0):
        return Bounds(float(value), float(value))
    rng, resampled = np.random.default_rng(SEED), np.empty(RESAMPLES)
    rows = max(1, CELLS // count)
    for start in range(0, RESAMPLES, rows):
        draws = rng.integers(0, count, size=(min(rows, RESAMPLES - start), count))
        drawn = bottoms[draws].sum(axis=1)
        if np.any(drawn == 0):
            return Bounds(None, None)
        resampled[start : start + len(draws)] = tops[draws].sum(axis=1) / drawn
    resampled.sort()
    low, high = (_bca_quantile(resampled, float(value), without, q) for q in (1 - confidence, confidence))
    return Bounds(low, high)


def _bca_quantile(resampled: Floats, value: float, without: Floats, q: float) -> float:
    below = (np.sum(resampled < value) + np.sum(resampled <= value)) / 2 / len(resampled)
    bias = stats.norm.ppf(min(max(below, 1 / len(resampled)), 1 - 1 / len(resampled)))
    offsets = without.mean() - without
    skew = float((offsets**3).sum()) / (6.0 * float((offsets**2).sum()) ** 1.5)
    shifted = bias + stats.norm.ppf(q)
    adjusted = float(stats.norm.cdf(bias + shifted / (1 - skew * shifted)))
    return float(np.quantile(resampled, min(max(adjusted, 0.0), 1.0)))


def quantile_with_bounds(values: Floats, q: float, confidence: float) -> tuple[float | None, Bounds]:
    """The q quantile as the ceil(q n)-th smallest value, with distribution-free bounds that are values too.

    A bound is None when no observed value is extreme enough: the 95th percentile has an upper bound
    at 95 % confidence only from 59 values on. Source: David & Nagaraja 2003, Order Statistics, 7.1.
    """
    n = len(values)
    if n == 0:
        return None, Bounds(None, None)
    ordered = np.sort(values)
    ranks = np.arange(1, n + 1)
    lower = ranks[stats.binom.sf(ranks - 1, n, q) >= confidence]
    upper = ranks[stats.binom.cdf(ranks - 1, n, q) >= confidence]
    low = float(ordered[lower[-1] - 1]) if len(lower) else None
    high = float(ordered[upper[0] - 1]) if len(upper) else None
    return float(ordered[max(1, math.ceil(q * n)) - 1]), Bounds(low, high)
