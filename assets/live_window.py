"""Beside the chain: what the product's live traffic of a day was like, arm by arm."""

from typing import Any

from dagster import AssetExecutionContext, AssetsDefinition, DataVersion, MaterializeResult, MetadataValue

from assets.chain import Chain, as_of
from assets.shown import line_plot, markdown_table, picture
from ml_platform.contracts.windows import ArmWindow, WindowReport
from resources.live import past_of
from resources.manifests import Value
from resources.reporting import readable_failures
from resources.state import StoreResource

CODE = ("contracts", "evaluation", "lineage/provenance", "monitoring")


def live_window_asset(chain: Chain) -> AssetsDefinition:
    """`live_window` of one product."""
    product = chain.product

    @chain.asset("live_window", kinds={"python", "scipy"}, code=CODE, settings=[product.monitor_policy.label_age_hours])
    def live_window(context: AssetExecutionContext, store: StoreResource) -> MaterializeResult[Value]:
        """The answers of one day of the product's time, from the gateway's records, as known by now.

        By release and arm as assigned: errors, latency, form, groundedness, refusals, blocks, feedback, warnings that
        came true, promises missed, cost, lengths, intents; how far labels cover the answers, and which outcomes were
        none: late, twice, against each other or against time. Materialize it again when more labels are mature.
        """
        from ml_platform.monitoring.windows import make_window_report

        with readable_failures():
            report = make_window_report(past_of(store, product), as_of(context.partition_key))
        return MaterializeResult(
            value=Value(kind="live_window", value_sha256=report.sha256, facts=report.model_dump(mode="json")),
            metadata=_shown(report),
            data_version=DataVersion(report.sha256),
        )

    return live_window


def arm_name(arm: ArmWindow) -> str:
    """For people: the cohort and the release."""
    return f"{arm.cohort} {(arm.release_id or 'nothing')[:12]}"


def _shown(report: WindowReport) -> dict[str, Any]:
    notes = [*report.notes, *([f"{report.damaged} records could not be read."] if report.damaged else [])]
    return {
        "answers": MetadataValue.int(report.answers),
        "known_until": MetadataValue.text(f"{report.known_until:%Y-%m-%d %H:%M} UTC of the product's time"),
        "notes": MetadataValue.md("\n".join(f"- {note}" for note in notes) or "None."),
        "arms": MetadataValue.md(_arms(report)),
        "measures": MetadataValue.md(_measures(report)),
        "labels": MetadataValue.md(_labels(report)),
        "answers_say": MetadataValue.md(_said(report)),
        "latency": MetadataValue.md(_latency(report)),
        "longest_gap_seconds": MetadataValue.float(round(report.longest_gap_seconds or 0.0, 3)),
        "conflicts": MetadataValue.int(report.conflicts),
        "skewed_clocks": MetadataValue.int(report.skewed),
    }


def _arms(report: WindowReport) -> str:
    rows = [
        (
            arm_name(arm),
            arm.answers,
            arm.users,
            f"{arm.least_exposure:.0%} to {arm.most_exposure:.0%}",
            ", ".join(f"{count} x {kind}" for kind, count in arm.errors.items()) or "none",
            ", ".join(f"{count} x {kind}" for kind, count in arm.feedback.items()) or "none",
        )
        for arm in report.arms
    ]
    return markdown_table(("arm", "answers", "users", "exposure", "recorded errors", "feedback"), rows)


def _measures(report: WindowReport) -> str:
    """One row a measurement, one column an arm: arms are there to be compared."""
    names = [(one.group, one.name, one.unit) for one in report.arms[0].measures] if report.arms else []
    rows = []
    for group, name, unit in names:
        cells = [arm.measure(name) for arm in report.arms]
        rows.append((str(group), f"`{name}`", unit, *(_cell(one) for one in cells)))
    return markdown_table(("about", "measurement", "unit", *(arm_name(arm) for arm in report.arms)), rows)


def _cell(measure: Any) -> str:
    if measure is None or measure.value is None:
        return "–"
    bounds = "" if measure.low is None or measure.high is None else f" ({measure.low:.3g} to {measure.high:.3g})"
    return f"{measure.value:.3g}{bounds} of {measure.answers:,}"


def _labels(report: WindowReport) -> str:
    rows = [
        (
            arm_name(arm),
            arm.labels.mature,
            arm.labels.labelled,
            "–" if arm.labels.coverage is None else f"{arm.labels.coverage:.0%}",
            arm.labels.waiting,
            ", ".join(f"{count} {flaw}" for flaw, count in arm.labels.flaws.items()) or "none",
        )
        for arm in report.arms
    ]
    return markdown_table(("arm", "mature", "labelled", "coverage", "waiting", "outcomes that did not count"), rows)


def _said(report: WindowReport) -> str:
    rows = [
        (arm_name(arm), f"`{field}`", ", ".join(f"{value} {share:.0%}" for value, share in shares.items()))
        for arm in report.arms
        for field, shares in arm.said.items()
    ]
    return markdown_table(("arm", "field", "answers say"), rows) if rows else "Nothing."


def _latency(report: WindowReport) -> str:
    series = {}
    for arm in report.arms[:3]:
        found = [(q, arm.measure(f"latency_p{q}")) for q in (50, 95, 99)]
        points = [(float(q), one.value) for q, one in found if one is not None and one.value is not None]
        if points:
            series[arm_name(arm)] = points
    drawn = line_plot(series, "Latency by percentile (ms)", "percentile of answers")
    return picture(drawn, "Latency by percentile, one line an arm") if drawn else "Nobody asked."
