"""Feature tables: one deterministic Parquet file a view, made from a snapshot and nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.contracts.feature_spec import FeatureViewSpec
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.contracts.source import ColumnType, SourceSpec
from ml_platform.errors import InvalidInputError
from ml_platform.features.definitions import (
    CREATED_TIME,
    EVENT_TIME,
    checked_features,
    definitions_sha256,
    feature_type,
)
from ml_platform.features.trailing import HOUR_US, Integers, KnownRows, Numbers, trailing_features
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.snapshots.extract import load_table, manifest_of, parquet_bytes
from ml_platform.snapshots.rows import known_since

if TYPE_CHECKING:
    import pandas as pd


def build_features(product: Product, snapshot: Artifact, store: ArtifactStore, report: Reporter = silent) -> Artifact:
    """The features of a snapshot: `<view>.parquet` with entity columns, event_timestamp, created_timestamp
    and the view's features, sorted by entity and time; times are UTC in microseconds.

    A row of a later snapshot that tells of an earlier time is the same row, digit for digit. `facts`
    hold the digest of the definitions and each view's counts.
    Raises ContractError for definitions that do not fit, InvalidInputError for another product's snapshot.
    """
    spec, manifest = checked_features(product), manifest_of(snapshot)
    if manifest.product != product.name:
        raise InvalidInputError(
            f"snapshot {snapshot.sha256[:12]} belongs to {manifest.product}, expected {product.name}. "
            "Pass the product's own snapshot."
        )
    definitions = definitions_sha256(product)

    def build(folder: Path) -> dict[str, Any]:
        views: dict[str, Any] = {}
        for number, (name, view) in enumerate(sorted(spec.views.items())):
            report(Progress("features", number / len(spec.views), name))
            frame = view_rows(product, view, load_table(snapshot, view.source), manifest.cutoff)
            (folder / f"{name}.parquet").write_bytes(parquet_bytes(_typed_table(product, view, frame)))
            views[name] = _facts(view, frame)
        return {
            "product": product.name,
            "snapshot_sha256": snapshot.sha256,
            "cutoff": manifest.cutoff.isoformat(),
            "definitions_sha256": definitions,
            "views": views,
        }

    recipe = {"product": product.name, "snapshot_sha256": snapshot.sha256, "definitions_sha256": definitions}
    artifact = store.make("features", recipe, build)
    rows = sum(view["rows"] for view in artifact.facts["views"].values())
    reused = ", reused" if artifact.reused else ""
    report(Progress("features", 1.0, f"{rows:,} rows in {len(spec.views)} views{reused}"))
    return artifact


def view_rows(product: Product, view: FeatureViewSpec, table: "pd.DataFrame", until: Any) -> "pd.DataFrame":
    """The rows of one view, sorted by entity and time. Source rows without an entity do not count."""
    import pandas as pd

    table = table.dropna(subset=list(view.entity)).reset_index(drop=True)
    entity = table.groupby(list(view.entity), sort=True).ngroup().to_numpy().astype(np.int64)
    if view.columns:
        return _as_they_became_known(product, view, table, entity)
    known_us = _known_us(table, product.spec.sources[view.source])
    order = np.lexsort((known_us, entity))
    rows = KnownRows(
        entity[order],
        known_us[order],
        {name: _numbers(table[name])[order] for name in sorted({a.column for a in view.aggregates.values()})},
    )
    every_us = round((view.every_hours or 0) * HOUR_US)
    grid = trailing_features(rows, view.aggregates, every_us, microseconds(pd.Series([until]))[0])
    _, member = np.unique(entity, return_index=True)
    times = _utc(grid.time_us)
    return pd.DataFrame(
        {
            **{column: table[column].to_numpy()[member][grid.entity] for column in view.entity},
            EVENT_TIME: times,
            CREATED_TIME: times,
            **{name: grid.features[name] for name in view.feature_names},
        }
    )


def microseconds(times: "pd.Series") -> Integers:
    """Times with a zone as microseconds since the epoch."""
    found: Integers = times.dt.as_unit("us").to_numpy(dtype="datetime64[us]").astype(np.int64)
    return found


def _as_they_became_known(
    product: Product, view: FeatureViewSpec, table: "pd.DataFrame", entity: Integers
) -> "pd.DataFrame":
    """Source rows with both their times; of rows alike in entity and times, the last in key order.

    A plan or forecast (`known_ahead`) is about the future and counts from when it became known, as does a row
    without an event.
    """
    import pandas as pd

    source = product.spec.sources[view.source]
    known_us = _known_us(table, source)
    about_us = known_us
    if source.event_time is not None and not source.known_ahead:
        event = table[source.event_time]
        about_us = np.where(event.isna(), known_us, microseconds(event))
    frame = pd.DataFrame(
        {
            **{column: table[column] for column in view.entity},
            EVENT_TIME: _utc(about_us),
            CREATED_TIME: _utc(known_us),
            **{name: table[view.columns[name]] for name in view.feature_names},
        }
    )
    frame = frame.iloc[np.lexsort((known_us, about_us, entity))]
    same = frame.duplicated([*view.entity, EVENT_TIME, CREATED_TIME], keep="last")
    return frame[~same].reset_index(drop=True)


def _known_us(table: "pd.DataFrame", source: SourceSpec) -> Integers:
    """When each row became known, as its snapshot judged it; one that always was counts from the epoch."""
    known = known_since(table, source)
    return np.zeros(len(table), np.int64) if known is None else np.where(known.isna(), 0, microseconds(known))


def _numbers(column: "pd.Series") -> Numbers:
    """Cells as numbers, NaN where empty; text and times count as 1, for `count`."""
    import pandas as pd

    filled = column.notna().to_numpy()
    result = np.where(filled, 1.0, np.nan)
    # A boolean column with empty cells comes as objects.
    if pd.api.types.is_numeric_dtype(column) or column[filled].map(lambda cell: isinstance(cell, bool)).all():
        result[filled] = column[filled].astype(np.float64)
    return result


def _utc(time_us: Integers) -> Any:
    import pandas as pd

    return pd.to_datetime(time_us.astype("datetime64[us]"), utc=True)


def _typed_table(product: Product, view: FeatureViewSpec, frame: "pd.DataFrame") -> Any:
    """The frame as an Arrow table with the types that the definitions promise, whatever pandas inferred."""
    import pyarrow as pa

    arrow = {
        ColumnType.STRING: pa.string(),
        ColumnType.INTEGER: pa.int64(),
        ColumnType.NUMBER: pa.float64(),
        ColumnType.BOOLEAN: pa.bool_(),
    }
    columns = product.spec.sources[view.source].columns
    kinds: Mapping[str, Any] = {
        **{name: arrow[columns[name]] for name in view.entity},
        EVENT_TIME: pa.timestamp("us", tz="UTC"),
        CREATED_TIME: pa.timestamp("us", tz="UTC"),
        **{name: arrow[feature_type(product, view, name)] for name in view.feature_names},
    }
    arrays = [pa.array(frame[name], type=kind, from_pandas=True) for name, kind in kinds.items()]
    return pa.table(arrays, schema=pa.schema(list(kinds.items())))


def _facts(view: FeatureViewSpec, frame: "pd.DataFrame") -> dict[str, Any]:
    times = frame[EVENT_TIME]
    return {
        "rows": len(frame),
        "entities": len(frame[list(view.entity)].drop_duplicates()),
        "first": times.min().isoformat() if len(frame) else None,
        "last": times.max().isoformat() if len(frame) else None,
    }
