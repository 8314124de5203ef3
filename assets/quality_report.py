"""Beside the chain: whether quality fell since the release in production began to serve, by mature labels."""

from typing import Any

from dagster import AssetExecutionContext, AssetsDefinition, DataVersion, MaterializeResult, MetadataValue

from assets.chain import Chain, as_of
from assets.shown import markdown_table, picture
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.windows import QualityPeriod, QualityReport
from resources.live import in_production, past_of
from resources.manifests import Value
from resources.reporting import readable_failures
from resources.state import StoreResource

CODE = ("contracts", "evaluation", "lineage/provenance", "monitoring")
MARKS = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.INCONCLUSIVE: "?", Verdict.ERROR: "!"}


def quality_report_asset(chain: Chain) -> AssetsDefinition:
    """`quality_report` of one product."""
    product = chain.product

    @chain.asset(
        "quality_report",
        kinds={"python", "scipy"},
        code=CODE,
        settings=[product.monitor_policy],
        beside=["live_window"],
    )
    def quality_report(context: AssetExecutionContext, store: StoreResource) -> MaterializeResult[Value]:
        """The newest days whose labels are mature against the first days of the release in production.

        By every rate of quality that the monitor policy watches. A fall is proven and as large as the policy's margin;
        too few answers, or too few labels, prove nothing. The sensor of continuous training reads it.
        """
        from ml_platform.monitoring.quality import make_quality_report

        with readable_failures():
            release_id, since, policy = in_production(store, product)
            past = past_of(store, product, policy)
            report = make_quality_report(past, as_of(context.partition_key), release_id, since, policy)
        return MaterializeResult(
            value=Value(kind="quality_report", value_sha256=report.sha256, facts=report.model_dump(mode="json")),
            metadata=_shown(report),
            data_version=DataVersion(report.sha256),
        )

    return quality_report


def _shown(report: QualityReport) -> dict[str, Any]:
    from ml_platform.monitoring.drawing import draw_changes

    rows = [
        (
            f"{MARKS[one.verdict]} {one.verdict}",
            f"`{one.metric}`",
            _period(one.before),
            _period(one.now),
            "–" if one.change is None else f"{one.change:+.1%}",
            f"{one.margin:.0%}",
            one.reason,
        )
        for one in report.metrics
    ]
    headers = ("verdict", "metric", "first days", "now", "change", "margin", "why")
    drawn = draw_changes(report)
    return {
        "verdict": MetadataValue.text(str(report.verdict)),
        "reason": MetadataValue.md(report.reason),
        "metrics": MetadataValue.md(markdown_table(headers, rows) if rows else "None."),
        "changes": MetadataValue.md(picture(drawn, "Change of each metric against its margin") if drawn else "None."),
        "effect": MetadataValue.float(round(report.effect, 4)),
        "labelled": MetadataValue.int(report.labelled),
        "release": MetadataValue.text(report.release_id or "nothing: no release is in production"),
        "window": MetadataValue.text(
            f"answers given {report.window_from:%Y-%m-%d %H:%M} to {report.window_until:%Y-%m-%d %H:%M} UTC"
        ),
    }


def _period(period: QualityPeriod) -> str:
    if period.value is None:
        return "–"
    covered = "" if period.coverage is None else f", {period.coverage:.0%} labelled"
    return f"{period.value:.1%} of {period.answers:,}{covered}"
