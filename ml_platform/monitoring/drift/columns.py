"""Columns of two tables compared: each with the distances that fit it, corrected for all of them; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.contracts.drift import ColumnDrift, Distances, DriftPart, Moved
from ml_platform.contracts.monitor_policy import DriftPolicy
from ml_platform.monitoring.drift.distances import Blocks, Found, Integers, holm
from ml_platform.monitoring.drift.measuring import (
    Side,
    is_numeric,
    measure_category,
    measure_missing,
    measure_number,
    side_of,
)

if TYPE_CHECKING:
    import pandas as pd

FEW_VALUES = 10
"""A number with so few distinct values is a category: flags, counts of stops, grades."""
SLICE_VALUES = 20
"""A column with so many categories, or fewer, slices its table."""
_NOTHING_NEW = {"new_values": (), "new_share": 0.0}


@dataclass(frozen=True)
class Table:
    """Rows of one kind on either side; `blocks` says which hang together, e.g. those of a day.

    `columns` are those to compare, `slices` those whose categories slice the table.
    """

    name: str
    reference: "pd.DataFrame"
    current: "pd.DataFrame"
    blocks: Blocks
    columns: tuple[str, ...]
    slices: tuple[str, ...] = ()


Tables = Mapping[tuple[DriftPart, str], Table]
"""What was compared, by part and name: a view of features may be called like a source."""


def compare_table(part: DriftPart, table: Table, policy: DriftPolicy, seed: int) -> list[ColumnDrift]:
    """Every column of a table, not yet corrected for the others: see `corrected`."""
    drawn = [sampled(len(rows), policy.sample_rows, seed) for rows in (table.reference, table.current)]
    found = []
    for name in table.columns:
        reference, current = table.reference[name], table.current[name]
        numeric = is_numeric(reference, current)
        sides = (
            side_of(reference, drawn[0], table.blocks.of_reference, numeric=numeric),
            side_of(current, drawn[1], table.blocks.of_current, numeric=numeric),
        )
        found.append(_measure(part, table, name, sides, policy))
    return found


def compare_slices(part: DriftPart, table: Table, policy: DriftPolicy, seed: int) -> list[ColumnDrift]:
    """Every column within every slice that has enough rows on both sides, not yet corrected."""
    found: list[ColumnDrift] = []
    for name in table.slices:
        places = [_places(side[name]) for side in (table.reference, table.current)]
        if not 2 <= len(places[0]) <= SLICE_VALUES:
            continue
        for value in sorted(places[0].keys() & places[1].keys()):
            within = _within(table, name, [side[value] for side in places], policy, seed)
            if min(len(within.reference), len(within.current)) >= policy.min_rows:
                here = compare_table(part, within, policy, seed)
                # Few rows were drawn: what is new among them may be old among the others.
                found += [one.model_copy(update={"slice": {name: value}, **_NOTHING_NEW}) for one in here]
    return found


def corrected(columns: Sequence[ColumnDrift], policy: DriftPolicy) -> list[ColumnDrift]:
    """The columns, judged: far enough apart, and too far for chance after Holm's correction for all of them."""
    tested = [one for one in columns if one.p_value is not None]
    p_values = holm(np.array([one.p_value for one in tested], float)) if tested else np.array([])
    judged = dict(zip(map(id, tested), p_values, strict=True))
    return [_judged(one, float(judged[id(one)]), policy) if id(one) in judged else one for one in columns]


def sampled(rows: int, most: int, seed: int) -> Integers:
    """Which rows are drawn: all, or `most` of them, the same every time."""
    if rows <= most:
        return np.arange(rows)
    drawn: Integers = np.sort(np.random.Generator(np.random.PCG64(seed)).choice(rows, most, replace=False))
    return drawn


def _measure(part: DriftPart, table: Table, name: str, sides: tuple[Side, Side], policy: DriftPolicy) -> ColumnDrift:
    """One column of one table: what of it can be compared is, and the distance farthest over its threshold decides."""
    reference, current = sides
    plain = ColumnDrift(
        part=part,
        table=table.name,
        column=name,
        moved=Moved.NOT_TESTED,
        reason="",
        reference_rows=len(table.reference),
        current_rows=len(table.current),
    )
    if reason := _why_not(reference, current, policy):
        return plain.model_copy(update={"reason": reason})
    candidates: dict[str, Found] = {}
    shown: dict[str, Any] = {}
    if (found := measure_missing(reference, current)) is not None:
        candidates["missing"] = found
    if not reference.names_rows and min(reference.filled, current.filled) >= policy.min_rows:
        if reference.numeric and _distinct(reference, current) > FEW_VALUES:
            more, shown = measure_number(reference, current, policy)
        else:
            more, shown = measure_category(reference, current)
        candidates |= more
    if not candidates and reference.names_rows:
        reason = f"names rows: {len(reference.known):,} distinct values in the reference"
        return plain.model_copy(update={"reason": reason})
    if not candidates:
        return plain.model_copy(update={"reason": "is the same constant on both sides", **shown, "moved": Moved.STEADY})
    return _decided(plain, candidates, shown, policy)


def _why_not(reference: Side, current: Side, policy: DriftPolicy) -> str:
    """Why a column is not tested; empty where it is."""
    if min(reference.rows, current.rows) < policy.min_rows:
        rows = f"{current.rows:,} rows now and {reference.rows:,} in the reference"
        return f"{rows}; the policy wants {policy.min_rows:,} of each"
    if not reference.filled and not current.filled:
        return "is empty on both sides"
    return ""


def _places(column: "pd.Series") -> dict[str, Integers]:
    """The rows of each category, by name; rows without one are in none."""
    import pandas as pd

    codes, names = pd.factorize(column)
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(names) + 1))
    return {str(name): order[ends[number] : ends[number + 1]] for number, name in enumerate(names)}


def _distinct(reference: Side, current: Side) -> int:
    return len(np.unique(np.concatenate([reference.filled_values, current.filled_values])))


def _within(table: Table, sliced: str, places: Sequence[Integers], policy: DriftPolicy, seed: int) -> Table:
    """The drawn rows of one slice; what slices is not compared again."""
    left, right = (place[sampled(len(place), policy.sample_rows, seed)] for place in places)
    blocks = table.blocks
    return Table(
        table.name,
        table.reference.iloc[left],
        table.current.iloc[right],
        Blocks(
            None if blocks.of_reference is None else blocks.of_reference[left],
            None if blocks.of_current is None else blocks.of_current[right],
        ),
        tuple(name for name in table.columns if name != sliced),
    )


def _decided(
    plain: ColumnDrift, candidates: Mapping[str, Found], shown: Mapping[str, Any], policy: DriftPolicy
) -> ColumnDrift:
    limits = {"missing": policy.psi, "psi": policy.psi, "ks": policy.ks, "wasserstein": policy.wasserstein}
    beyond = {name: one for name, one in candidates.items() if one.effect >= limits[name]} or dict(candidates)
    # Bonferroni over the distances of one column: the smallest p-value among them is then still a p-value.
    method = min(beyond, key=lambda name: (beyond[name].p_value, -beyond[name].effect / limits[name]))
    effects = {name: one.effect for name, one in candidates.items()}
    return plain.model_copy(
        update={
            "method": method,
            "effect": effects[method],
            "threshold": limits[method],
            "p_value": min(1.0, len(candidates) * candidates[method].p_value),
            "distances": Distances(**effects),
            **shown,
        }
    )


def _judged(one: ColumnDrift, p_value: float, policy: DriftPolicy) -> ColumnDrift:
    effect, threshold = one.effect or 0.0, one.threshold or 0.0
    words = f"{one.method} {effect:.3g}, drift from {threshold:g}"
    if effect < threshold:
        moved, reason = Moved.STEADY, words
    elif p_value <= policy.alpha:
        moved, reason = Moved.DRIFTED, f"{words}; p = {p_value:.2g}"
    else:
        moved, reason = Moved.UNCLEAR, f"{words}; p = {p_value:.2g} proves nothing at {policy.alpha:g}"
    return one.model_copy(update={"moved": moved, "reason": reason, "p_value": p_value})
