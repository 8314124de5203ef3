"""The fourth asset: everything that the gates look at, measured of the candidate and of what it would replace."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dagster import (
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

from assets.ancestry import Ancestry, trace_ancestry
from assets.chain import Chain
from assets.shown import artifact_metadata, markdown_table
from ml_platform.contracts.evidence import CheckResult, GateResult, Verdict
from ml_platform.contracts.report import EvaluationReport
from ml_platform.lineage.artifacts import Artifact
from resources.manifests import Value
from resources.reporting import readable_failures, report_to
from resources.state import StoreResource

if TYPE_CHECKING:
    from ml_platform.evaluation.evaluate import Reference

CODE = ("contracts", "lineage/artifacts.py", "evaluation", "families/lora")

MARKS = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.INCONCLUSIVE: "?", Verdict.ERROR: "!"}


def eval_report_asset(chain: Chain) -> AssetsDefinition:
    """`eval_report` of one product."""
    product = chain.product
    settings = [product.spec.evaluation, product.guardrails, product.prompt, product.promotion_policy.confidence]

    @chain.asset(
        "eval_report",
        kinds={"huggingface", "scipy", "html"},
        code=CODE,
        settings=settings,
        upstream=["candidate"],
    )
    def eval_report(context: AssetExecutionContext, candidate: Value, store: StoreResource) -> MaterializeResult[Value]:
        """The candidate against the release in production, or against the bare base model where there is none.

        Both answer the same questions: the newest days, golden sets, attacks and harmless look-alikes.
        Paired statistics with bounds, by slice, cost and latency; HTML for people, JSON for the gates.
        The checks of the chain are measured here again, so that a check that was skipped helps nobody.
        """
        from ml_platform.evaluation.evaluate import evaluate_candidate, load_report

        with readable_failures():
            report, artifacts = report_to(context.log), store.store()
            traced = trace_ancestry(artifacts, candidate.value_sha256)
            artifacts.require_attested(traced.snapshot, traced.training_set)
            measured = evaluate_candidate(
                product,
                traced.training_set,
                traced.candidate,
                _reference(chain, store),
                _checks(chain, traced, store),
                artifacts,
                store.home,
                report,
            )
            found = load_report(measured)
        return MaterializeResult(
            value=Value.of(measured),
            metadata=_report_shown(found, measured) | artifact_metadata(measured),
            data_version=DataVersion(measured.sha256),
        )

    return eval_report


def gates_pass_check(chain: Chain) -> AssetChecksDefinition:
    """`gates_pass`, beside the report, for people to see; it blocks nothing, for held candidates are registered too."""

    @asset_check(
        asset=chain.key("eval_report"),
        partitions_def=chain.partitions,
        blocking=False,
    )
    def gates_pass(eval_report: Value, store: StoreResource) -> AssetCheckResult:
        """What the promotion policy says of this report: every gate must pass before a user meets the candidate."""
        from ml_platform.evaluation.evaluate import load_report
        from ml_platform.gates.assess import assess_release

        with readable_failures():
            report = load_report(store.store().open(eval_report.kind, eval_report.value_sha256))
            results = assess_release(chain.product.promotion_policy, report)
        failing = [result for result in results if result.verdict is not Verdict.PASS]
        reason = "; ".join(f"{result.gate}: {result.reason}" for result in failing)
        return AssetCheckResult(
            passed=not failing,
            severity=AssetCheckSeverity.WARN,
            description=reason or f"All {len(results)} gates pass.",
            metadata=gates_shown(results),
        )

    return gates_pass


def gates_shown(results: tuple[GateResult, ...]) -> dict[str, Any]:
    """The gates at a glance, and with claims and reasons; lists, for they wrap where tables are cut off."""
    glance = [
        f"- {MARKS[r.verdict]} `{r.gate}`" + ("" if r.verdict is Verdict.PASS else f" {r.verdict}") for r in results
    ]
    reasons = [f"- **{MARKS[r.verdict]} {r.verdict} `{r.gate}`** {r.claim} *{r.reason}*" for r in results]
    return {"gates": MetadataValue.md("\n".join(glance)), "gates_explained": MetadataValue.md("\n".join(reasons))}


def _reference(chain: Chain, store: StoreResource) -> "Reference":
    """The release in production with its weights and its prompt, or the bare base model."""
    from ml_platform.evaluation.evaluate import BASE, Reference
    from ml_platform.lineage.keys import trusted_keys, trusted_operators
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.lineage.standing import Trust
    from ml_platform.release.reference import find_reference

    trust = Trust(trusted_keys(store.home), trusted_operators(store.home))
    with Ledger(store.home.ledger_url).read(chain.product.name) as view:
        release = find_reference(view, trust, datetime.now(UTC))
    return Reference.of_release(release, chain.product, store.store()) if release else Reference(BASE)


def _checks(chain: Chain, traced: Ancestry, store: StoreResource) -> list[CheckResult]:
    from ml_platform.families.lora.prepare import leakage_of
    from ml_platform.snapshots.expectations import check_expectations

    expectations = check_expectations(chain.product, traced.snapshot, store.store())
    return [CheckResult.model_validate(expectations.facts["check"]), leakage_of(traced.training_set)]


def _report_shown(report: EvaluationReport, artifact: Artifact) -> dict[str, Any]:
    rows = [
        (
            f"`{m.metric}`",
            m.value,
            m.low if m.low is not None else "",
            m.high if m.high is not None else "",
            m.n,
            m.unit,
        )
        for m in report.measurements
        if not m.slice and m.value is not None
    ]
    headline = {f"measured/{m.metric}": m.value for m in report.measurements if not m.slice and m.value is not None}
    return {
        "summary": MetadataValue.md(artifact.text("summary.md")),
        "report_html": MetadataValue.path(str(artifact.file("report.html"))),
        "reference": MetadataValue.text(report.reference),
        "measurements": MetadataValue.md(markdown_table(("metric", "value", "low", "high", "n", "unit"), rows)),
        **{name: MetadataValue.float(round(float(value), 6)) for name, value in headline.items()},
    }
