"""A Feast offline store that answers point-in-time joins by one ASOF join a view instead of a range join.

Feast's own DuckDB store joins every entity row with every feature row of the last `ttl`, carries all columns
through a window function and keys both by text: at 100,000 x 1,000,000 rows that is 7 times slower. This store
gives the same answers (a test compares them) from the same files; whatever it does not know it leaves to Feast.
Feast loads this module by name, so it imports Feast at the top; nothing else should import it.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa
from feast import FeatureView, FileSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata

from ml_platform.features.store import sql_name

EVENT_TIME = "event_timestamp"
ROW = "entity_row"
_MICROSECOND = timedelta(microseconds=1)


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]  # Feast ships no types
    """Feast finds the settings of a store by this name."""

    type: str = "ml_platform.features.asof.AsofOfflineStore"


class AsofOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]  # Feast ships no types
    """Feast's DuckDB store with a faster `get_historical_features`."""

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """See Feast. The fast path takes what `join_features` asks for; everything else goes to Feast's store."""
        if full_feature_names or not filter_by_created_timestamp or not _is_known(entity_df, feature_views):
            return DuckDBOfflineStore.get_historical_features(
                config,
                feature_views,
                feature_refs,
                entity_df,
                registry,
                project,
                full_feature_names,
                filter_by_created_timestamp,
            )
        wanted = {
            view.name: [ref.split(":")[1] for ref in feature_refs if ref.startswith(f"{view.name}:")]
            for view in feature_views
        }
        return AsofJob(entity_df, feature_views, wanted, feature_refs)


class AsofJob(RetrievalJob):  # type: ignore[misc]  # Feast ships no types
    """One retrieval; runs when its result is asked for."""

    def __init__(
        self, entity_df: Any, views: Sequence[FeatureView], wanted: Mapping[str, Sequence[str]], refs: list[str]
    ) -> None:
        super().__init__()
        self._entity_df, self._views, self._wanted, self._refs = entity_df, views, wanted, refs

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        result = pa.Table.from_pandas(self._entity_df, preserve_index=False)
        asked = result.append_column(ROW, pa.array(range(len(result)), pa.int64()))
        connection = duckdb.connect()
        try:
            # Intervals and times must not depend on the zone of the machine.
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("asked", asked)
            for view in self._views:
                found = connection.sql(point_in_time_sql(view, self._wanted[view.name])).to_arrow_table()
                for name in self._wanted[view.name]:
                    result = result.append_column(name, found[name])
        finally:
            connection.close()
        return result

    def _to_df_internal(self, timeout: int | None = None) -> Any:
        return self._to_arrow_internal(timeout).to_pandas()

    @property
    def full_feature_names(self) -> bool:
        """Feature names stand alone."""
        return False

    @property
    def on_demand_feature_views(self) -> list[Any]:
        """None: features are computed before they are stored."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked."""
        times = self._entity_df[EVENT_TIME]
        keys = [name for name in self._entity_df.columns if name != EVENT_TIME]
        return RetrievalMetadata(self._refs, keys, times.min().to_pydatetime(), times.max().to_pydatetime())


def point_in_time_sql(view: FeatureView, features: Sequence[str]) -> str:
    """For each row of `asked`, the features of the newest row whose event and creation both lie at or before it.

    A row is known from max(event, created). In the order of that moment, the newest event known so far
    only moves when a row brings an event at least as new; those rows form a step function per entity, and
    the answer is its step at the asked moment: an ASOF join. A row older than the ttl answers nothing.
    Rows are chosen by narrow columns; the features are fetched only for the chosen ones.
    """
    source = view.batch_source
    keys = [sql_name(column.name) for column in view.entity_columns]
    event, created = sql_name(source.timestamp_field), sql_name(source.created_timestamp_column)
    file = f"read_parquet('{source.path.replace(chr(39), chr(39) * 2)}', file_row_number = true)"
    order = f"PARTITION BY {', '.join(keys)} ORDER BY known_from, {event}, {created}"
    fresh = "true"
    if view.ttl:
        fresh = f"step.{event} + to_microseconds({view.ttl // _MICROSECOND}) >= asked_time"
    return f"""
        WITH known AS (
            SELECT {", ".join(keys)}, {event}, {created}, file_row_number,
                greatest({event}, {created}) AS known_from
            FROM {file}
        ), step AS (
            SELECT * FROM known
            WINDOW earlier AS ({order} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), later AS ({order})
            QUALIFY {event} = max({event}) OVER earlier
                AND lead(known_from) OVER later IS DISTINCT FROM known_from
        ), chosen AS (
            SELECT {ROW}, CASE WHEN {fresh} THEN step.file_row_number END AS chosen_row
            FROM (SELECT *, CAST({sql_name(EVENT_TIME)} AS TIMESTAMPTZ) AS asked_time FROM asked) AS asked
            ASOF LEFT JOIN step
                ON {" AND ".join(f"asked.{key} = step.{key}" for key in keys)} AND asked_time >= step.known_from
        )
        SELECT {", ".join(f"wide.{sql_name(name)}" for name in features)}
        FROM chosen LEFT JOIN {file} AS wide ON wide.file_row_number = chosen.chosen_row
        ORDER BY chosen.{ROW}
    """  # noqa: S608 - names are quoted, and come from features.yaml


def _is_known(entity_df: Any, views: Sequence[FeatureView]) -> bool:
    """Whether the fast path can answer: plain local Parquet sources that tell both times."""
    if isinstance(entity_df, str) or EVENT_TIME not in entity_df.columns or ROW in entity_df.columns:
        return False
    return all(
        isinstance(view.batch_source, FileSource)
        and view.batch_source.path.endswith(".parquet")
        and "://" not in view.batch_source.path
        and bool(view.batch_source.created_timestamp_column)
        and not view.batch_source.field_mapping
        and not view.projection.join_key_map
        and view.projection.name_alias is None
        and bool(view.entity_columns)
        for view in views
    )
