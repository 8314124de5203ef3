"""Trailing windows: what was known at each point of a fixed grid, for every entity at once; pure arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_platform.contracts.feature_spec import AggregateSpec

HOUR_US = 3_600_000_000
DECIMALS = 6

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class KnownRows:
    """Source rows sorted by entity and then by the time at which they became known.

    `entity` numbers the entities from 0, `known_us` is in microseconds since the epoch, `columns` are
    the aggregated columns with NaN for empty cells; all have shape (rows,).
    """

    entity: Integers
    known_us: Integers
    columns: Mapping[str, Numbers]


@dataclass(frozen=True)
class GridRows:
    """Features on the grid, sorted by entity and time; NaN stands for "nothing was known"."""

    entity: Integers
    time_us: Integers
    features: Mapping[str, Numbers]


def trailing_features(
    rows: KnownRows, aggregates: Mapping[str, AggregateSpec], every_us: int, until_us: int
) -> GridRows:
    """Every aggregate over the rows with known time in (grid time - window, grid time], up to `until_us`.

    The grid is the multiples of `every_us` since the epoch. A row stands where the longest window holds
    a source row; where it has just become empty, one closing row (counts 0, everything else NaN) ends
    the last value. So the newest row at or before a moment always tells what the window at that grid
    time held. Each window is summed by itself: neither older nor later rows touch its digits.
    """
    windows = {name: window_us(spec) for name, spec in aggregates.items()}
    entity, time_us = _grid(rows, max(windows.values()), every_us, until_us)
    features = {}
    for name, spec in aggregates.items():
        filled = ~np.isnan(rows.columns[spec.column])
        order = _Order(rows.entity[filled], rows.known_us[filled])
        begin, end = order.position(entity, time_us - windows[name]), order.position(entity, time_us)
        features[name] = _reduce(spec.function, rows.columns[spec.column][filled], begin, end)
    return GridRows(entity, time_us, features)


def window_us(spec: AggregateSpec) -> int:
    """The length of a window in microseconds."""
    return round(spec.window_hours * HOUR_US)


def _grid(rows: KnownRows, longest_us: int, every_us: int, until_us: int) -> tuple[Integers, Integers]:
    """Entity and time of every row of the result.

    A source row makes the windows non-empty from the first grid point at or after it to the last one
    before its window has passed; the point after that closes. Both ends grow with the known time, so
    each row only adds the points beyond those of its predecessor.
    """
    first = -(-rows.known_us // every_us)
    closing = np.minimum(-(-(rows.known_us + longest_us) // every_us), until_us // every_us)
    same_entity = np.zeros(len(first), bool)
    same_entity[1:] = rows.entity[1:] == rows.entity[:-1]
    first[1:] = np.where(same_entity[1:], np.maximum(first[1:], closing[:-1] + 1), first[1:])
    count = np.maximum(closing - first + 1, 0)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(rows.entity, count), (np.repeat(first, count) + within) * every_us


class _Order:
    """Answers how many rows precede a moment, counting all rows of the entities before.

    Times are replaced by their rank, so that entity and time fit one integer.
    """

    def __init__(self, entity: Integers, known_us: Integers) -> None:
        self._times, rank = np.unique(known_us, return_inverse=True)
        self._stride = len(self._times) + 1
        self._keys = entity * self._stride + rank

    def position(self, entity: Integers, time_us: Integers) -> Integers:
        """The index of the first row of the entity that became known after the moment."""
        rank = np.searchsorted(self._times, time_us, side="right")
        return np.searchsorted(self._keys, entity * self._stride + rank, side="left")


def _reduce(function: str, values: Numbers, begin: Integers, end: Integers) -> Numbers:
    count = (end - begin).astype(np.float64)
    if function == "count":
        return count
    result = np.full(len(begin), np.nan)
    some = end > begin
    if not some.any():
        return result
    # reduceat takes [begin, end) from every second pair; the sentinel lets `end` equal the length.
    edges = np.stack([begin[some], end[some]], axis=1).ravel()
    operation = {"mean": np.add, "sum": np.add, "min": np.minimum, "max": np.maximum}[function]
    result[some] = operation.reduceat(np.append(values, 0.0), edges)[::2]
    if function == "mean":
        result[some] /= count[some]
    # Adding zero turns -0.0 into 0.0; extremes are values of the source and keep all their digits.
    return result if function in {"min", "max"} else np.round(result, DECIMALS) + 0.0
