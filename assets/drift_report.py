"""Beside the chain: what moved between what production's release learnt from and the days up to this one."""

from typing import Any

from dagster import AssetExecutionContext, AssetsDefinition, DataVersion, MaterializeResult, MetadataValue

from assets.chain import Chain
from assets.shown import artifact_metadata, markdown_table
from ml_platform.contracts.drift import ColumnDrift, DriftReport, Moved
from ml_platform.lineage.artifacts import Artifact
from resources.manifests import Value
from resources.reporting import readable_failures, report_to
from resources.state import StoreResource

CODE = ("contracts", "features", "lineage/artifacts.py", "monitoring/drift", "snapshots")
MARKS = {Moved.DRIFTED: "✗", Moved.STEADY: "✓", Moved.UNCLEAR: "?", Moved.NOT_TESTED: "–"}


def drift_report_asset(chain: Chain) -> AssetsDefinition:
    """`drift_report` of one product."""
    product = chain.product

    @chain.asset(
        "drift_report",
        kinds={"scipy", "evidently", "html"},
        code=CODE,
        settings=[product.features, product.monitor_policy.drift],
        upstream=["snapshot"],
    )
    def drift_report(context: AssetExecutionContext, snapshot: Value, store: StoreResource) -> MaterializeResult[Value]:
        """The days up to this one against what the release in production learnt from.

        Features and source tables, what people asked and what they were answered. Every column by the distance
        that fits it, corrected for all of them; a verdict takes an effect that matters, not only one that many rows
        can prove. Names the columns and slices that moved. The sensor of continuous training reads it; a day without
        data proves nothing.
        """
        from ml_platform.monitoring.drift.report import load_drift_report, make_drift_report

        with readable_failures():
            artifacts = store.store()
            taken = artifacts.open(snapshot.kind, snapshot.value_sha256)
            made = make_drift_report(product, taken, artifacts, store.home, report_to(context.log))
            found = load_drift_report(made)
        return MaterializeResult(
            value=Value.of(made),
            metadata=_shown(found) | _pages(made) | artifact_metadata(made),
            data_version=DataVersion(made.sha256),
        )

    return drift_report


def _pages(made: Artifact) -> dict[str, Any]:
    """The summary with its plots, as this page shows it, and where the whole report lies as HTML."""
    shown = {
        "summary": MetadataValue.md(made.file("summary.md").read_text(encoding="utf-8")),
        "report_html": MetadataValue.path(str(made.file("report.html"))),
    }
    if "evidently.html" in made.manifest.files:
        shown["evidently_html"] = MetadataValue.path(str(made.file("evidently.html")))
    return shown


def _shown(report: DriftReport) -> dict[str, Any]:
    parts = [
        (f"`{one.part}`", str(one.verdict), one.tested, one.drifted, one.unclear, one.reason) for one in report.parts
    ]
    return {
        "verdict": MetadataValue.text(str(report.verdict)),
        "parts": MetadataValue.md(markdown_table(("part", "verdict", "tested", "drifted", "unclear", "why"), parts)),
        "columns": MetadataValue.md(_columns(report.columns)),
        "slices_that_moved": MetadataValue.md(_columns(report.slices)),
        "effect": MetadataValue.float(round(report.effect, 4)),
        "compared_with": MetadataValue.text(report.release_id or "nothing: no release is in production"),
        "window": MetadataValue.text(
            f"{report.window_from:%Y-%m-%d %H:%M} to {report.window_until:%Y-%m-%d %H:%M} UTC"
        ),
    }


def _columns(columns: tuple[ColumnDrift, ...]) -> str:
    """A table of columns; what sources hold, such as names of categories, can become no markup."""
    from ml_platform.monitoring.drift.page import in_order, plain_markdown

    rows = [
        (MARKS[one.moved], *map(plain_markdown, (one.name, one.reason, one.reference_value, one.current_value)))
        for one in in_order(columns)
    ]
    return markdown_table(("", "column", "finding", "reference", "now"), rows) if rows else "None."
