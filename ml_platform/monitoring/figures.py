"""Figures of a window: shares, quantiles and means of one arm, with bounds that respect who asked often; pure."""

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ml_platform.evaluation.intervals import Bounds, effective_n, quantile_with_bounds, share_bounds

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
CONFIDENCE = 0.95
FEWEST_USERS = 8
"""The spread of fewer users' answers says too little for bounds of a mean."""


@dataclass
class Column:
    """Values of one kind, and the number of the user of each."""

    users: "array[int]" = field(default_factory=lambda: array("l"))
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, user: int, value: float) -> None:
        """One more answer."""
        self.users.append(user)
        self.values.append(value)

    def arrays(self) -> tuple[Floats, Integers]:
        """Values and users; copies."""
        return np.array(self.values, dtype=np.float64), np.array(self.users, dtype=np.int64)


@dataclass(frozen=True)
class Figure:
    """A value with its one-sided bounds, of so many answers by so many users; None where nothing counts."""

    value: float | None
    low: float | None
    high: float | None
    answers: int
    users: int


def share_of(column: Column, confidence: float = CONFIDENCE) -> Figure:
    """The share of ones. Clopper-Pearson on the effective number of answers: ten of one user are not ten."""
    values, users = column.arrays()
    n = effective_n(values, users, confidence)
    value = float(values.mean()) if len(values) else None
    return _figure(value, share_bounds((value or 0.0) * n, n, confidence), column)


def quantile_of(column: Column, q: float) -> Figure:
    """A quantile, with distribution-free bounds."""
    values, _ = column.arrays()
    value, bounds = quantile_with_bounds(values, q, CONFIDENCE)
    return _figure(value, bounds, column)


def mean_of(column: Column) -> Figure:
    """The mean, with bounds by the spread between users (the sandwich of a ratio of sums, Cochran 1977, 6.4)."""
    values, users = column.arrays()
    if not len(values):
        return _figure(None, Bounds(None, None), column)
    mean = float(values.mean())
    _, members = np.unique(users, return_inverse=True)
    count = int(members.max()) + 1
    if count < FEWEST_USERS:
        return _figure(mean, Bounds(None, None), column)
    from scipy import stats

    sums = np.bincount(members, weights=values - mean, minlength=count)
    error = float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(values))
    reach = float(stats.t.ppf(CONFIDENCE, count - 1)) * error
    return _figure(mean, Bounds(mean - reach, mean + reach), column)


def _figure(value: float | None, bounds: Bounds, column: Column) -> Figure:
    return Figure(value, bounds.low, bounds.high, len(column.values), len(set(column.users)))
