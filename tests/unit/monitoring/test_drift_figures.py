"""Figures and the second opinion of columns whose type changed between the reference and now."""

import numpy as np
import pandas as pd
import pytest

from ml_platform.contracts.drift import DriftPart
from ml_platform.monitoring.drift.columns import Table, compare_table, corrected
from ml_platform.monitoring.drift.distances import Blocks
from ml_platform.monitoring.drift.evidently_page import second_opinion
from ml_platform.monitoring.drift.figures import then_and_now
from tests.samples.monitoring import monitor_policy

POLICY, PART = monitor_policy().drift, DriftPart.TABLES


def of_numbers_and(now: list[str]) -> Table:
    numbers = np.random.default_rng(1).normal(size=200)
    return Table("rows", pd.DataFrame({"x": numbers}), pd.DataFrame({"x": now}), Blocks(), ("x",))


@pytest.mark.parametrize("now", [["unknown"] * 200, [*["unknown"] * 80, *map(str, range(120))]])
def test_numbers_that_come_as_text_are_drawn_as_far_as_they_can_be_read(now: list[str]) -> None:
    drawn = then_and_now(of_numbers_and(now), "x")
    assert drawn is not None
    assert "nan" not in drawn.svg()


def test_the_second_opinion_is_of_the_numbers_that_can_be_read() -> None:
    table = of_numbers_and([*["unknown"] * 80, *map(str, range(120))])
    columns = corrected(compare_table(PART, table, POLICY, 3), POLICY)
    scores, _ = second_opinion(columns, {(PART, "rows"): table}, POLICY, 3, page=False)
    assert scores["tables.rows.x"] > 1


def test_the_second_opinion_takes_tables_of_different_lengths() -> None:
    generator = np.random.default_rng(2)
    tables = {
        (PART, name): Table(
            name,
            pd.DataFrame({"x": generator.normal(size=rows), "kind": ["a", "b"] * (rows // 2)}),
            pd.DataFrame({"x": generator.normal(3, size=rows + 20), "kind": ["a", "b"] * (rows // 2 + 10)}),
            Blocks(),
            ("x", "kind"),
        )
        for name, rows in {"flights": 200, "weather": 340}.items()
    }
    columns = [one for table in tables.values() for one in compare_table(PART, table, POLICY, 3)]
    scores, _ = second_opinion(corrected(columns, POLICY), tables, POLICY, 3, page=False)
    assert {name for name, score in scores.items() if score > 1} == {"tables.flights.x", "tables.weather.x"}
