"""Golden sets and hooks: whatever is wrong with them is named, with file and line."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ml_platform.errors import ContractError, SourceDataError
from ml_platform.families.lora.prepare import load_examples
from ml_platform.lineage.artifacts import Artifact

Prepare = Callable[..., Artifact]

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = [
    {"id": f"r{n}", "at": (BEGINNING + timedelta(hours=n)).isoformat(), "text": f"question {n}", "label": "ab"[n % 2]}
    for n in range(10)
]
LINE = {"example_id": "g/1", "entity": "r3", "utterance": "question?", "answer": {"label": "a"}}
IN_FILE = {"golden_sets": {"set": {"path": "golden.jsonl", "version": "1.0.0"}}}
BY_HOOK = {"golden_sets": {"set": {"hook": "golden.py:made", "version": "1.0.0"}}}
HOOKED = dict.fromkeys(("source", "entity", "prediction_time", "utterance", "answer")) | {"hook": "examples.py:build"}

HEADER = b"from ml_platform.contracts.example import Example\n"


def test_a_golden_file_is_resolved_into_the_training_set_and_its_entities_are_left_out(prepare: Prepare) -> None:
    made = prepare(ROWS, evaluation=IN_FILE, files={"golden.jsonl": json.dumps(LINE).encode()})
    assert [one.example_id for one in load_examples(made, "golden/set")] == ["g/1"]
    assert made.facts["left_out"] == {"reserved for golden sets": 1}
    assert set(made.facts["golden"]) == {"set"}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", r"golden.jsonl: holds no examples"),
        (b"\xff\xfe", r"golden.jsonl: is not UTF-8"),
        (b'{"a": 1}\n{"example_id": ', r"golden.jsonl, line 1: key 'example_id' is missing"),
        (json.dumps(LINE).encode() + b"\n\n{broken", r"golden.jsonl, line 3: is not JSON"),
        (json.dumps(LINE | {"utterence": "x"}).encode(), r"line 1: unknown key 'utterence': did you mean 'utterance'"),
        (json.dumps(LINE | {"answer": {"label": "c"}}).encode(), r"'g/1': label 'label' is 'c'"),
        (json.dumps(LINE | {"utterance": " "}).encode(), r"'g/1': the utterance is empty"),
        ((json.dumps(LINE) + "\n" + json.dumps(LINE)).encode(), r"'g/1': stands more than once"),
        (json.dumps(LINE | {"utterance": "\ud800"}).encode(), r"golden.jsonl, line 1"),
        (b"[" * 100_000, r"golden.jsonl, line 1: is not JSON"),
        (b'{"entity": "a", "entity": "b"}', r"golden.jsonl, line 1: .* 'entity' stands there more than once"),
    ],
)
def test_a_wrong_golden_file_is_named_with_its_line(prepare: Prepare, data: bytes, problem: str) -> None:
    with pytest.raises((ContractError, SourceDataError), match=problem):
        prepare(ROWS, evaluation=IN_FILE, field={"values": ["a", "b"]}, files={"golden.jsonl": data})


@pytest.mark.parametrize(
    ("kind", "labels", "golden", "told"),
    [
        ("integer", (1, 2), 2, None),
        ("integer", (1, 2), "2", "label 'label' is the text '2', but the product's is a number"),
        ("integer", (1, 2), True, "label 'label' is the truth value True, but the product's is a number"),
        ("string", ("1", "2"), 2, "label 'label' is the number 2, but the product's is a text"),
        ("boolean", (True, False), "true", "label 'label' is the text 'true', but the product's is a truth value"),
    ],
)
def test_a_golden_label_of_another_kind_than_any_example_has_is_refused_for_no_answer_would_be_right(
    prepare: Prepare, kind: str, labels: tuple[Any, Any], golden: Any, told: str | None
) -> None:
    rows = [row | {"label": labels[number % 2]} for number, row in enumerate(ROWS)]
    lines = [LINE | {"answer": {"label": golden}}]
    lines.append(LINE | {"example_id": "g/2", "kind": "attack", "answer": {"label": "2"}})  # only judged by refusing
    given: dict[str, Any] = {
        "source": {"columns": {"id": "string", "at": "timestamp", "text": "string", "label": kind}},
        "field": {"values": ["1", "2", "true", "false", "True"]},
        "evaluation": IN_FILE,
        "files": {"golden.jsonl": "\n".join(map(json.dumps, lines)).encode()},
    }
    if told is None:
        assert len(load_examples(prepare(rows, **given), "golden/set")) == 2
        return
    with pytest.raises(SourceDataError, match=f"golden set 'set', 'g/1': {told}"):
        prepare(rows, **given)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"line": "Atlas"}, None),
        ({}, "has no facts. Give it those of examples: line"),
        ({"Line": "Atlas"}, "no example is shown the fact 'Line'. Examples show: line"),
    ],
)
def test_a_golden_question_is_shown_the_facts_that_examples_are_shown(
    prepare: Prepare, facts: dict[str, str], told: str | None
) -> None:
    given: dict[str, Any] = {
        "source": {
            "columns": {"id": "string", "at": "timestamp", "text": "string", "label": "string", "line": "string"}
        },
        "examples": {"facts": ["line"]},
        "evaluation": IN_FILE,
        "files": {"golden.jsonl": json.dumps(LINE | {"facts": facts}).encode()},
    }
    rows = [row | {"line": f"line {number % 3}"} for number, row in enumerate(ROWS)]
    if told is None:
        assert len(load_examples(prepare(rows, **given), "golden/set")) == 1
        return
    with pytest.raises(SourceDataError, match=f"golden set 'set', 'g/1': {told}"):
        prepare(rows, **given)


def test_a_golden_file_that_is_not_there_is_named(prepare: Prepare) -> None:
    with pytest.raises(ContractError, match=r"golden.jsonl: there is no such file"):
        prepare(ROWS, evaluation=IN_FILE)


def test_a_golden_set_that_is_a_folder_is_named(prepare: Prepare) -> None:
    folder = {"golden_sets": {"set": IN_FILE["golden_sets"]["set"] | {"path": "."}}}
    with pytest.raises(ContractError, match=r"anything: cannot be read: Is a directory\. Name a file that"):
        prepare(ROWS, evaluation=folder)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"def made(context): return 1 / 0", r"hook golden.py:made\): raised ZeroDivisionError"),
        (b"def made(context): return [1]", r"hook golden.py:made\): returned something else than Examples"),
        (b"def made(context): return []", r"hook golden.py:made\): holds no examples"),
        (b"def maed(context): return []", r"has no function 'made'. Did you mean 'maed'\?"),
    ],
)
def test_a_failing_golden_hook_is_named(prepare: Prepare, body: bytes, problem: str) -> None:
    with pytest.raises((ContractError, SourceDataError), match=problem):
        prepare(ROWS, evaluation=BY_HOOK, files={"golden.py": HEADER + body})


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"def build(context): raise KeyError('nope')", r"hook examples.py:build of anything raised KeyError: 'nope'"),
        (b"def build(context): return ['x']", r"returned a str, expected only Examples"),
        (b"def build(context): return context.join(None)", r"ask for features, but product.yaml names none"),
        (
            b"def build(context): return [Example(example_id='x', entity='x', utterance='u', answer='a')] * 2",
            r"'x': the answer is plain text, but evaluation.answer_format is json",
        ),
    ],
)
def test_a_failing_examples_hook_is_named(prepare: Prepare, body: bytes, problem: str) -> None:
    with pytest.raises((ContractError, SourceDataError), match=problem):
        prepare(ROWS, examples=HOOKED, files={"examples.py": HEADER + body})


@pytest.mark.parametrize("answer", ["float('nan')", "'\\ud800'", "{1, 2}", "b'x'"])
def test_an_answer_that_is_no_json_is_named(prepare: Prepare, answer: str) -> None:
    body = (
        f"def build(context): return [Example(example_id='x', entity='x', utterance='u', answer={{'label': {answer}}})]"
    )
    with pytest.raises(SourceDataError, match=r"'x': the answer cannot be written as JSON"):
        prepare(ROWS, examples=HOOKED, files={"examples.py": HEADER + body.encode()})


def test_a_hook_gets_what_was_known_and_its_data_files_are_part_of_the_recipe(prepare: Prepare) -> None:
    body = HEADER + (
        b"import json\n"
        b"def build(context):\n"
        b"    said = (context.product.folder / 'words.json').read_text()\n"
        b"    return [Example(example_id=row.id, entity=row.id, utterance=row.text + said,\n"
        b"            answer={'label': row.label}) for row in context.table('rows').itertuples()]\n"
    )
    first = prepare(ROWS, examples=HOOKED, files={"examples.py": body, "words.json": b'"a"'})
    again = prepare(ROWS, examples=HOOKED, files={"examples.py": body, "words.json": b'"a"'})
    other = prepare(ROWS, examples=HOOKED, files={"examples.py": body, "words.json": b'"b"'})
    assert again.reused
    assert again.sha256 == first.sha256
    assert other.sha256 != first.sha256
    utterances: list[Any] = [one.utterance for one in load_examples(other, "train")]
    assert all(text.endswith('"b"') for text in utterances)
