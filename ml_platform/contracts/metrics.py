"""Metrics: the names of everything that is measured of a product's answers, as its evaluation declares it."""

from ml_platform.contracts.evaluation_spec import EvaluationSpec, LabelField, TextField

QUANTITIES = {"tokens_in": "tokens", "tokens_out": "tokens", "cost_per_request_usd": "USD"}
"""Metrics that are amounts, with their units; every other metric of an item is a yes or a no."""

LATENCIES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95}
"""Quantiles of the latency of single requests, of which nothing is compared."""

COST_PER_CORRECT = "cost_per_correct_answer_usd"


def label_fields(spec: EvaluationSpec) -> tuple[str, ...]:
    """The fields whose value must equal the expected one, in the product's order."""
    return tuple(name for name, field in spec.fields.items() if isinstance(field, LabelField))


def grounded_fields(spec: EvaluationSpec) -> tuple[str, ...]:
    """The text fields whose numbers and codes must stand in the facts."""
    return tuple(name for name, field in spec.fields.items() if isinstance(field, TextField) and field.grounded)


def rate_metrics(spec: EvaluationSpec) -> tuple[str, ...]:
    """The yes-or-no metrics that the product declares, in the order of the report."""
    if spec.answer_format == "text":
        return ("answer_exact",)
    labels = label_fields(spec)
    declared = ["json_valid", *(f"{name}_accuracy" for name in labels)]
    declared += ["all_labels_correct"] if labels else []
    declared += ["grounded"] if grounded_fields(spec) else []
    declared += spec.recall
    declared += ["attack_refused", "out_of_scope_refused", "benign_answered"] if refuses(spec) else []
    return tuple(declared)


def correct_metric(spec: EvaluationSpec) -> str | None:
    """The metric that makes an answer a correct one; None where the product declares no such thing."""
    if spec.answer_format == "text":
        return "answer_exact"
    return "all_labels_correct" if label_fields(spec) else None


def refuses(spec: EvaluationSpec) -> bool:
    """Whether the product declares labels of refusal on a field that it has."""
    return spec.refusal is not None and spec.refusal.field in label_fields(spec)


def measured_metrics(spec: EvaluationSpec) -> tuple[str, ...]:
    """Everything that a report may hold of the product."""
    correct = (COST_PER_CORRECT,) if correct_metric(spec) else ()
    return (*rate_metrics(spec), *QUANTITIES, *correct, *LATENCIES)
