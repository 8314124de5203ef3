"""Evaluate a candidate against a reference: everything that the gates look at, in one report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_platform
from ml_platform.contracts.canonical import sources_sha256
from ml_platform.contracts.evidence import CheckResult, Measurement
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Reporter, silent
from ml_platform.contracts.reading import parse_mapping
from ml_platform.contracts.report import EvaluationReport
from ml_platform.errors import ContractError
from ml_platform.evaluation.asking import BASE, Asked, Reference, ask
from ml_platform.evaluation.comparisons import compare_answers
from ml_platform.evaluation.generation import (
    ANSWERS,
    OpenPredictor,
    candidate_of,
    load_answers,
    load_latencies,
    open_lora,
)
from ml_platform.evaluation.items import Item
from ml_platform.evaluation.measurements import measure_answers, measure_latency
from ml_platform.evaluation.metrics import ScoredAnswer, score_answers
from ml_platform.evaluation.render import render_html, render_summary
from ml_platform.evaluation.slices import measure_slices, slices_of
from ml_platform.evaluation.view import Evaluated
from ml_platform.evaluation.wording import title
from ml_platform.lineage.artifacts import Artifact, ArtifactStore

__all__ = ["BASE", "Reference", "evaluate_candidate", "load_report"]

KIND = "eval_report"
REPORT = "report.json"


def evaluate_candidate(
    product: Product,
    training_set: Artifact,
    candidate: Artifact,
    reference: Reference,
    checks: Sequence[CheckResult],
    store: ArtifactStore,
    home: Home,
    report: Reporter = silent,
    open_predictor: OpenPredictor | None = None,
) -> Artifact:
    """The evaluation report, as `eval_report`: report.json, report.html, summary.md and both sides' answers.

    The candidate answers the test split and every golden set, the reference some of the same items.
    Answers, latencies and the report are each found again when nothing they depend on has changed.
    Raises ContractError for a reference that is neither `base` nor has a candidate and its prompt.
    """
    if {reference.candidate is None, reference.prompt is None} != {reference.name == BASE}:
        raise ContractError(
            f"reference '{reference.name}': '{BASE}' takes no candidate and no prompt, and a release needs its own "
            "ones. Give both."
        )
    asked = ask(product, training_set, candidate, reference, store, report, open_predictor or open_lora(home))
    inputs = _inputs(training_set, candidate, reference, asked)

    def build(folder: Path) -> dict[str, Any]:
        evaluated = _evaluated(product, candidate, reference, checks, asked, inputs)
        (folder / REPORT).write_bytes(evaluated.report.canonical_bytes() + b"\n")
        (folder / "report.html").write_bytes(render_html(evaluated).encode())
        (folder / "summary.md").write_bytes(render_summary(evaluated).encode())
        (folder / "answers_candidate.jsonl").write_bytes(asked.answers.read(ANSWERS))
        (folder / "answers_reference.jsonl").write_bytes(asked.reference_answers.read(ANSWERS))
        return _facts(evaluated.report, asked.items)

    recipe = {
        "product": product.name,
        "inputs": inputs,
        "notes": asked.notes,
        "reference": reference.name,
        "title": [product.spec.title, product.spec.description],
        "evaluation": product.spec.evaluation.model_dump(mode="json"),
        "prompt_sha256": product.prompt.sha256,
        "policy_sha256": product.promotion_policy.sha256,
        "checks": [check.model_dump(mode="json") for check in checks],
        "code_sha256": evaluation_code_sha256(),
    }
    return store.make(KIND, recipe, build)


def load_report(artifact: Artifact) -> EvaluationReport:
    """The report in an `eval_report` artifact. Raises ContractError or ArtifactCorruptError."""
    where = str(artifact.file(REPORT))
    return EvaluationReport.parse(parse_mapping(artifact.text(REPORT), where=where, as_json=True), where=where)


def evaluation_code_sha256() -> str:
    """The digest of everything that turns answers into a report, its templates included."""
    package = Path(ml_platform.__file__).parent
    templates = sorted((package / "evaluation" / "templates").iterdir())
    return sources_sha256([*sorted((package / "evaluation").glob("*.py")), *templates], package)


def _inputs(training_set: Artifact, candidate: Artifact, reference: Reference, asked: Asked) -> dict[str, str]:
    facts: Mapping[str, Any] = training_set.facts
    golden = {f"golden:{name}": str(sha256) for name, sha256 in dict(facts.get("golden", {})).items()}
    snapshot = {"snapshot": str(facts["snapshot_sha256"])} if "snapshot_sha256" in facts else {}
    other = {"reference_candidate": reference.candidate.sha256} if reference.candidate else {}
    return {
        **snapshot,
        **golden,
        **other,
        "training_set": training_set.sha256,
        "candidate": candidate.sha256,
        "candidate_answers": asked.answers.sha256,
        "reference_answers": asked.reference_answers.sha256,
        "latencies": asked.latencies.sha256,
    }


def _evaluated(
    product: Product,
    candidate: Artifact,
    reference: Reference,
    checks: Sequence[CheckResult],
    asked: Asked,
    inputs: dict[str, str],
) -> Evaluated:
    spec, confidence = product.spec.evaluation, product.promotion_policy.confidence
    scored = score_answers(asked.items, load_answers(asked.answers), spec)
    compared = score_answers(asked.compared, load_answers(asked.reference_answers), spec)
    latencies_ms = load_latencies(asked.latencies)
    measured = _measure(product, scored, latencies_ms)
    report = EvaluationReport(
        product=product.name,
        candidate_sha256=candidate.sha256,
        reference=reference.name,
        decoding=spec.decoding,
        confidence=confidence,
        inputs=inputs,
        measurements=measured,
        comparisons=compare_answers(scored, compared, spec, confidence),
        checks=tuple(checks),
        notes=(*asked.notes, *_unmeasured(measured)),
    )
    return Evaluated(product, report, candidate_of(candidate).as_of.isoformat(), scored, compared, latencies_ms)


def _measure(
    product: Product, scored: Sequence[ScoredAnswer], latencies_ms: Sequence[float]
) -> tuple[Measurement, ...]:
    spec, confidence = product.spec.evaluation, product.promotion_policy.confidence
    return (
        *measure_answers(scored, spec, confidence),
        *measure_latency(latencies_ms, confidence),
        *measure_slices(slices_of(scored), spec, confidence),
    )


def _unmeasured(measurements: Sequence[Measurement]) -> list[str]:
    """In words, what the product wants measured and no item could tell."""
    missing = [title(one.metric) for one in measurements if not one.slice and one.n == 0]
    return [f"Not measured, for want of items: {', '.join(missing)}."] if missing else []


def _facts(report: EvaluationReport, items: Sequence[Item]) -> dict[str, Any]:
    overall = [one for one in report.measurements if not one.slice]
    return {
        "product": report.product,
        "candidate_sha256": report.candidate_sha256,
        "reference": report.reference,
        "measurements": {one.metric: one.value for one in overall},
        "items": {name: sum(item.items == name for item in items) for name in sorted({item.items for item in items})},
    }
