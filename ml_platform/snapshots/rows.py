"""Rows: which of a source's rows stand in a snapshot, which are not yet known, and which are set aside."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ml_platform.contracts.source import SourceSpec
from ml_platform.errors import SourceDataError
from ml_platform.snapshots.cells import Mask, TypedColumn, WrongColumnTypeError, microseconds, type_column
from ml_platform.snapshots.readers import RawTable, plain

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 3

Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class JudgedTable:
    """What was known at the cutoff: typed rows in the order of their key, and the rows set aside.

    A quarantined row is {"row", "reason", "original"}. `first_known` describes the whole source, for
    messages only.
    """

    table: Any
    quarantined: tuple[dict[str, Any], ...]
    not_yet_known: int
    first_known: datetime | None


@dataclass(frozen=True)
class _Problem:
    column: str | None
    wanted: str
    rows: Mask


def judge_rows(raw: RawTable, spec: SourceSpec, cutoff: datetime, now: datetime) -> JudgedTable:
    """The rows of a source as they stood at the cutoff; both times are UTC.

    A row is known at its `known_at`; where that is empty or not declared at its `event_time`, and without either
    always. Plans, which may be known before their event, count as known while `known_at` is empty. Rows that
    are not known yet have no influence on the result, be they good or bad, with two exceptions, so
    that nothing is lost in silence: a row whose time cannot be read counts as known, and a row that
    claims a time later than both the cutoff and `now` is set aside.
    Raises SourceDataError when more than `max_bad_share` of the known rows do not fit.
    """
    columns = _typed(raw, spec)
    times = _known_times(columns, spec, len(raw))
    known = ~(times > _moment(cutoff))
    future = times > max(_moment(cutoff), _moment(now))
    problems = [*_cell_problems(columns, spec), *_time_problems(columns, spec), *_unknown_keys(raw, spec)]
    bad = np.zeros(len(raw), bool)
    for problem in problems:
        bad |= problem.rows
    good = known & ~bad
    repeated = _repeated(columns, spec, good, times)
    problems.append(_Problem(None, f"a {_named(spec.key)} that no earlier known row has", repeated))
    bad = (bad | repeated) & known
    _require_mostly_good(raw, spec, problems, bad, int(known.sum()))
    problems += _future_problems(columns, spec, future)
    aside = [*_set_aside(raw, problems, bad | future), *_malformed(raw)]
    return JudgedTable(
        table=_sorted_table(columns, spec, good & ~repeated),
        quarantined=tuple(sorted(aside, key=lambda row: row["row"])),
        not_yet_known=int((~known & ~future).sum()),
        first_known=_first(times),
    )


def known_since(frame: "pd.DataFrame", spec: SourceSpec) -> "pd.Series | None":
    """When each row of a snapshot's table became known, as judge_rows decided it; None for a table that always was."""
    if spec.known_column is None:
        return None
    times, instead = frame[spec.known_column], _instead_of_empty(spec)
    return times if instead is None else times.fillna(frame[instead])


def _typed(raw: RawTable, spec: SourceSpec) -> dict[str, TypedColumn]:
    columns: dict[str, TypedColumn] = {}
    for name, kind in spec.columns.items():
        values = raw.columns.get(name)
        if values is None:
            columns[name] = type_column([None] * len(raw), "objects", kind)
            continue
        try:
            columns[name] = type_column(values, raw.form, kind)
        except WrongColumnTypeError as error:
            raise SourceDataError(
                f"{raw.where}: column '{name}': {error}. Correct the source, or the column's type in product.yaml."
            ) from error
    return columns


def _unknown_keys(raw: RawTable, spec: SourceSpec) -> Iterator[_Problem]:
    """JSON rows with keys that product.yaml does not declare; tables with a header are refused for them as a whole."""
    if raw.sparse:
        for name in sorted(set(raw.columns) - set(spec.columns) - set(spec.ignore_columns)):
            present = np.fromiter((name in raw.original(i) for i in range(len(raw))), bool, len(raw))
            yield _Problem(None, f"no key '{name}': declare it under columns, or list it in ignore_columns", present)


def _known_times(columns: dict[str, TypedColumn], spec: SourceSpec, rows: int) -> Times:
    """When each row became known; NaT for one that always was, or whose times cannot be read."""
    if spec.known_column is None:
        return np.full(rows, "NaT", "datetime64[us]")
    times, instead = microseconds(columns[spec.known_column].values), _instead_of_empty(spec)
    return times if instead is None else np.where(np.isnat(times), microseconds(columns[instead].values), times)


def _instead_of_empty(spec: SourceSpec) -> str | None:
    """The column that counts where `known_at` is empty: nothing is known before it happens, unless it is planned."""
    return spec.event_time if spec.known_at and not spec.known_ahead else None


def _cell_problems(columns: dict[str, TypedColumn], spec: SourceSpec) -> Iterator[_Problem]:
    for name, column in columns.items():
        for wanted, rows in column.wrong.items():
            yield _Problem(name, wanted, rows)
        if name not in spec.nullable:
            yield _Problem(name, f"a value ({spec.columns[name]}; it is not listed as nullable)", column.null)


def _time_problems(columns: dict[str, TypedColumn], spec: SourceSpec) -> Iterator[_Problem]:
    if spec.event_time and spec.known_at and spec.known_at != spec.event_time and not spec.known_ahead:
        early = microseconds(columns[spec.known_at].values) < microseconds(columns[spec.event_time].values)
        wanted = f"a time at or after {spec.event_time}: nothing is known before it happens, unless known_ahead is set"
        yield _Problem(spec.known_at, wanted, early)


def _future_problems(columns: dict[str, TypedColumn], spec: SourceSpec, future: Mask) -> Iterator[_Problem]:
    """Rows that claim a time yet to come, each under the column that claims it."""
    if spec.known_column is None:
        return
    instead, wanted = _instead_of_empty(spec), "a time that is not in the future"
    own = ~np.isnat(microseconds(columns[spec.known_column].values))
    yield _Problem(spec.known_column, wanted, future & own)
    if instead is not None:
        yield _Problem(instead, wanted, future & ~own)


def _repeated(columns: dict[str, TypedColumn], spec: SourceSpec, good: Mask, times: Times) -> Mask:
    """Good rows whose key an earlier known row has; among rows known at once, the first in the source stays."""
    import pandas as pd

    keys = pd.DataFrame({name: columns[name].values.to_pandas() for name in spec.key})[good]
    order = np.argsort(times[good], kind="stable")
    repeated = np.zeros(len(good), bool)
    repeated[np.flatnonzero(good)[order]] = keys.iloc[order].duplicated(keep="first").to_numpy()
    return repeated


def _require_mostly_good(raw: RawTable, spec: SourceSpec, problems: list[_Problem], bad: Mask, known: int) -> None:
    count, total = int(bad.sum()) + len(raw.malformed), known + len(raw.malformed)
    if not total or count / total <= spec.max_bad_share:
        return
    for problem in problems:
        if problem.column and known > 1 and int((problem.rows & bad).sum()) == known:
            raise SourceDataError(
                f"{raw.where}: column '{problem.column}': no row has what is expected, {problem.wanted}; "
                f"{_first_found(raw, problem.column)}. Correct the source, or the column in product.yaml."
            )
    first = np.flatnonzero(bad)[:SHOWN_ROWS]
    mask = np.zeros_like(bad)
    mask[first] = True
    shown = sorted([*_set_aside(raw, problems, mask), *_malformed(raw)[:SHOWN_ROWS]], key=lambda row: row["row"])
    told = "; ".join(f"row {row['row']}: {row['reason']}" for row in shown[:SHOWN_ROWS])
    raise SourceDataError(
        f"{raw.where}: {count} of {total} known rows ({count / total:.1%}) do not fit; at most "
        f"{spec.max_bad_share:.1%} may (max_bad_share). First: {told}. Correct the source."
    )


def _first_found(raw: RawTable, column: str) -> str:
    return f"row {raw.rows[0]} has {_shown(raw.original(0).get(column))}"


def _set_aside(raw: RawTable, problems: list[_Problem], bad: Mask) -> list[dict[str, Any]]:
    aside = []
    for index in np.flatnonzero(bad):
        original = raw.original(int(index))
        reasons = [_reason(problem, original) for problem in problems if problem.rows[index]]
        aside.append(plain({"row": int(raw.rows[index]), "reason": "; ".join(reasons), "original": original}))
    return aside


def _reason(problem: _Problem, original: dict[str, Any]) -> str:
    if problem.column is None:
        return f"expected {problem.wanted}"
    return f"column '{problem.column}': expected {problem.wanted}, found {_shown(original.get(problem.column))}"


def _malformed(raw: RawTable) -> list[dict[str, Any]]:
    return [{"row": row.row, "reason": row.reason, "original": plain(row.original)} for row in raw.malformed]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _sorted_table(columns: dict[str, TypedColumn], spec: SourceSpec, kept: Mask) -> Any:
    import pyarrow as pa

    table = pa.table({name: columns[name].values for name in spec.columns}).filter(pa.array(kept))
    return table.sort_by([(name, "ascending") for name in spec.key]).combine_chunks()


def _moment(time: datetime) -> np.datetime64:
    return np.datetime64(time.replace(tzinfo=None), "us")


def _first(times: Times) -> datetime | None:
    known = times[~np.isnat(times)]
    return known.min().item().replace(tzinfo=UTC) if len(known) else None


def _named(key: tuple[str, ...]) -> str:
    return "key (" + ", ".join(key) + ")"
