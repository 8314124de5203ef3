"""Columns compared: what moved is found, what did not is let alone, and what cannot be told is not guessed."""

import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_platform.contracts.drift import ColumnDrift, DriftPart, Moved
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import DriftPolicy
from ml_platform.monitoring.drift.columns import Table, compare_slices, compare_table, corrected
from ml_platform.monitoring.drift.distances import Blocks
from ml_platform.monitoring.drift.judging import judge_part, overall
from tests.samples.monitoring import monitor_policy

POLICY = monitor_policy().drift
PART = DriftPart.TABLES


def compared(
    reference: dict[str, Any], current: dict[str, Any], blocks: Blocks | None = None, policy: DriftPolicy = POLICY
) -> dict[str, ColumnDrift]:
    left, right = pd.DataFrame(reference), pd.DataFrame(current)
    table = Table("rows", left, right, blocks or Blocks(), tuple(left.columns))
    return {one.column: one for one in corrected(compare_table(PART, table, policy, 3), policy)}


def numbers(rows: int, seed: int = 0, **normal: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(normal.get("mean", 0.0), normal.get("spread", 1.0), rows)


def words(rows: int, shares: dict[str, float], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(list(shares), rows, p=list(shares.values()))


def test_a_shift_a_spread_and_a_tail_are_found_and_nothing_is_found_where_nothing_moved() -> None:
    tail = numbers(4000, 4)
    tail[:100] += 30
    found = compared(
        {"same": numbers(4000, 1), "shift": numbers(4000, 2), "spread": numbers(4000, 3), "tail": numbers(4000, 9)},
        {
            "same": numbers(4000, 5),
            "shift": numbers(4000, 6, mean=0.5),
            "spread": numbers(4000, 7, spread=2),
            "tail": tail,
        },
    )
    assert {name: one.moved for name, one in found.items()} == {
        "same": Moved.STEADY,
        "shift": Moved.DRIFTED,
        "spread": Moved.DRIFTED,
        "tail": Moved.DRIFTED,
    }
    assert found["tail"].method == "wasserstein"
    assert found["tail"].distances.ks < POLICY.ks
    assert "drift from 0.2; p = " in found["tail"].reason


def test_categories_that_are_new_vanish_or_change_their_share_are_found_and_named() -> None:
    usual = {"a": 0.5, "b": 0.3, "c": 0.2}
    found = compared(
        {"same": words(3000, usual, 1), "new": words(3000, usual, 2), "gone": words(3000, usual, 3)},
        {
            "same": words(3000, usual, 4),
            "new": words(3000, {"a": 0.4, "b": 0.2, "c": 0.2, "d": 0.15, "e": 0.05}, 5),
            "gone": words(3000, {"a": 0.7, "b": 0.3}, 6),
        },
    )
    assert [found[name].moved for name in ("same", "new", "gone")] == [Moved.STEADY, Moved.DRIFTED, Moved.DRIFTED]
    assert found["new"].new_values == ("d", "e")
    assert found["new"].new_share == pytest.approx(0.2, abs=0.03)
    assert found["same"].new_values == ()
    assert found["new"].method == "psi"
    assert found["same"].reference_value.startswith("a 5")


def test_a_category_that_was_rare_and_not_drawn_is_no_new_one() -> None:
    reference = ["common"] * 20_000 + ["rare"]
    found = compared({"kind": reference}, {"kind": ["common"] * 190 + ["rare"] * 10})
    assert found["kind"].new_values == ()


def test_thousands_of_categories_are_not_drift_for_being_many() -> None:
    draw = np.random.default_rng(1)
    routes = [f"route {number}" for number in range(300)]
    found = compared({"route": draw.choice(routes, 5000)}, {"route": draw.choice(routes, 2000)})
    assert found["route"].moved is Moved.STEADY


def test_what_names_rows_says_nothing_of_their_kind() -> None:
    found = compared({"id": [f"P{n}" for n in range(500)]}, {"id": [f"Q{n}" for n in range(500)]})
    assert found["id"].moved is Moved.NOT_TESTED
    assert found["id"].reason == "names rows: 500 distinct values in the reference"


def test_what_names_rows_does_so_however_few_of_them_are_drawn() -> None:
    routes = {"route": [f"route {n % 900}" for n in range(5000)]}
    few = POLICY.model_copy(update={"sample_rows": 500})
    for policy in (POLICY, few):
        assert compared(routes, routes, policy=policy)["route"].moved is Moved.STEADY
    named = {"id": [f"P{n}" for n in range(5000)]}
    for policy in (POLICY, few):
        assert compared(named, named, policy=policy)["id"].reason.startswith("names rows: 5,000 distinct values")


def test_names_of_rows_that_are_no_longer_there_are_found() -> None:
    found = compared({"id": [f"P{n}" for n in range(500)]}, {"id": [None] * 500})
    assert (found["id"].moved, found["id"].method) == (Moved.DRIFTED, "missing")


def test_one_long_text_among_short_ones_needs_no_room_for_all() -> None:
    tracemalloc.start()
    found = compared({"kind": ["a", "b"] * 1000}, {"kind": [*["a", "b"] * 1000, "z" * 20_000]})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["kind"].moved is Moved.STEADY
    assert found["kind"].new_share == pytest.approx(1 / 2001)
    assert most < 20e6


@pytest.mark.parametrize("rows", [0, 29])
def test_an_empty_window_and_one_of_too_few_rows_prove_nothing(rows: int) -> None:
    found = compared({"x": numbers(500), "y": ["a", "b"] * 250}, {"x": numbers(rows), "y": (["a", "b"] * 250)[:rows]})
    assert {one.moved for one in found.values()} == {Moved.NOT_TESTED}
    judged = judge_part(PART, list(found.values()), POLICY)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert f"{rows} rows now and 500 in the reference; the policy wants 30 of each" in judged.reason


def test_constants_are_steady_while_they_stay_and_drift_when_they_change() -> None:
    found = compared({"same": [5.0] * 200, "other": [5.0] * 200}, {"same": [5.0] * 200, "other": [7.0] * 200})
    assert (found["same"].moved, found["same"].reason) == (Moved.STEADY, "is the same constant on both sides")
    assert found["other"].moved is Moved.DRIFTED


def test_a_constant_that_begins_to_vary_has_drifted() -> None:
    found = compared({"x": [5.0] * 300}, {"x": numbers(300, mean=5.0)})
    assert found["x"].moved is Moved.DRIFTED


def test_columns_that_are_empty_or_become_so_are_told_apart() -> None:
    nothing: list[float | None] = [None] * 300
    found = compared(
        {
            "never": nothing,
            "emptied": numbers(300),
            "words": ["a", "b", "c"] * 100,
            "filled": nothing,
            "half": numbers(300),
        },
        {
            "never": nothing,
            "emptied": nothing,
            "words": nothing,
            "filled": numbers(300),
            "half": [*numbers(150), *nothing[:150]],
        },
    )
    assert (found["never"].moved, found["never"].reason) == (Moved.NOT_TESTED, "is empty on both sides")
    for name in ("emptied", "words", "filled", "half"):
        assert (found[name].moved, found[name].method) == (Moved.DRIFTED, "missing"), name


def test_infinite_values_count_as_missing_and_break_nothing() -> None:
    endless = numbers(300)
    endless[:100] = np.inf
    found = compared({"x": numbers(300, 1)}, {"x": endless})
    assert found["x"].method == "missing"


def test_numbers_too_large_to_be_squared_are_compared_all_the_same() -> None:
    found = compared({"x": numbers(300) * 1e307}, {"x": numbers(300, 1, mean=3.0) * 1e307})
    assert found["x"].moved is Moved.DRIFTED
    assert found["x"].distances.wasserstein == pytest.approx(3.0, rel=0.2)


def test_a_name_of_a_category_may_be_long_and_odd_and_is_shown_short() -> None:
    odd = "![x](y)|" + "z" * 5000
    found = compared({"kind": ["a", "b"] * 100}, {"kind": ["a", odd] * 100})
    assert len(found["kind"].new_values[0]) <= 80
    assert len(found["kind"].current_value) < 200


def test_flags_and_counts_of_few_values_are_categories() -> None:
    draw = np.random.default_rng(2)
    found = compared(
        {"flag": draw.random(900) < 0.2, "stops": draw.integers(0, 3, 900).astype(float)},
        {"flag": draw.random(900) < 0.6, "stops": draw.integers(0, 3, 900).astype(float)},
    )
    assert (found["flag"].method, found["flag"].moved) == ("psi", Moved.DRIFTED)
    assert (found["stops"].method, found["stops"].moved) == ("psi", Moved.STEADY)


def test_a_column_of_numbers_that_comes_as_text_has_lost_its_values() -> None:
    found = compared({"x": numbers(300)}, {"x": ["unknown"] * 300})
    assert (found["x"].moved, found["x"].method) == (Moved.DRIFTED, "missing")


def test_among_many_columns_that_did_not_move_none_is_found() -> None:
    draw = np.random.default_rng(3)
    wide = [{f"x{n}": draw.normal(size=120) for n in range(60)} for _ in range(2)]
    found = compared(*wide)
    assert sum(one.moved is Moved.DRIFTED for one in found.values()) == 0
    assert sum((one.effect or 0) >= (one.threshold or 1) for one in found.values()) > 10  # so few rows look like much
    assert judge_part(PART, list(found.values()), POLICY).verdict is not Verdict.FAIL


def test_few_days_do_not_prove_what_many_rows_seem_to() -> None:
    """Three rainy days of 500 rows each are three rows."""
    draw = np.random.default_rng(4)
    days = [np.repeat(np.arange(count), 500) for count in (6, 3)]
    rain = [draw.normal(size=day.max() + 1)[day] + 0.1 * draw.normal(size=len(day)) for day in days]
    together = compared({"rain": rain[0]}, {"rain": rain[1]}, Blocks(days[0], days[1]))["rain"]
    assert compared({"rain": rain[0]}, {"rain": rain[1]})["rain"].moved is Moved.DRIFTED
    assert together.moved is Moved.UNCLEAR
    assert "proves nothing" in together.reason
    assert judge_part(PART, [together], POLICY).verdict is Verdict.INCONCLUSIVE


def test_the_slice_that_moved_is_named_although_the_whole_did_not() -> None:
    draw = np.random.default_rng(5)
    places = [draw.choice(["EWR", "JFK", "LGA"], 6000, p=[0.6, 0.35, 0.05]) for _ in range(2)]
    delays = [draw.normal(size=6000) for _ in range(2)]
    delays[1] = delays[1] + 1.5 * (places[1] == "LGA")
    sides = [pd.DataFrame({"origin": place, "delay": delay}) for place, delay in zip(places, delays, strict=True)]
    table = Table("departures", sides[0], sides[1], Blocks(), ("origin", "delay"), ("origin",))
    (whole,) = [one for one in corrected(compare_table(PART, table, POLICY, 1), POLICY) if one.column == "delay"]
    assert whole.moved is Moved.STEADY
    moved = [one for one in corrected(compare_slices(PART, table, POLICY, 1), POLICY) if one.moved is Moved.DRIFTED]
    assert [one.name for one in moved] == ["departures.delay where origin is LGA"]


def test_the_worst_part_decides_and_no_part_proves_nothing() -> None:
    def part(verdict: Verdict) -> Any:
        return judge_part(PART, [], POLICY).model_copy(update={"verdict": verdict, "reason": str(verdict)})

    order = [Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.PASS]
    for number, worst in enumerate(order):
        assert overall([part(one) for one in order[number:]])[0] is worst
    assert overall([])[0] is Verdict.INCONCLUSIVE
