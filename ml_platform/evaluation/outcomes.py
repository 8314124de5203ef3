"""Outcomes: what labels were given against what was expected, and against what then really happened."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ml_platform.contracts.evaluation_spec import EvaluationSpec, LabelField, RecallSpec
from ml_platform.contracts.evidence import Measurement
from ml_platform.contracts.labels import is_among, label_text
from ml_platform.contracts.metrics import label_fields
from ml_platform.evaluation.figures import Row
from ml_platform.evaluation.intervals import share_bounds
from ml_platform.evaluation.metrics import ScoredAnswer, foretells, happened
from ml_platform.evaluation.view import Evaluated

INVALID = "(not valid)"
OTHERS = "(others)"
MOST_LABELS = 12


@dataclass(frozen=True)
class Foresight:
    """What a level of warning was worth: how often it was given, and how often it then came true."""

    name: str
    field: str
    outcome: str
    levels: tuple[Row, ...]
    base_rate: float
    warned: Measurement
    ideal: float | None
    precision: Row | None


@dataclass(frozen=True)
class Confusion:
    """How often each expected label was answered by each label."""

    field: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def foresights(evaluated: Evaluated) -> list[Foresight]:
    """For every recall that the product declares and that has known outcomes, what the warnings were worth."""
    found = [_foresight(evaluated, name, recall) for name, recall in evaluated.spec.recall.items()]
    return [one for one in found if one is not None]


def _foresight(evaluated: Evaluated, name: str, recall: RecallSpec) -> Foresight | None:
    warned = evaluated.report.measurement(name)
    asked = [
        one
        for one in evaluated.scored
        if one.example.kind == "answer" and foretells(one.example, recall, evaluated.spec)
    ]
    if warned is None or not asked:
        return None
    true = [bool(happened(one.example, recall.outcome)) for one in asked]
    levels = [INVALID if (value := one.field(recall.field)) is None else label_text(value) for one in asked]
    order = sorted(set(levels), key=lambda level: (_rank(level, recall), level))
    confidence = evaluated.report.confidence
    rows = tuple(
        _share_row(level, [was for was, said in zip(true, levels, strict=True) if said == level], confidence)
        for level in order
    )
    positive = [was for was, said in zip(true, levels, strict=True) if is_among(said, recall.positive)]
    expected = [
        is_among(_expected(one, recall.field), recall.positive) for one, was in zip(asked, true, strict=True) if was
    ]
    return Foresight(
        name=name,
        field=recall.field,
        outcome=recall.outcome,
        levels=rows,
        base_rate=sum(true) / len(true),
        warned=warned,
        ideal=sum(expected) / len(expected) if expected else None,
        precision=_share_row("", positive, confidence) if positive else None,
    )


def _rank(level: str, recall: RecallSpec) -> int:
    """Unwarned levels first, then the warnings as the product orders them, the invalid last."""
    if level == INVALID:
        return 1_000
    return recall.positive.index(level) + 1 if level in recall.positive else 0


def _share_row(label: str, values: Sequence[bool], confidence: float) -> Row:
    bounds = share_bounds(sum(values), len(values), confidence)
    return Row(label, sum(values) / len(values), bounds.low, bounds.high, len(values))


def confusions(evaluated: Evaluated) -> list[Confusion]:
    """A matrix for every label field that some item expects, the commonest labels first."""
    answers = [one for one in evaluated.scored if one.example.kind == "answer"]
    found = [_confusion(name, answers, evaluated.spec) for name in label_fields(evaluated.spec)]
    return [one for one in found if one.rows]


def _confusion(name: str, answers: Sequence[ScoredAnswer], spec: EvaluationSpec) -> Confusion:
    asked = [one for one in answers if isinstance(one.example.answer, dict) and name in one.example.answer]
    pairs = [(label_text(_expected(one, name)), _answered(one, name)) for one in asked]
    declared = spec.fields[name]
    order = list(declared.values or ()) if isinstance(declared, LabelField) else []
    order += [value for recall in spec.recall.values() if recall.field == name for value in recall.positive]
    totals = Counter(expected for expected, _ in pairs)
    answered = Counter(label for _, label in pairs if label not in totals and label != INVALID)
    commonest = [label for counter in (totals, answered) for label in sorted(counter, key=lambda x: (-counter[x], x))]
    kept = sorted(commonest[:MOST_LABELS], key=lambda label: order.index(label) if label in order else -1)
    pairs = [(_folded(expected, kept), _folded(answered, kept)) for expected, answered in pairs]
    extra = [label for label in (OTHERS, INVALID) if any(label in pair for pair in pairs)]
    rows = tuple(label for label in (*kept, OTHERS) if any(label == expected for expected, _ in pairs))
    columns = (*kept, *extra)
    counted = Counter(pairs)
    return Confusion(name, rows, columns, tuple(tuple(counted[row, column] for column in columns) for row in rows))


def _folded(label: str, kept: Sequence[str]) -> str:
    return label if label in kept or label == INVALID else OTHERS


def _answered(one: ScoredAnswer, name: str) -> str:
    value = one.field(name)
    return INVALID if value is None else label_text(value)


def _expected(one: ScoredAnswer, name: str) -> object:
    return one.example.answer.get(name) if isinstance(one.example.answer, dict) else None
