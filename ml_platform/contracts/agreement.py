"""Agreement: what one file of a product says of another is true; asked where a product's folder is read."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ml_platform.contracts.evaluation_spec import EvaluationSpec, LabelField
from ml_platform.contracts.explain import nearest_name
from ml_platform.contracts.mandatory import why_in_name_only
from ml_platform.contracts.metrics import (
    QUANTITIES,
    grounded_fields,
    label_fields,
    measured_metrics,
    rate_metrics,
    refuses,
)
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.policy import CheckGate, Gate, PairedGate, SliceGate
from ml_platform.contracts.reach import unreached
from ml_platform.contracts.source import ColumnType
from ml_platform.errors import ContractError

if TYPE_CHECKING:
    from ml_platform.contracts.products import Product

CHECKS = ("schema_valid", "no_leakage")
"""The checks of the chain that a report holds."""

LONGEST_LABEL_FIELD = 54
"""Characters: `<field>_accuracy` is the name of a metric, which has at most 63."""


def require_agreement(product: "Product") -> None:
    """Raises ContractError with every name and gate in a product's files that the others give no meaning, one a line.

    What ledgers and releases keep is not asked: it was in order when it was read, by the rules of its day.
    """
    files, evaluation = product.spec.files, product.spec.evaluation
    here = product.folder / "product.yaml"
    found = (
        (here, _of_evaluation(evaluation)),
        (product.folder / files.promotion_policy, _of_gates(product)),
        (product.folder / files.monitor_policy, _of_signals(product)),
        (product.folder / files.guardrails, _of_safe_labels(product)),
        (product.folder / (files.action_policy or ""), _of_levels(product)),
        (product.folder / (files.serving or "product.yaml"), _of_requests(product)),
    )
    if problems := [f"{path}: {problem}" for path, some in found for problem in some]:
        raise ContractError("\n".join(problems))


def _of_evaluation(spec: EvaluationSpec) -> Iterator[str]:
    if spec.decoding.temperature:
        yield (
            f"evaluation.decoding.temperature is {spec.decoding.temperature:g}: answers are generated greedily, "
            "so that they can be generated again. Leave it out."
        )
    for name in label_fields(spec):
        if len(name) > LONGEST_LABEL_FIELD:
            yield f"evaluation.fields.{name}: a label field's name has at most {LONGEST_LABEL_FIELD} characters."
    names = measured_metrics(spec)
    for name, recall in spec.recall.items():
        key = f"evaluation.recall.{name}"
        if names.count(name) > 1:
            yield f"{key}: another metric is called so already. Rename it."
        yield from _of_labels(spec, key, recall.field, recall.positive)
    if spec.refusal:
        labels = (*spec.refusal.out_of_scope, *spec.refusal.attack)
        yield from _of_labels(spec, "evaluation.refusal", spec.refusal.field, labels)


def _of_labels(spec: EvaluationSpec, key: str, field: str, labels: Iterable[str]) -> Iterator[str]:
    """What is wrong with labels that some file says a label field may have."""
    judged = spec.fields.get(field)
    if not isinstance(judged, LabelField):
        yield f"{key}: there is no label field '{field}': {nearest_name(field, label_fields(spec))}"
        return
    for label in labels:
        if not judged.allows(label):
            yield f"{key}: '{field}' never is '{label}': {nearest_name(label, judged.values or ())}"


def _of_gates(product: "Product") -> Iterator[str]:
    if wrong := why_in_name_only(product.promotion_policy):
        yield f"{wrong}. Correct the gates, or rename them and add the mandatory ones."
    if (steps := product.promotion_policy.canary.steps)[-1] >= 1.0:
        nobody = "with all users at the canary nobody is left to compare it with; the promotion gives it all"
        yield f"canary.steps: the last one must be below 1.0, found {list(steps)}: {nobody}"
    for gate in product.promotion_policy.gates:
        if isinstance(gate, CheckGate):
            if gate.check not in CHECKS:
                yield f"gate '{gate.gate}': there is no check '{gate.check}': {nearest_name(gate.check, CHECKS)}"
            continue
        known = _metrics_for(gate, product.spec.evaluation)
        for metric in gate.metrics if isinstance(gate, PairedGate) else (gate.metric,):
            if metric not in known:
                yield f"gate '{gate.gate}': '{metric}' is not measured there: {nearest_name(metric, known)}"
        if isinstance(gate, SliceGate):
            yield from _of_dimensions(product, gate)


def _metrics_for(gate: Gate, spec: EvaluationSpec) -> tuple[str, ...]:
    """The metrics that a kind of gate can look at: amounts are not sliced, latencies not compared."""
    if isinstance(gate, SliceGate):
        return rate_metrics(spec)
    return (*rate_metrics(spec), *QUANTITIES) if isinstance(gate, PairedGate) else measured_metrics(spec)


def _of_dimensions(product: "Product", gate: SliceGate) -> Iterator[str]:
    """Hooks and golden sets may bring slices of their own, which nothing here tells."""
    examples = product.spec.examples
    if examples.hook is not None or product.spec.evaluation.golden_sets:
        return
    for one in gate.dimensions:
        if one not in examples.slices:
            yield f"gate '{gate.gate}': '{one}' is no slice of the examples: {nearest_name(one, examples.slices)}"


def _of_signals(product: "Product") -> Iterator[str]:
    """A metric of a signal that never shows would keep every canary waiting for its proof."""
    spec, policy = product.spec.evaluation, product.monitor_policy
    needs = {
        Signal.INVALID: (spec.answer_format == "json", "answer_format json"),
        Signal.UNGROUNDED: (bool(grounded_fields(spec)), "a text field that is grounded"),
        Signal.REFUSED: (refuses(spec), "evaluation.refusal"),
        Signal.MISSED: (bool(spec.recall), "evaluation.recall"),
        Signal.FALSE_ALARM: (bool(spec.recall), "evaluation.recall"),
    }
    watched = [(f"metric '{one.metric}'", one.signal) for one in policy.metrics]
    for name, signal in (*watched, *((f"hard limit on '{one.signal}'", one.signal) for one in policy.hard_limits)):
        shows, need = needs.get(signal, (True, ""))
        if not shows:
            yield f"{name}: no answer of this product shows '{signal}', which needs {need}. Leave it out."


def _of_safe_labels(product: "Product") -> Iterator[str]:
    for field, label in product.guardrails.safe_labels.items():
        yield from _of_labels(product.spec.evaluation, f"safe_labels.{field}", field, (label,))


def _of_levels(product: "Product") -> Iterator[str]:
    """An action policy whose field or fact is misspelt would teach one level quietly, whatever the facts."""
    policy, spec = product.action_policy, product.spec
    if policy is None:
        return
    if spec.evaluation.answer_format == "json" or policy.shown_as is None:
        levels = (*(one.level for one in policy.levels), policy.otherwise)
        yield from _of_labels(spec.evaluation, f"field '{policy.field}'", policy.field, levels)
    if spec.examples.hook is None:
        for fact in dict.fromkeys(rule.fact for level in policy.levels for rule in level.any):
            if fact not in spec.examples.facts:
                yield f"there is no fact '{fact}' in the examples: {nearest_name(fact, spec.examples.facts)}"
            elif not _is_number(product, fact):
                yield f"the fact '{fact}' is no number, so no rule on it ever holds. Choose a number."


def _is_number(product: "Product", fact: str) -> bool:
    sources, features = product.spec.sources, product.features
    source, column = product.spec.examples.source or "", fact
    for view in features.views.values() if features else ():
        if fact in view.aggregates:
            return True
        if fact in view.columns:
            source, column = view.source, view.columns[fact]
    kind = sources[source].columns.get(column) if source in sources else None
    return kind in (None, ColumnType.INTEGER, ColumnType.NUMBER)


def _of_requests(product: "Product") -> Iterator[str]:
    shown = product.action_policy.shown_as if product.action_policy else None
    facts = tuple(fact for fact in product.spec.examples.facts if fact != shown)
    yield from unreached(product.serving, product.spec.sources, product.features, facts)
