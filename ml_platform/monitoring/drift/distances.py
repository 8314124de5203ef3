"""Distances of two samples that do not depend on their sizes, and how surprising they would be without drift; pure.

Rows of one day (or one user) resemble one another, so they count for less than as many independent ones. The design
effect says for how much less (Kish 1965): it is estimated per column from how much its blocks differ, by the
Kruskal-Wallis statistic for numbers and by the chi-square of blocks x categories for categories (Rao & Scott 1981).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

FLOOR = 1e-3
"""The least share of a category in PSI: a new one counts for much, but not the more the more rows there are."""

_HUGE = 1e100
BRIDGES, STEPS = 20_000, 255
"""Simulated Brownian bridges, for p-values of Wasserstein's distance down to 1 in 20,000."""


@dataclass(frozen=True)
class Blocks:
    """How rows hang together: the block of each row, None where rows are independent."""

    of_reference: Integers | None = None
    of_current: Integers | None = None


@dataclass(frozen=True)
class Found:
    """One distance, and the chance of so large a one without drift."""

    effect: float
    p_value: float


def kolmogorov_smirnov(reference: Numbers, current: Numbers, rows: float) -> Found:
    """The greatest difference of the distribution functions, with Kolmogorov's asymptotic p-value.

    `rows` is the harmonic sum of effective sizes, nm / (n + m); with ties the p-value is too large, never too small.
    """
    from scipy import special

    both = np.sort(np.concatenate([reference, current]))
    difference = _cumulative(reference, both) - _cumulative(current, both)
    effect = float(np.abs(difference).max())
    return Found(effect, float(special.kolmogorov(np.sqrt(rows) * effect)))


def wasserstein(reference: Numbers, current: Numbers, rows: float, matters: float = 0.0) -> Found:
    """The mean distance that values moved, in standard deviations of the reference.

    A thousandth of all values at either end is drawn in first: one absurd measurement must not stand for the column.
    Under no drift, sqrt(rows) times the difference of the distribution functions tends to a Brownian bridge
    over the pooled distribution (del Barrio, Giné & Matrán 1999), which is simulated. An effect below `matters` is not
    worth that: its p-value is 1.
    """
    pooled = np.concatenate([reference, current])
    if (largest := float(np.abs(pooled).max())) > _HUGE:
        # The unit does not matter, and squares of such numbers are no numbers.
        reference, current, pooled = (part / largest for part in (reference, current, pooled))
    low, high = np.quantile(pooled, [0.001, 0.999])
    reference, current, pooled = (np.clip(part, low, high) for part in (reference, current, pooled))
    scale = float(reference.std()) or float(pooled.std()) or 1.0
    both = np.sort(pooled)
    difference = np.abs(_cumulative(reference, both) - _cumulative(current, both))[:-1]
    effect = float(difference @ np.diff(both)) / scale
    if effect < matters:
        return Found(effect, 1.0)
    edges = np.quantile(both, np.linspace(0.0, 1.0, STEPS + 1), method="lower")
    null = _bridges() @ (np.diff(edges) / scale).astype(np.float32)
    beyond = int((null >= np.sqrt(rows) * effect - 1e-12).sum())
    return Found(effect, (beyond + 1) / (BRIDGES + 1))


def population_stability(reference: Integers, current: Integers, rows: float, bias: float) -> Found:
    """PSI over categories (counts of each), less what chance alone adds to it, with a chi-square p-value.

    Without drift the expectation of PSI is (categories - 1) (1/n + 1/m); `bias` is 1/n + 1/m of the effective sizes.
    """
    from scipy import stats

    p, q = (np.maximum(counts / counts.sum(), FLOOR) for counts in (reference, current))
    p, q = p / p.sum(), q / q.sum()
    freedom = len(p) - 1
    if freedom == 0:
        return Found(0.0, 1.0)
    effect = max(0.0, float(((p - q) * np.log(p / q)).sum()) - freedom * bias)
    raw, other = reference / reference.sum(), current / current.sum()
    pooled = (reference + current) / (reference.sum() + current.sum())
    chi_square = rows * float((((raw - other) ** 2) / np.maximum(pooled, 1e-12)).sum())
    return Found(effect, float(stats.chi2.sf(chi_square, freedom)))


def variance_between(reference: Vectors, current: Vectors, sizes: tuple[float, float]) -> Found:
    """The share of the variance of vectors that lies between two samples of equal weight, 0 to 1, without bias.

    `sizes` are the effective ones. The squared distance of the means is, without drift, a weighted sum of chi-squares;
    its p-value takes the scaled chi-square with the same mean and variance (Satterthwaite 1946).
    """
    from scipy import stats

    inside = [part - part.mean(axis=0) for part in (reference.astype(float), current.astype(float))]
    covariance = sum(part.T @ part for part in inside) / max(1, sum(len(part) for part in inside) - 2)
    within = float(np.trace(covariance))
    chance = 1.0 / sizes[0] + 1.0 / sizes[1]
    apart = float(((reference.mean(axis=0) - current.mean(axis=0)) ** 2).sum())
    if within == 0.0:
        return Found(float(apart > 0.0), float(apart == 0.0))
    between = max(0.0, apart - within * chance) / 4.0
    squares = float((covariance**2).sum())
    p_value = float(stats.chi2.sf(apart * within / (chance * squares), within**2 / squares))
    return Found(between / (between + within), p_value)


def effective_rows(size: int, resemblance: float, block: Integers | None) -> float:
    """So many independent rows a sample is worth, given how much rows of one block resemble each other (0 to 1)."""
    typical = 1.0 if block is None else float((np.bincount(block).astype(float) ** 2).sum()) / max(1, size)
    return size / (1.0 + max(0.0, typical - 1.0) * resemblance)


def resemblance_of_numbers(values: Numbers, block: Integers | None) -> float:
    """The intraclass correlation of ranks within blocks, 0 to 1; 0 for fewer than three blocks."""
    from scipy import stats

    if block is None or len(sizes := _sizes(block)) < 3:
        return 0.0
    ranks = stats.rankdata(values)
    ranks -= ranks.mean()
    total = float(ranks @ ranks)
    if total == 0.0:
        return 0.0
    sums = np.bincount(block, weights=ranks)[np.bincount(block) > 0]
    between = float((sums**2 / sizes).sum())
    return _intraclass((len(values) - 1) * between / total / (len(sizes) - 1), sizes)


def resemblance_of_categories(codes: Integers, categories: int, block: Integers | None) -> float:
    """The mean intraclass correlation of the categories within blocks, 0 to 1; 0 for fewer than three blocks."""
    if block is None or categories < 2 or len(sizes := _sizes(block)) < 3:
        return 0.0
    _, place = np.unique(block, return_inverse=True)
    table = np.zeros((len(sizes), categories))
    np.add.at(table, (place, codes), 1.0)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 0.0
    expected = np.outer(sizes, table.sum(axis=0)) / len(codes)
    chi_square = float(((table - expected) ** 2 / expected).sum())
    return _intraclass(chi_square / ((len(sizes) - 1) * (table.shape[1] - 1)), sizes)


def resemblance_of_vectors(vectors: Vectors, block: Integers | None) -> float:
    """The intraclass correlation of vectors within blocks, over all their dimensions, 0 to 1; 0 below three blocks."""
    if block is None or len(sizes := _sizes(block)) < 3:
        return 0.0
    centred = vectors.astype(float) - vectors.mean(axis=0)
    total = float((centred**2).sum())
    if total == 0.0:
        return 0.0
    _, place = np.unique(block, return_inverse=True)
    sums = np.zeros((len(sizes), vectors.shape[1]))
    np.add.at(sums, place, centred)
    between = float(((sums**2).sum(axis=1) / sizes).sum())
    return _intraclass((len(vectors) - 1) * between / total / (len(sizes) - 1), sizes)


def holm(p_values: Numbers) -> Numbers:
    """P-values corrected so that the chance of any false finding stays below alpha (Holm 1979)."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(count, 0, -1))
    corrected = np.empty(count)
    corrected[order] = np.minimum(1.0, stepped)
    return corrected


def _cumulative(sample: Numbers, at: Numbers) -> Numbers:
    found: Numbers = np.searchsorted(np.sort(sample), at, side="right") / len(sample)
    return found


def _sizes(block: Integers) -> Numbers:
    sizes = np.bincount(block)
    return sizes[sizes > 0].astype(float)


def _intraclass(design_effect: float, sizes: Numbers) -> float:
    typical = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(sizes) - 1)
    return 0.0 if typical <= 1.0 else float(np.clip((design_effect - 1.0) / (typical - 1.0), 0.0, 1.0))


@lru_cache(maxsize=1)
def _bridges() -> npt.NDArray[np.float32]:
    """Absolute values of Brownian bridges at the middles of STEPS equal steps, the same ones every time."""
    normals = np.random.Generator(np.random.PCG64(20130331)).standard_normal((BRIDGES, 2 * STEPS), dtype=np.float32)
    walk = np.cumsum(normals, axis=1) / np.float32(np.sqrt(2 * STEPS))
    ends = walk[:, -1:] * (np.arange(1, 2 * STEPS + 1, dtype=np.float32) / np.float32(2 * STEPS))
    bridges: npt.NDArray[np.float32] = np.ascontiguousarray(np.abs(walk - ends)[:, ::2])
    return bridges
