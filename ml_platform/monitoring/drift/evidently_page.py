"""A second opinion: Evidently's scores of the same rows, and its page where something drifted; nothing is sent."""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.drift import ColumnDrift
from ml_platform.contracts.monitor_policy import DriftPolicy
from ml_platform.monitoring.drift.columns import Tables, sampled
from ml_platform.monitoring.drift.measuring import numbers_of

if TYPE_CHECKING:
    import pandas as pd

_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<=metric_)[0-9a-f]{32}")


def second_opinion(
    columns: Sequence[ColumnDrift], tables: Tables, policy: DriftPolicy, seed: int, *, page: bool
) -> tuple[dict[str, float], str | None]:
    """Evidently's score of every column that was tested, by name, and its page as HTML if wanted.

    Scores are not corrected for anything and decide nothing here. The same rows give the same bytes.
    """
    tested = {f"{one.part}.{one.name}": one for one in columns if _method(one) is not None}
    if not tested:
        return {}, None
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        # Evidently 0.7.23 asks numpy 2 and pandas 2 for what they deprecate (legacy/tests/utils.py and others).
        warnings.simplefilter("ignore")
        return _ask(tested, tables, policy, seed, page=page)


def _ask(
    tested: Mapping[str, ColumnDrift], tables: Tables, policy: DriftPolicy, seed: int, *, page: bool
) -> tuple[dict[str, float], str | None]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    reference, current = (_side(tested, tables, policy, seed, current=now) for now in (False, True))
    kinds = {name: str(_method(one)) for name, one in tested.items()}
    limits = {"psi": policy.psi, "wasserstein": policy.wasserstein}
    definition = DataDefinition(
        numerical_columns=[name for name, kind in kinds.items() if kind == "wasserstein"],
        categorical_columns=[name for name, kind in kinds.items() if kind == "psi"],
    )
    wanted = [ValueDrift(column=name, method=kind, threshold=limits[kind]) for name, kind in kinds.items()]
    ran = Report(wanted, include_tests=True).run(
        Dataset.from_pandas(current, definition),
        Dataset.from_pandas(reference, definition),
        timestamp=datetime(2000, 1, 1, tzinfo=UTC),
        name="drift",
    )
    scores = {str(one["config"]["column"]): round(float(one["value"]), 6) for one in ran.dict()["metrics"]}
    return scores, _same_every_time(ran.get_html_str(as_iframe=False)) if page else None


def _method(one: ColumnDrift) -> str | None:
    """Evidently's method for a column: its own KS gives a p-value, whose verdict the number of rows decides."""
    if one.distances.ks is not None:
        return "wasserstein"
    return None if one.distances.psi is None else "psi"


def _side(
    tested: Mapping[str, ColumnDrift], tables: Tables, policy: DriftPolicy, seed: int, *, current: bool
) -> "pd.DataFrame":
    """The drawn rows of all tables side by side; shorter ones end in empty cells, which Evidently leaves out."""
    import pandas as pd

    found: dict[str, Any] = {}
    for name, one in tested.items():
        table = tables[one.part, one.table]
        rows = table.current if current else table.reference
        drawn = rows[one.column].iloc[sampled(len(rows), policy.sample_rows, seed)].reset_index(drop=True)
        labels = drawn.astype("object").astype(str).where(drawn.notna(), None)
        found[name] = labels if _method(one) == "psi" else pd.Series(numbers_of(drawn))
    return pd.DataFrame(found)


def _same_every_time(html: str) -> str:
    """The page with its random names numbered."""
    numbers: dict[str, str] = {}

    def renamed(found: re.Match[str]) -> str:
        text = found.group()
        number = numbers.setdefault(text, f"{len(numbers):032x}")
        if "-" not in text:
            return number
        return "-".join((number[:8], number[8:12], number[12:16], number[16:20], number[20:]))

    return _IDS.sub(renamed, html)
