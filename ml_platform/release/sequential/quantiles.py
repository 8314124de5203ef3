"""Quantiles: bounds that hold at all looks at once, whatever the distribution."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.special import betainc

from ml_platform.release.sequential.rates import PRIOR, Floats, log_likelihood, log_mixture


def log_e_fewer(below: int, n: int, share: float) -> float:
    """The logarithm of the evidence that less than `share` of what is seen lies below a point, where `below` of n do.

    The likelihood mixed over all smaller shares t, with the density of Beta(PRIOR, PRIOR) cut off at `share`, against
    `share` itself; where the truth is `share` or more it is a supermartingale.
    """
    with np.errstate(divide="ignore"):
        kept = np.log(betainc(below + PRIOR, n - below + PRIOR, share)) - np.log(betainc(PRIOR, PRIOR, share))
    return float(log_mixture(below, n) + kept - log_likelihood(below, n, share))


def ranks(n: int, q: float, level: float) -> tuple[int | None, int | None]:
    """Which of n sorted values, counted from 1, bound their q quantile, each side at `level` and at all n at once.

    The k-th is a lower bound when k - 1 values at or below the quantile would refute that a share of at least q lies
    there; the upper one likewise with values below it. None while n is too small for any value to be one.
    Source: Howard & Ramdas 2019, arXiv 1906.09712, theorem 1, with the beta-binomial mixture of their section 3.
    """
    target = -math.log(level)
    few = _last(lambda k: log_e_fewer(k, n, q) >= target, math.ceil(n * q) - 1)
    many = _last(lambda k: log_e_fewer(k, n, 1.0 - q) >= target, math.ceil(n * (1.0 - q)) - 1)
    return (None if few is None else few + 1), (None if many is None else n - many)


def _last(true: Callable[[int], bool], largest: int) -> int | None:
    """The largest number from 0 on for which it is true, where it is true up to some number only; None for none."""
    if largest < 0 or not true(0):
        return None
    low, high = 0, largest + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if true(middle) else (low, middle)
    return low


def quantile_bounds(ordered: Floats, q: float, level: float) -> tuple[float | None, float | None, float | None]:
    """The q quantile of sorted values, and its bounds; None for what does not exist."""
    n = len(ordered)
    if n == 0:
        return None, None, None
    low, high = ranks(n, q, level)
    value = float(ordered[max(1, math.ceil(q * n)) - 1])
    return value, None if low is None else float(ordered[low - 1]), None if high is None else float(ordered[high - 1])


@cache
def users_for_bound(q: float, level: float) -> int:
    """How many values it takes until one of them is an upper bound of the q quantile."""
    n = 1
    while log_e_fewer(0, n, 1.0 - q) < -math.log(level):
        n = n + 1 + n // 16
    while n > 1 and log_e_fewer(0, n - 1, 1.0 - q) >= -math.log(level):
        n -= 1
    return n
