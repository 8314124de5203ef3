"""Whatever the data: no number of rows makes drift or hides it, and no order of rows or unit of a number matters."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.contracts.drift import ColumnDrift, DriftPart, Moved
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import DriftPolicy
from ml_platform.monitoring.drift.columns import Table, compare_table, corrected
from ml_platform.monitoring.drift.distances import Blocks
from ml_platform.monitoring.drift.judging import judge_part
from tests.samples.monitoring import monitor_policy

POLICY = monitor_policy().drift
STRICT = POLICY.model_copy(update={"alpha": 1e-4})
"""So strict that chance does not find drift in any number of trials that a property takes."""
PART = DriftPart.FEATURES
GOOD = {Verdict.FAIL: 0, Verdict.INCONCLUSIVE: 1, Verdict.PASS: 2}


def judged(reference: np.ndarray, current: np.ndarray, seed: int = 0, policy: DriftPolicy = POLICY) -> ColumnDrift:
    table = Table("rows", pd.DataFrame({"x": reference}), pd.DataFrame({"x": current}), Blocks(), ("x",))
    (found,) = corrected(compare_table(PART, table, policy, seed), policy)
    return found


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([40, 100, 1_000, 20_000, 100_000]),
    st.sampled_from([40, 100, 1_000, 20_000, 100_000]),
    st.sampled_from(["normal", "skewed"]),
)
def test_no_number_of_rows_makes_drift_of_a_small_effect(seed: int, then: int, now: int, shape: str) -> None:
    """A shift of a twentieth of a standard deviation is far below every threshold: significant at 100,000 rows, and
    still no drift."""
    draw = np.random.default_rng(seed)
    make = draw.normal if shape == "normal" else lambda size: draw.exponential(size=size)
    assert judged(make(size=then), make(size=now) + 0.05, seed, STRICT).moved is not Moved.DRIFTED


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([40, 100, 1_000, 20_000, 100_000]),
    st.sampled_from([40, 100, 1_000, 20_000, 100_000]),
    st.sampled_from(["number", "category"]),
)
def test_no_number_of_rows_hides_a_large_effect(seed: int, then: int, now: int, kind: str) -> None:
    draw = np.random.default_rng(seed)
    if kind == "number":
        left, right = draw.normal(size=then), draw.normal(1.5, 1.0, size=now)
    else:
        left, right = (draw.choice(["a", "b", "c"], size, p=p) for size, p in
                       ((then, (0.7, 0.2, 0.1)), (now, (0.1, 0.2, 0.7))))  # fmt: skip
    assert judged(left, right, seed).moved is Moved.DRIFTED


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_the_effect_that_is_reported_does_not_grow_with_the_rows(seed: int, shift: float) -> None:
    """So many rows more find the same distance, but for five standard errors of what is drawn of either.

    A difference of means in standard deviations, d, of n rows a side has the variance (2 + d^2 / 2) / n.
    """
    draw = np.random.default_rng(seed)
    found = [judged(draw.normal(size=rows), draw.normal(shift, 1.0, size=rows), seed) for rows in (2_000, 100_000)]
    error = math.sqrt((2 + shift**2 / 2) * (1 / 2_000 + 1 / POLICY.sample_rows))
    for name in ("ks", "wasserstein"):
        few, many = (getattr(one.distances, name) for one in found)
        assert few == pytest.approx(many, abs=5 * error)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.001, 1000.0), st.floats(-1000.0, 1000.0))
def test_neither_the_order_of_rows_nor_the_unit_of_a_number_matters(seed: int, unit: float, zero: float) -> None:
    draw = np.random.default_rng(seed)
    left, right = draw.normal(size=300), draw.normal(draw.uniform(0, 1), 1.0, size=200)
    plain, other = (
        judged(left, right),
        judged(draw.permutation(left) * unit + zero, draw.permutation(right) * unit + zero),
    )
    assert other.moved is plain.moved
    assert other.effect == pytest.approx(plain.effect, rel=1e-5)
    assert other.p_value == pytest.approx(plain.p_value, abs=2e-3)


columns = st.lists(st.sampled_from(list(Moved)), min_size=1, max_size=12)


@given(columns, st.integers(0, 11))
def test_a_column_that_moved_more_never_gives_a_better_verdict(moved: list[Moved], place: int) -> None:
    worse = {Moved.STEADY: Moved.UNCLEAR, Moved.UNCLEAR: Moved.DRIFTED, Moved.DRIFTED: Moved.DRIFTED}
    place %= len(moved)
    if moved[place] is Moved.NOT_TESTED:
        return
    other = [*moved[:place], worse[moved[place]], *moved[place + 1 :]]
    before, after = (
        judge_part(PART, [column(n, one) for n, one in enumerate(some)], POLICY) for some in (moved, other)
    )
    assert GOOD[after.verdict] <= GOOD[before.verdict]
    assert after.effect >= before.effect


@given(columns)
def test_drift_is_said_exactly_when_enough_columns_drifted(moved: list[Moved]) -> None:
    found = judge_part(PART, [column(n, one) for n, one in enumerate(moved)], POLICY)
    tested = [one for one in moved if one is not Moved.NOT_TESTED]
    drifted = tested.count(Moved.DRIFTED)
    assert (found.verdict is Verdict.FAIL) == bool(drifted and drifted / len(tested) >= POLICY.share_of_columns)
    assert (found.effect >= 1) == (found.verdict is Verdict.FAIL)
    if not tested:
        assert found.verdict is Verdict.INCONCLUSIVE


def column(number: int, moved: Moved) -> ColumnDrift:
    return ColumnDrift(
        part=PART, table="rows", column=f"x{number}", moved=moved, reason="r", reference_rows=100, current_rows=100
    )
