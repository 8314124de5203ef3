"""Trailing windows against the slowest and plainest program that says the same."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.contracts.feature_spec import AggregateSpec
from ml_platform.features.trailing import GridRows, KnownRows, trailing_features, window_us

FUNCTIONS = ("mean", "count", "sum", "min", "max")
HOUR = 3_600_000_000

Row = tuple[int, int, float]


def aggregate(function: str, hours: float) -> AggregateSpec:
    return AggregateSpec.model_validate({"function": function, "column": "x", "window_hours": hours})


def known(rows: list[Row]) -> KnownRows:
    rows = sorted(rows, key=lambda row: row[:2])
    entity, time, value = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    return KnownRows(np.array(entity, np.int64), np.array(time, np.int64), {"x": np.array(value, np.float64)})


def as_mapping(grid: GridRows) -> dict[tuple[int, int], dict[str, float | None]]:
    return {
        (int(entity), int(time)): {
            name: None if math.isnan(values[i]) else float(values[i]) for name, values in grid.features.items()
        }
        for i, (entity, time) in enumerate(zip(grid.entity, grid.time_us, strict=True))
    }


def plain_value(function: str, values: list[float]) -> float | None:
    if function == "count":
        return float(len(values))
    if not values:
        return None
    if function in ("min", "max"):
        return {"min": min, "max": max}[function](values)
    total = math.fsum(values)
    return total / len(values) if function == "mean" else total


def plain_features(
    rows: list[Row], aggregates: dict[str, AggregateSpec], every: int, until: int
) -> dict[tuple[int, int], dict[str, float | None]]:
    """Each grid point of each entity by itself: rows where some window holds something, and one to close."""
    longest = max(window_us(spec) for spec in aggregates.values())
    found = {}
    for entity in {row[0] for row in rows}:
        mine = [row for row in rows if row[0] == entity]
        first = min(row[1] for row in mine)
        latest = min(until, max(row[1] for row in mine) + longest + every)
        for step in range(first // every, latest // every + 1):
            time = step * every
            within = {
                name: [row for row in mine if time - window_us(spec) < row[1] <= time]
                for name, spec in aggregates.items()
            }
            just_emptied = any(time - every - longest < row[1] <= time for row in mine)
            if just_emptied:
                found[entity, time] = {
                    name: plain_value(spec.function, [row[2] for row in within[name] if not math.isnan(row[2])])
                    for name, spec in aggregates.items()
                }
    return found


TIMES = st.integers(-3 * HOUR, 12 * HOUR) | st.integers(-12, 48).map(lambda quarter: quarter * HOUR // 4)
VALUES = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, math.nan])
ROWS = st.lists(st.tuples(st.integers(0, 2), TIMES, VALUES), max_size=40).map(
    lambda rows: [(sorted({row[0] for row in rows}).index(entity), time, value) for entity, time, value in rows]
)


@settings(max_examples=300, deadline=None)
@given(
    rows=ROWS,
    windows=st.tuples(*[st.sampled_from([0.25, 0.4, 1.0, 3.0]) for _ in FUNCTIONS]),
    quarters=st.integers(1, 6),
    until=st.integers(-HOUR, 16 * HOUR),
)
def test_windows_equal_the_plain_program(
    rows: list[Row], windows: tuple[float, ...], quarters: int, until: int
) -> None:
    rows = [row for row in rows if row[1] <= until]
    aggregates = {name: aggregate(name, hours) for name, hours in zip(FUNCTIONS, windows, strict=True)}
    every = quarters * HOUR // 4
    fast = as_mapping(trailing_features(known(rows), aggregates, every, until))
    plain = plain_features(rows, aggregates, every, until)
    assert fast.keys() == plain.keys()
    for key, values in plain.items():
        for name, value in values.items():
            if value is None:
                assert fast[key][name] is None
            else:
                assert fast[key][name] == pytest.approx(value, rel=1e-12, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, split=TIMES, later=TIMES)
def test_what_becomes_known_later_never_changes_an_earlier_row(rows: list[Row], split: int, later: int) -> None:
    aggregates = {name: aggregate(name, 2.0) for name in FUNCTIONS}
    until, end = min(split, later), max(split, later)
    earlier = [row for row in rows if row[1] <= until]
    numbers = sorted({row[0] for row in rows})
    with_all = trailing_features(known(rows), aggregates, HOUR, end)
    # Entities that appear later are numbered among those known before: compare with the same numbers.
    with_earlier = trailing_features(known(earlier), aggregates, HOUR, until)
    now = {key: value for key, value in as_mapping(with_all).items() if key[1] <= until}
    assert now == as_mapping(with_earlier)
    assert numbers == list(range(len(numbers)))


def test_a_window_includes_its_end_and_excludes_its_beginning() -> None:
    rows = [(0, 0, 5.0), (0, HOUR, 7.0)]
    grid = as_mapping(trailing_features(known(rows), {"sum": aggregate("sum", 1.0)}, HOUR, 3 * HOUR))
    assert grid == {(0, 0): {"sum": 5.0}, (0, HOUR): {"sum": 7.0}, (0, 2 * HOUR): {"sum": None}}


def test_an_emptied_window_is_closed_once() -> None:
    rows = [(0, 10, 1.0), (0, 20 * HOUR, 2.0)]
    aggregates = {"mean": aggregate("mean", 2.0), "count": aggregate("count", 2.0)}
    grid = as_mapping(trailing_features(known(rows), aggregates, HOUR, 21 * HOUR))
    assert grid == {
        (0, HOUR): {"mean": 1.0, "count": 1.0},
        (0, 2 * HOUR): {"mean": 1.0, "count": 1.0},
        (0, 3 * HOUR): {"mean": None, "count": 0.0},
        (0, 20 * HOUR): {"mean": 2.0, "count": 1.0},
        (0, 21 * HOUR): {"mean": 2.0, "count": 1.0},
    }


def test_an_absurd_value_leaves_no_trace_once_it_has_left_the_window() -> None:
    rows = [(0, 0, 1e300), (0, 5 * HOUR, 0.1), (0, 5 * HOUR + 1, 0.2)]
    grid = as_mapping(trailing_features(known(rows), {"sum": aggregate("sum", 1.0)}, HOUR, 6 * HOUR))
    assert grid[0, 6 * HOUR] == {"sum": 0.2}
    assert grid[0, 5 * HOUR] == {"sum": 0.1}


def test_no_rows_make_no_features() -> None:
    grid = trailing_features(known([]), {"sum": aggregate("sum", 1.0)}, HOUR, HOUR)
    assert len(grid.entity) == 0
