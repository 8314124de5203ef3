"""What is compared of snapshots: the rows of a window of days, and the features as the rows of those days saw them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.contracts.feature_spec import FeatureViewSpec
from ml_platform.contracts.products import Product
from ml_platform.contracts.snapshot import SnapshotManifest
from ml_platform.contracts.source import AnsweredSpec, ColumnType
from ml_platform.features.build import build_features
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.monitoring.drift.columns import SLICE_VALUES, Table
from ml_platform.monitoring.drift.distances import Blocks, Integers
from ml_platform.snapshots.extract import load_table, manifest_of
from ml_platform.snapshots.rows import known_since

if TYPE_CHECKING:
    import pandas as pd

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Window:
    """A stretch of the product's time: from `since` until before `until`; `since` None for all that went before."""

    since: datetime | None
    until: datetime

    @classmethod
    def of_days(cls, until: datetime, days: int) -> "Window":
        """The last `days` days before `until`."""
        return cls(until - days * DAY, until)

    def holds(self, times: "pd.Series") -> Any:
        """Which times lie in it, as a mask."""
        inside = (times < self.until).to_numpy()
        return inside if self.since is None else inside & (times >= self.since).to_numpy()


def source_tables(product: Product, reference: Artifact, current: Artifact, window: Window) -> list[Table]:
    """Every source of the product: what the reference snapshot knew of the past against the window's rows.

    Times are no columns to compare: they move by nature. A table without a time is compared as a whole. What was said
    of live answers is no source that could drift: it fills as people speak.
    """
    before, now = manifest_of(reference), manifest_of(current)
    past = Window(None, before.cutoff)
    found = []
    for name, source in product.spec.sources.items():
        if isinstance(source, AnsweredSpec) or name not in before.tables or name not in now.tables:
            continue
        sides = [load_table(snapshot, name) for snapshot in (reference, current)]
        if source.event_time is not None:
            sides = [
                rows[part.holds(rows[source.event_time])] for rows, part in zip(sides, (past, window), strict=True)
            ]
        found.append(_table(name, sides[0], sides[1], source.event_time, _columns(before, now, name)))
    return found


def feature_tables(
    product: Product, reference: Artifact, current: Artifact, window: Window, store: ArtifactStore
) -> list[Table]:
    """Every feature view of the product, by its present definitions on both sides; nothing for one without features.

    A view that looks back stands on a grid, where quiet entities have as many rows as busy ones. It is therefore read
    as the rows of its source saw it: each row of the window with the values that were known just before it.
    """
    if product.features is None:
        return []
    past = Window(None, manifest_of(reference).cutoff)
    built = [build_features(product, snapshot, store) for snapshot in (reference, current)]
    found = []
    for name, view in product.features.views.items():
        sides = [
            _seen(product, view, snapshot, features.file(f"{name}.parquet"), part)
            for snapshot, features, part in zip((reference, current), built, (past, window), strict=True)
        ]
        found.append(_table(name, sides[0], sides[1], _SEEN_AT, view.feature_names))
    return found


_SEEN_AT = "seen_at"


def _seen(product: Product, view: FeatureViewSpec, snapshot: Artifact, rows: Any, window: Window) -> "pd.DataFrame":
    """The rows of a view's source in a window, with the features of their entity as known just before.

    A row is seen when it becomes known, one that always was when its event happens, and a table without times on the
    window's last day.
    """
    import pandas as pd

    source = product.spec.sources[view.source]
    table = load_table(snapshot, view.source).dropna(subset=list(view.entity))
    seen: Any = known_since(table, source)
    if source.event_time is not None:
        seen = table[source.event_time] if seen is None else seen.fillna(table[source.event_time])
    table = table.assign(**{_SEEN_AT: pd.Timestamp(window.until) - DAY if seen is None else seen})
    table = table[window.holds(table[_SEEN_AT])].sort_values(_SEEN_AT, kind="stable")
    table = table.drop(columns=[one for one in view.feature_names if one in table.columns])
    features = pd.read_parquet(rows).sort_values("event_timestamp", kind="stable")
    # Rows without an entity are gone, but a column that had gaps keeps the type for them, which joins with no other.
    table = table.astype({name: features[name].dtype for name in view.entity})
    keep = [*view.entity, "event_timestamp", *view.feature_names]
    return pd.merge_asof(
        table,
        features[keep],
        left_on=_SEEN_AT,
        right_on="event_timestamp",
        by=list(view.entity),
        direction="backward",
        # What passes through is seen when it comes; an aggregate of a moment holds that moment's own row.
        allow_exact_matches=bool(view.columns),
        tolerance=None if view.ttl_hours is None else pd.Timedelta(hours=view.ttl_hours),
    )


def _table(
    name: str, reference: "pd.DataFrame", current: "pd.DataFrame", time: str | None, columns: tuple[str, ...]
) -> Table:
    blocks = Blocks() if time is None else Blocks(_days(reference[time]), _days(current[time]))
    return Table(name, reference, current, blocks, columns, _slices(reference))


def _days(times: "pd.Series") -> Integers:
    """The day of each time, counted from the first."""
    days = times.dt.as_unit("us").to_numpy(dtype="datetime64[us]").astype("datetime64[D]").astype(np.int64)
    found: Integers = days - days.min() if len(days) else days
    return found


def _columns(before: SnapshotManifest, now: SnapshotManifest, table: str) -> tuple[str, ...]:
    both = before.tables[table].columns.keys() & now.tables[table].columns.keys()
    types = now.tables[table].columns
    return tuple(name for name in types if name in both and types[name] is not ColumnType.TIMESTAMP)


def _slices(rows: "pd.DataFrame") -> tuple[str, ...]:
    """Columns of text with a few values."""
    import pandas as pd

    texts = [str(name) for name in rows.columns if pd.api.types.is_object_dtype(rows[name])]
    return tuple(name for name in texts if 2 <= rows[name].nunique() <= SLICE_VALUES)
