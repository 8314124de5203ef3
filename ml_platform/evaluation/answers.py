"""Answers: what the model generated, and what it is worth as a value of the product's schema."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from ml_platform.contracts.base import Contract
from ml_platform.contracts.evaluation_spec import EvaluationSpec, LabelField, TextField
from ml_platform.contracts.labels import label_text

MAX_ANSWER_CHARACTERS = 100_000
"""Longer texts are no answer; the bound keeps a runaway generation from exhausting the parser."""

Scalar = str | int | float | bool


class GeneratedAnswer(Contract):
    """What the model said to one item, as one line of answers.jsonl.

    `finished` is False when the text was cut at the token limit.
    """

    items: str
    example_id: str
    text: str
    tokens_in: Annotated[int, Field(ge=0)]
    tokens_out: Annotated[int, Field(ge=0)]
    finished: bool = True


@dataclass(frozen=True)
class ParsedAnswer:
    """A generated text read as the product's schema says.

    `fields` is None when a JSON product's text is not valid, and then `problem` says why; for a
    text product it is always None and `problem` empty.
    """

    text: str
    fields: Mapping[str, Scalar] | None
    problem: str = ""


def parse_answer(text: str, spec: EvaluationSpec) -> ParsedAnswer:
    """The answer in a generated text; never raises, never repairs.

    A JSON answer is exactly one JSON object with exactly the product's fields: a text field holds a
    string, a label field a string, number or boolean (one of `values` where the product lists them).
    Fences, prose around it, repeated keys, NaN and lone surrogates make it invalid.
    """
    if spec.answer_format == "text":
        return ParsedAnswer(text, None)
    if len(text) > MAX_ANSWER_CHARACTERS:
        return ParsedAnswer(text, None, f"longer than {MAX_ANSWER_CHARACTERS} characters")
    try:
        found = json.loads(text, object_pairs_hook=_unrepeated, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return ParsedAnswer(text, None, f"not JSON: {error}")
    problem = _schema_problem(found, spec)
    return ParsedAnswer(text, None if problem else found, problem)


def same_label(found: Any, expected: Any) -> bool:
    """Whether two labels are equal in value and in kind: `5` is not `"5"`, `1` is not `true`."""
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    if isinstance(found, str) or isinstance(expected, str):
        return isinstance(found, str) and isinstance(expected, str) and found == expected
    return bool(found == expected)


def _schema_problem(found: Any, spec: EvaluationSpec) -> str:
    if not isinstance(found, dict):
        return f"a JSON {type(found).__name__}, not an object"
    if set(found) != set(spec.fields):
        return f"has the keys {sorted(found)}, not {sorted(spec.fields)}"
    for name, field in spec.fields.items():
        problem = _field_problem(found[name], field)
        if problem:
            return f"field '{name}' {problem}"
    return ""


def _field_problem(value: Any, field: LabelField | TextField) -> str:
    if isinstance(value, str) and not _encodable(value):
        return "is not valid Unicode"
    if isinstance(field, TextField):
        return "" if isinstance(value, str) else f"is a {type(value).__name__}, not a string"
    if not isinstance(value, str | int | float):
        return f"is a {type(value).__name__}, not a label"
    if field.values is not None and not field.allows(value):
        shown = label_text(value) if isinstance(value, bool) else repr(value)
        return f"is {shown}, not one of {', '.join(field.values)}"
    return ""


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
