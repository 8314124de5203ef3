"""Soundness: whether an example can teach what the product promises, before any compute is spent on it."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ml_platform.contracts.canonical import canonical_bytes
from ml_platform.contracts.evaluation_spec import EvaluationSpec, LabelField, TextField
from ml_platform.contracts.example import Example, FactValue
from ml_platform.contracts.labels import label_text
from ml_platform.errors import SourceDataError

SHOWN = 3

_DIGITS = re.compile(r"\d+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def sound_examples(examples: Sequence[Example], spec: EvaluationSpec, where: str) -> list[Example]:
    """The examples, each answer in the product's order of fields.

    Raises SourceDataError that names the first examples which break a promise: an id that stands twice, an
    empty utterance, fields other than the product's, a label outside `values`, a grounded reply
    with a number that stands in no fact, or an answer that is no JSON. `where` is what the error calls the origin.
    """
    problems = [
        f"'{example.example_id}': {problem}" for example in examples for problem in problems_of(example, spec)
    ] + _repeated(examples)
    if problems:
        more = f" And {len(problems) - SHOWN} more." if len(problems) > SHOWN else ""
        raise SourceDataError(f"{where}: " + " ".join(problems[:SHOWN]) + more)
    return [_ordered(example, spec) for example in examples]


def label_kinds(examples: Iterable[Example], spec: EvaluationSpec) -> dict[str, set[str]]:
    """By label field, of which kinds its labels are: `"2"` is written as 2 in a contract, but no answer equals both."""
    labels = [name for name, field in spec.fields.items() if isinstance(field, LabelField)]
    answers = [one.answer for one in examples if isinstance(one.answer, dict)]
    return {name: {_kind(answer[name]) for answer in answers} for name in labels}


def kind_problem(example: Example, kinds: Mapping[str, set[str]]) -> str:
    """Which label of an answer is of a kind that no other has, in a sentence; empty where all are known."""
    answer = example.answer if isinstance(example.answer, dict) else {}
    for name, known in kinds.items():
        if name in answer and _kind(answer[name]) not in known:
            found, expected = f"{_kind(answer[name])} {answer[name]!r}", " or ".join(sorted(known))
            return f"label '{name}' is the {found}, but the product's is a {expected}. Write it as the examples do."
    return ""


def require_known_kinds(
    golden: Mapping[str, Sequence[Example]], examples: Iterable[Example], spec: EvaluationSpec
) -> None:
    """Raises SourceDataError for a golden label of a kind that no example has: whatever was answered would be wrong."""
    kinds = label_kinds(examples, spec)
    for name, questions in golden.items():
        for question in questions:
            if question.kind == "answer" and (problem := kind_problem(question, kinds)):
                raise SourceDataError(f"golden set '{name}', '{question.example_id}': {problem}")


def require_known_facts(golden: Mapping[str, Sequence[Example]], examples: Iterable[Example]) -> None:
    """Raises SourceDataError for a golden question that is shown facts which no example has, or none where all have.

    The model would be asked in a form that it never learnt, and a copy of the question in training would look like
    another one.
    """
    names = [set(example.facts) for example in examples]
    shown, always = set[str]().union(*names), set.intersection(*names) if names else set[str]()
    for name, questions in golden.items():
        for question in (one for one in questions if one.kind == "answer"):
            where = f"golden set '{name}', '{question.example_id}'"
            if unknown := sorted(set(question.facts) - shown):
                raise SourceDataError(
                    f"{where}: no example is shown the fact '{unknown[0]}'. Examples show: {', '.join(sorted(shown))}."
                )
            if always and not question.facts:
                raise SourceDataError(f"{where}: has no facts. Give it those of examples: {', '.join(sorted(always))}.")


def invented_numbers(reply: str, facts: Mapping[str, FactValue], utterance: str) -> list[str]:
    """The digits in a reply that stand nowhere in the facts, their names or the utterance.

    The first, lenient look at training data; evaluation judges what a model says more strictly.
    A share such as 0.23 grounds 23, and thousands may be written with commas.
    """
    known = [utterance, *facts, *(_written(value) for value in facts.values())]
    stated = {digits for text in known for digits in _numbers(text)}
    return sorted(set(_numbers(reply)) - stated)


def problems_of(example: Example, spec: EvaluationSpec) -> Iterator[str]:
    """What keeps an example from teaching what the product promises, in sentences; nothing for a sound one."""
    if fault := _not_json(example.answer):
        yield f"the answer cannot be written as JSON ({fault}). Correct the source."
        return
    if not example.utterance.strip():
        yield "the utterance is empty. Leave the row out, or give it a text."
    if isinstance(example.answer, str) != (spec.answer_format == "text"):
        found = "plain text" if isinstance(example.answer, str) else "fields"
        yield f"the answer is {found}, but evaluation.answer_format is {spec.answer_format}. Make them agree."
    elif isinstance(example.answer, str):
        if not example.answer.strip():
            yield "the answer is empty. Leave the row out, or give it one."
    else:
        yield from _field_problems(example, example.answer, spec)


def _field_problems(example: Example, answer: Mapping[str, Any], spec: EvaluationSpec) -> Iterator[str]:
    if set(answer) != set(spec.fields):
        yield (
            f"the answer has the fields {', '.join(answer) or 'none'}, expected {', '.join(spec.fields)} "
            "(evaluation.fields). Make them agree."
        )
        return
    for name, field in spec.fields.items():
        if isinstance(field, LabelField):
            yield from _label_problems(name, answer[name], field)
        else:
            yield from _text_problems(name, answer[name], field, example)


def _label_problems(name: str, value: Any, field: LabelField) -> Iterator[str]:
    if not isinstance(value, str | int | float) or value != value:
        yield f"label '{name}' is {value!r}, expected text, a number, true or false."
    elif field.values is not None and not field.allows(value):
        nearest = difflib.get_close_matches(label_text(value), field.values, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"expected one of {', '.join(field.values)}."
        yield f"label '{name}' is {label_text(value)!r}: {hint}"


def _text_problems(name: str, value: Any, field: TextField, example: Example) -> Iterator[str]:
    if not isinstance(value, str) or not value.strip():
        yield f"text '{name}' is {value!r}, expected words."
    elif field.grounded and (invented := invented_numbers(value, example.facts, example.utterance)):
        yield (
            f"text '{name}' says {', '.join(invented)}, which stands in no fact ('{value[:120]}'). Add the fact, "
            f"change the text, or set evaluation.fields.{name}.grounded to false."
        )


def _kind(label: Any) -> str:
    return "truth value" if isinstance(label, bool) else "text" if isinstance(label, str) else "number"


def _repeated(examples: Sequence[Example]) -> list[str]:
    seen: set[str] = set()
    repeated = [one.example_id for one in examples if one.example_id in seen or seen.add(one.example_id)]  # type: ignore[func-returns-value]
    return [f"'{name}': stands more than once. Give every example an id of its own." for name in repeated]


def _ordered(example: Example, spec: EvaluationSpec) -> Example:
    if isinstance(example.answer, str):
        return example
    return example.model_copy(update={"answer": {name: example.answer[name] for name in spec.fields}})


def _numbers(text: str) -> list[str]:
    return [digits.lstrip("0") or "0" for digits in _DIGITS.findall(_THOUSANDS.sub("", text))]


def _written(value: FactValue) -> str:
    if isinstance(value, float) and 0 <= value <= 1:
        return f"{value} {value * 100:.0f}"
    return "" if value is None or isinstance(value, bool) else str(value)


def _not_json(answer: Any) -> str:
    """Why an answer has no bytes: NaN, a lone surrogate, a value that JSON does not know; empty when it has."""
    try:
        canonical_bytes(answer)
    except (ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
