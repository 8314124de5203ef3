"""The first asset: an immutable extract of the sources, and the check that it looks as it must."""

import json
from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetExecutionContext,
    AssetsDefinition,
    DataVersion,
    MaterializeResult,
    MetadataValue,
    asset_check,
)

from assets.chain import Chain, as_of
from assets.shown import artifact_metadata, markdown_table, table
from ml_platform.contracts.evidence import CheckResult
from ml_platform.contracts.snapshot import SnapshotManifest, SnapshotOrigin
from ml_platform.lineage.artifacts import Artifact
from resources.manifests import Value
from resources.reporting import readable_failures, report_to
from resources.state import StoreResource

CODE = ("contracts", "lineage/answered.py", "lineage/artifacts.py", "snapshots")


def snapshot_asset(chain: Chain) -> AssetsDefinition:
    """`snapshot` of one product."""
    sources = {name: source.model_dump(mode="json") for name, source in chain.product.spec.sources.items()}

    @chain.asset("snapshot", kinds={"python", "parquet"}, code=CODE, settings=[sources])
    def snapshot(context: AssetExecutionContext, store: StoreResource) -> MaterializeResult[Value]:
        """What was known at the end of the day, and nothing later: one Parquet file a source table.

        Immutable and named by its digest. Rows that do not fit their declaration are set aside in a quarantine
        file with the reason. Taking the same day again gives the same bytes.
        """
        from ml_platform.lineage.answered import AnswerHistory
        from ml_platform.snapshots.extract import manifest_of, take_snapshot

        with readable_failures(), AnswerHistory.at(store.home) as history:
            day, report = as_of(context.partition_key), report_to(context.log)
            origins: list[SnapshotOrigin] = []
            taken = take_snapshot(chain.product, day, store.store(), report, history=history, tell=origins.append)
        return MaterializeResult(
            value=Value.of(taken),
            metadata=_tables_shown(manifest_of(taken), origins[0]) | artifact_metadata(taken),
            data_version=DataVersion(taken.sha256),
        )

    return snapshot


def schema_valid_check(chain: Chain) -> AssetChecksDefinition:
    """`schema_valid`, beside the snapshot; it blocks what stands downstream in the same run."""

    @asset_check(
        asset=chain.key("snapshot"),
        partitions_def=chain.partitions,
        blocking=True,
    )
    def schema_valid(context: AssetCheckExecutionContext, snapshot: Value, store: StoreResource) -> AssetCheckResult:
        """Every table has the declared columns, types and keys, and meets the product's expectations."""
        from ml_platform.snapshots.expectations import check_expectations

        with readable_failures():
            taken = store.store().open(snapshot.kind, snapshot.value_sha256)
            found = check_expectations(chain.product, taken, store.store(), report_to(context.log))
        return check_shown(CheckResult.model_validate(found.facts["check"]), _failing_rows_shown(found))

    return schema_valid


def check_shown(result: CheckResult, metadata: dict[str, Any]) -> AssetCheckResult:
    """A check of the chain as Dagster shows it; it protects nothing by itself, the gates do."""
    problems = "\n".join(f"- {problem}" for problem in result.problems)
    return AssetCheckResult(
        passed=result.passed,
        severity=AssetCheckSeverity.ERROR,
        description=result.problems[0] if result.problems else f"{result.examined:,} examined, nothing wrong.",
        metadata={
            "examined": MetadataValue.int(result.examined),
            "problems": MetadataValue.md(problems or "None."),
            **metadata,
        },
    )


def _failing_rows_shown(expectations: Artifact) -> dict[str, Any]:
    lines = expectations.file("failing_rows.jsonl").read_text(encoding="utf-8").splitlines()
    shown: dict[str, Any] = {
        "expectations": MetadataValue.int(int(expectations.facts.get("expectations", 0))),
        "failing_rows": MetadataValue.int(len(lines)),
        "report_html": MetadataValue.path(str(expectations.file("index.html"))),
    }
    if lines:
        shown["first_failing_rows"] = table(json.loads(line) for line in lines)
    return shown


def _tables_shown(manifest: SnapshotManifest, origin: SnapshotOrigin) -> dict[str, Any]:
    headers = ("table", "rows", "not yet known", "quarantined", "first event", "last event")
    rows = [
        (
            f"`{name}`",
            facts.rows,
            origin.not_yet_known[name],
            facts.quarantined,
            f"{facts.first_event:%Y-%m-%d %H:%M}" if facts.first_event else "",
            f"{facts.last_event:%Y-%m-%d %H:%M}" if facts.last_event else "",
        )
        for name, facts in manifest.tables.items()
    ]
    columns = [
        {"table": name, "column": column, "type": str(kind)}
        for name, facts in manifest.tables.items()
        for column, kind in facts.columns.items()
    ]
    return {
        "tables": MetadataValue.md(markdown_table(headers, rows)),
        "columns": table(columns),
        "dagster/row_count": MetadataValue.int(sum(facts.rows for facts in manifest.tables.values())),
        "cutoff": MetadataValue.text(manifest.cutoff.isoformat()),
        "sources": MetadataValue.json(origin.sources),
    }
