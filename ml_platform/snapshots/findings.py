"""Findings: what each expectation found in one table, examined by Great Expectations in memory."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from string import Template
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.products import Product
from ml_platform.contracts.snapshot import SnapshotManifest
from ml_platform.contracts.source import ColumnType, SourceSpec
from ml_platform.lineage.artifacts import Artifact
from ml_platform.snapshots.extract import load_table, manifest_of
from ml_platform.snapshots.rows import known_since
from ml_platform.snapshots.suite import ExpectationSpec, SuiteSpec, great_expectation, schema_expectations

if TYPE_CHECKING:
    import pandas as pd

MAX_FAILING_ROWS = 200
"""How many failing rows of one expectation are kept; the count tells of all."""


@dataclass(frozen=True)
class Finding:
    """What one expectation found in one table; `failing_rows` holds the first MAX_FAILING_ROWS of `failing`."""

    table: str
    expectation: str
    sentence: str
    why: str
    passed: bool
    examined: int
    failing: int
    observed: str
    problem: str
    failing_rows: tuple[dict[str, Any], ...] = field(default=(), repr=False)


def examine_table(product: Product, snapshot: Artifact, suite: SuiteSpec, name: str) -> Iterator[Finding]:
    """What the declared schema, the cutoff and the suite find in one table of a snapshot, one after another."""
    source = product.spec.sources[name]
    frame = load_table(snapshot, name)
    yield _types_finding(snapshot, name, source)
    yield from _known_finding(manifest_of(snapshot), name, source, frame)
    with _batch(frame) as batch:
        for spec in (*schema_expectations(product.spec, name), *suite.tables.get(name, ())):
            yield _finding(name, spec, batch, frame)


@contextmanager
def _batch(frame: "pd.DataFrame") -> Iterator[Any]:
    """The frame as a batch of Great Expectations, in memory, without telemetry or progress bars."""
    import great_expectations as gx
    from great_expectations.data_context.types import base

    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        config = base.DataContextConfig(
            # Without a documentation site: GX would leave a temporary folder for it behind.
            store_backend_defaults=base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            analytics_enabled=False,
            progress_bars=base.ProgressBarsConfig(globally=False, metric_calculations=False),
        )
        context = gx.get_context(mode="ephemeral", project_config=config)
        asset = context.data_sources.add_pandas("snapshot").add_dataframe_asset("table")
        yield asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    finally:
        logger.setLevel(level)


def _finding(table: str, spec: ExpectationSpec, batch: Any, frame: "pd.DataFrame") -> Finding:
    expectation = great_expectation(spec, f"{table}: {spec.expect}")
    found = batch.validate(expectation, result_format={"result_format": "COMPLETE"})
    result: dict[str, Any] = found.result or {}
    indexes = list(dict.fromkeys(result.get("unexpected_index_list") or ()))
    raised = _exception_message(found.exception_info)
    return Finding(
        table=table,
        expectation=spec.expect,
        sentence=_sentence(found, spec),
        why=spec.why,
        passed=bool(found.success) and not raised,
        examined=int(result.get("element_count") or len(frame)),
        failing=int(result.get("unexpected_count") or 0),
        observed=_observed(result),
        problem=raised,
        failing_rows=tuple(_rows(frame, indexes[:MAX_FAILING_ROWS])),
    )


def _types_finding(snapshot: Artifact, name: str, source: SourceSpec) -> Finding:
    """Whether the Parquet file holds the declared types: Great Expectations sees only pandas' own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ml_platform.snapshots.cells import arrow_type

    table = pa.BufferReader(snapshot.read(f"tables/{name}.parquet"))
    found = {field.name: field.type for field in pq.read_schema(table)}
    wrong = {
        column: f"{column} is {found.get(column)}, declared {kind}"
        for column, kind in source.columns.items()
        if found.get(column) != arrow_type(ColumnType(kind))
    }
    return Finding(
        table=name,
        expectation="columns_to_have_declared_types",
        sentence="Every column must have the type that product.yaml declares.",
        why="declared in product.yaml",
        passed=not wrong,
        examined=len(source.columns),
        failing=len(wrong),
        observed="; ".join(wrong.values()) or f"{len(found)} columns",
        problem="",
    )


def _known_finding(
    manifest: SnapshotManifest, name: str, source: SourceSpec, frame: "pd.DataFrame"
) -> Iterator[Finding]:
    times = known_since(frame, source)
    if times is None:
        return
    late, newest = frame.index[times > manifest.cutoff], times.max()
    yield Finding(
        table=name,
        expectation="nothing_to_be_known_after_the_cutoff",
        sentence=f"{source.known_column} must not lie after the cutoff {manifest.cutoff:%Y-%m-%d %H:%M}Z.",
        why="a snapshot sees only what was known",
        passed=late.empty,
        examined=len(frame),
        failing=len(late),
        observed=f"newest {newest:%Y-%m-%d %H:%M}Z" if newest == newest else "no times",
        problem="",
        failing_rows=tuple(_rows(frame, list(late[:MAX_FAILING_ROWS]))),
    )


def _sentence(found: Any, spec: ExpectationSpec) -> str:
    """The expectation in words, as Great Expectations' own renderer puts it."""
    found.render()
    for content in found.expectation_config.rendered_content or ():
        params = {key: value.get("value") for key, value in (content.value.params or {}).items()}
        if content.value.template:
            return Template(content.value.template).safe_substitute(params)
    return f"{spec.expect} {spec.arguments}"


def _observed(result: dict[str, Any]) -> str:
    if "unexpected_percent" in result:
        return (
            f"{result['unexpected_count']:,} of {result['element_count'] - result.get('missing_count', 0):,} unexpected"
        )
    value = result.get("observed_value")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return f"{len(value)} values: {', '.join(map(str, value[:5]))}{', …' if len(value) > 5 else ''}"
    return "" if value is None else str(value)


def _exception_message(info: Any) -> str:
    """Great Expectations reports exceptions flat, or one for each metric."""
    for entry in [info, *(info.values() if isinstance(info, dict) else ())]:
        if isinstance(entry, dict) and entry.get("raised_exception"):
            return str(entry.get("exception_message", "")).split("\n")[0]
    return ""


def _rows(frame: "pd.DataFrame", indexes: list[Any]) -> Iterator[dict[str, Any]]:
    if indexes:
        yield from json.loads(frame.loc[indexes].to_json(orient="records", date_format="iso", date_unit="us"))
