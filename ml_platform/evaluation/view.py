"""View: what the report shows, worked out as plain values so that the templates only lay out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.evidence import Comparison, Measurement
from ml_platform.contracts.metrics import correct_metric, grounded_fields, rate_metrics
from ml_platform.contracts.products import Product
from ml_platform.contracts.report import EvaluationReport
from ml_platform.evaluation.figures import Row
from ml_platform.evaluation.groundedness import ungrounded
from ml_platform.evaluation.metrics import ScoredAnswer
from ml_platform.evaluation.wording import title

MOST_SLICES = 12
MOST_LINES = 400
WORST = 8
MOST_SAFETY = 5


@dataclass(frozen=True)
class Evaluated:
    """A report with the answers that it rests on."""

    product: Product
    report: EvaluationReport
    as_of: str
    scored: Sequence[ScoredAnswer]
    compared: Sequence[ScoredAnswer]
    latencies_ms: Sequence[float]

    @property
    def spec(self) -> EvaluationSpec:
        """What the product wants measured."""
        return self.product.spec.evaluation

    @property
    def judged_by(self) -> str:
        """The metric that slices are judged by: correct answers where the product can tell, else valid ones."""
        return correct_metric(self.spec) or "json_valid"

    @property
    def reference_title(self) -> str:
        """The reference in words."""
        return "the bare base model" if self.report.reference == "base" else f"release {self.report.reference[:12]}"


def headline(evaluated: Evaluated) -> list[Measurement]:
    """The measured metrics, over all items, that a reader wants first."""
    spec = evaluated.spec
    wanted = [correct_metric(spec), "json_valid", "grounded", *spec.recall, "attack_refused", "benign_answered"]
    wanted += ["cost_per_request_usd", "latency_p95_ms"]
    found = [evaluated.report.measurement(metric) for metric in dict.fromkeys(filter(None, wanted))]
    return [one for one in found if one is not None and one.value is not None]


def rates(evaluated: Evaluated) -> list[Row]:
    """Every measured yes-or-no metric with the reference's share beside it."""
    references = {one.metric: one.reference for one in evaluated.report.comparisons if not one.slice}
    return [
        Row(title(one.metric), one.value, one.low, one.high, one.n, references.get(one.metric))
        for one in (evaluated.report.measurement(metric) for metric in rate_metrics(evaluated.spec))
        if one is not None and one.value is not None
    ]


def slice_rows(evaluated: Evaluated) -> list[Row]:
    """The correct answers by slice, the largest slices of each dimension first."""
    metric = evaluated.judged_by
    shown: Counter[str] = Counter()
    rows = []
    for one in evaluated.report.measurements:
        if one.metric != metric or not one.slice or one.value is None:
            continue
        dimension, value = next(iter(one.slice.items()))
        shown[dimension] += 1
        if shown[dimension] <= MOST_SLICES:
            heading = dimension.replace("_", " ").upper() if shown[dimension] == 1 else ""
            rows.append(Row(value, one.value, one.low, one.high, one.n, heading=heading))
    return rows


def slice_measurements(evaluated: Evaluated) -> list[Measurement]:
    """Every metric on every slice, the first MOST_LINES of them; report.json holds all."""
    return [one for one in evaluated.report.measurements if one.slice][:MOST_LINES]


def slices_by_metric(evaluated: Evaluated, metric: str) -> list[Measurement]:
    """One metric on every slice that it applies to."""
    return [one for one in evaluated.report.measurements if one.metric == metric and one.slice][:MOST_SLICES]


def overall_comparisons(evaluated: Evaluated) -> list[Comparison]:
    """The comparisons over all common items."""
    return [one for one in evaluated.report.comparisons if not one.slice]


def slice_comparisons(evaluated: Evaluated, at_most: int = 15) -> list[Comparison]:
    """The slices of the correct answers in which candidate and reference differ, the worst loss first."""
    metric = evaluated.judged_by
    found = [one for one in evaluated.report.comparisons if one.slice and one.metric == metric and one.difference]
    return sorted(found, key=lambda one: (one.difference or 0.0, sorted(one.slice.items())))[:at_most]


def failures(one: ScoredAnswer, spec: EvaluationSpec) -> tuple[str, ...]:
    """The metrics that an answer fails. A missed outcome is none: the facts may not have foretold it."""
    return tuple(metric for metric in rate_metrics(spec) if metric not in spec.recall and one.scores.get(metric) == 0.0)


def worst_answers(evaluated: Evaluated) -> list[ScoredAnswer]:
    """The answers that fail most, first one of every kind of failure; the same on every machine."""
    failing = [one for one in evaluated.scored if one.example.kind == "answer" and failures(one, evaluated.spec)]
    failing.sort(key=lambda one: (-len(failures(one, evaluated.spec)), one.item.order))
    first = {failures(one, evaluated.spec): one for one in reversed(failing)}
    leading = [one for one in failing if first[failures(one, evaluated.spec)] is one]
    return [*leading, *(one for one in failing if first[failures(one, evaluated.spec)] is not one)][:WORST]


def safety_answers(evaluated: Evaluated, kind: str, score: float) -> list[ScoredAnswer]:
    """A few attacks, or a few harmless look-alikes, that were handled well (1) or badly (0)."""
    metric = {"attack": "attack_refused", "benign": "benign_answered"}[kind]
    found = [one for one in evaluated.scored if one.example.kind == kind and one.scores.get(metric) == score]
    return sorted(found, key=lambda one: one.item.order)[:MOST_SAFETY]


def unsupported(one: ScoredAnswer, spec: EvaluationSpec) -> tuple[str, ...]:
    """What the reply states and neither the facts nor the question hold."""
    replies = [str(one.field(name) or "") for name in grounded_fields(spec)]
    return tuple(
        dict.fromkeys(
            found for reply in replies for found in ungrounded(reply, one.example.facts, one.example.utterance)
        )
    )
