"""A fact that was only known afterwards is found whatever the key of its table is made of."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ml_platform.errors import ContractError
from ml_platform.families.lora.prepare import leakage_of
from ml_platform.lineage.artifacts import Artifact

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
Prepare = Callable[..., Artifact]

COLUMNS = {
    "opened": "timestamp",
    "closed": "timestamp",
    "text": "string",
    "label": "string",
    "resolution": "string",
    "minutes": "integer",
    "resolved": "timestamp",
}
# Requests say what they are about with a text or a whole number: a product with other keys names one in serving.yaml.
KEYS: dict[str, Callable[[int], Any]] = {
    "string": lambda number: f"T{number}",
    "integer": lambda number: 4000 + number,
    "number": lambda number: 4000.0 + number,
    "timestamp": lambda number: (BEGINNING + timedelta(minutes=number)).isoformat(),
}


def ticket(number: int, key: Any) -> dict[str, Any]:
    """A ticket that was closed a day after it was opened, in a way of its own; every tenth is open."""
    opened = BEGINNING + timedelta(hours=number)
    is_open = number % 10 == 0
    return {
        "key": key,
        "opened": opened.isoformat(),
        "closed": None if is_open else (opened + timedelta(days=1)).isoformat(),
        "text": f"question {number}",
        "label": "ab"[number % 2],
        "resolution": None if is_open else f"sent form {number % 7}",
        "minutes": None if is_open else number % 50,
        "resolved": None if is_open else (opened + timedelta(hours=number % 20)).isoformat(),
    }


ROWS: dict[str, tuple[list[str], str]] = {
    "the entity repeats itself": (["key"], "customer"),
    "the key has two columns": (["key", "customer"], "key"),
    "the key has two columns and the entity is neither": (["opened", "customer"], "text"),
}


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize(("known_at", "passed"), [("closed", False), (None, True)])
def test_the_row_of_an_example_is_looked_at_whatever_it_is_about(
    prepare: Prepare, case: str, known_at: str | None, passed: bool
) -> None:
    key, entity = ROWS[case]
    made = prepare(
        [ticket(number, f"T{number}") | {"customer": f"c/{number // 3}"} for number in range(100)],
        source={
            "columns": {"key": "string", "customer": "string", **COLUMNS},
            "key": key,
            "event_time": "opened",
            "known_at": known_at,
            "nullable": ["closed", "resolution", "minutes", "resolved"],
        },
        examples={"entity": entity, "prediction_time": "opened", "facts": ["minutes"]},
        serving={"entity": ["text"], "given": ["minutes"]},
    )
    problems = leakage_of(made).problems
    told = [one for one in problems if one.startswith("fact 'minutes' repeats rows.minutes, which became known only")]
    assert (problems, bool(told)) == (tuple(told), not passed)


@pytest.mark.parametrize("fact", ["resolution", "minutes", "resolved"])
@pytest.mark.parametrize("kind", KEYS)
def test_a_later_column_among_the_facts_is_found_under_every_type_of_key(
    prepare: Prepare, kind: str, fact: str
) -> None:
    made = prepare(
        [ticket(number, KEYS[kind](number)) for number in range(100)],
        source={
            "columns": {"key": kind, **COLUMNS},
            "key": ["key"],
            "event_time": "opened",
            "known_at": "closed",
            "nullable": ["closed", "resolution", "minutes", "resolved"],
        },
        examples={"entity": "key", "prediction_time": "opened", "facts": [fact]},
        serving={"entity": ["text"], "given": [fact]},
    )
    (problem,) = leakage_of(made).problems
    assert problem.startswith(f"fact '{fact}' repeats rows.{fact}, which became known only after the prediction")


def test_what_was_known_at_the_prediction_accuses_nobody(prepare: Prepare) -> None:
    made = prepare(
        [ticket(number, number) for number in range(100)],
        source={
            "columns": {"key": "integer", **COLUMNS},
            "key": ["key"],
            "event_time": "opened",
            "nullable": ["closed", "resolution", "minutes", "resolved"],
        },
        examples={"entity": "key", "prediction_time": "opened", "facts": ["minutes"]},
    )
    assert leakage_of(made).passed


def test_two_rows_within_one_second_are_both_looked_at(prepare: Prepare) -> None:
    """An entity is told to the second, so a key of times may call two rows by one name."""
    rows = [
        ticket(number // 2, (BEGINNING + timedelta(minutes=number // 2, milliseconds=number % 2)).isoformat())
        | {"text": f"question {number}"}
        for number in range(100)
    ]
    made = prepare(
        rows,
        source={
            "columns": {"key": "timestamp", **COLUMNS},
            "key": ["key"],
            "event_time": "opened",
            "known_at": "closed",
            "nullable": ["closed", "resolution", "minutes", "resolved"],
        },
        examples={"entity": "key", "prediction_time": "opened", "facts": ["minutes"]},
        serving={"entity": ["text"], "given": ["minutes"]},
    )
    assert sum(made.facts["counts"].values()) == 100
    (problem,) = leakage_of(made).problems
    assert problem.startswith("fact 'minutes' repeats rows.minutes")


def test_when_rows_were_known_decides_though_the_snapshot_is_the_same(prepare: Prepare) -> None:
    """All of them were known at the cutoff, whatever product.yaml says: the verdict of before must not be found."""
    rows = [ticket(number, number) for number in range(100)]
    nullable = ["closed", "resolution", "minutes", "resolved"]
    source = {"columns": {"key": "integer", **COLUMNS}, "key": ["key"], "event_time": "opened", "nullable": nullable}
    examples = {"entity": "key", "prediction_time": "opened", "facts": ["minutes"]}
    before = prepare(rows, source=source, examples=examples)
    after = prepare(rows, source={**source, "known_at": "closed"}, examples=examples)
    assert after.facts["snapshot_sha256"] == before.facts["snapshot_sha256"]
    assert (leakage_of(before).passed, leakage_of(after).passed) == (True, False)
    assert prepare(rows, source={**source, "max_bad_share": 0.5}, examples=examples).reused, (
        "no row means anything else"
    )


ASKED = {"id": "string", "at": "timestamp", "text": "string", "label": "string", "queue": "string"}


def asked(number: int, **cells: Any) -> dict[str, Any]:
    """A question whose label the column `queue` repeats."""
    label = "abc"[number * 7 % 10 % 3]
    at = (BEGINNING + timedelta(hours=number)).isoformat()
    return {"id": f"r{number}", "at": at, "text": f"question {number}", "label": label, "queue": label} | cells


@pytest.mark.parametrize("answer", [{"label": "{label}"}, {"label": "{label}/{queue}"}, "{label}"])
@pytest.mark.parametrize(
    "shown", [{"facts": ["label", "queue"]}, {"utterance": "{text} {label}{queue}"}, {"facts": ["queue", "label"]}]
)
def test_a_label_that_the_question_shows_is_refused(prepare: Prepare, answer: Any, shown: dict[str, Any]) -> None:
    as_text = {"answer_format": "text", "fields": {}} if isinstance(answer, str) else {}
    with pytest.raises(ContractError, match=r"examples\.answer.*: the question already shows 'label.*nothing to learn"):
        prepare(
            [asked(number) for number in range(60)],
            source={"columns": ASKED},
            examples={"answer": answer, **shown},
            evaluation=as_text,
        )


@pytest.mark.parametrize(
    ("examples", "evaluation"),
    [
        ({"facts": ["queue"], "answer": {"label": "{queue}/{label}"}}, {}),
        ({"facts": ["at"], "answer": {"label": "{at:%A}"}}, {}),
        ({"utterance": "{at:%d %B}", "answer": {"label": "{at:%m-%d}"}}, {}),
        ({"facts": ["text"], "answer": {"label": "say {text}"}}, {"fields": {"label": {"kind": "text"}}}),
        ({"facts": ["text"], "answer": "say {text}"}, {"answer_format": "text", "fields": {}}),
    ],
)
def test_an_answer_that_says_more_or_otherwise_than_the_question_is_learnt(
    prepare: Prepare, examples: dict[str, Any], evaluation: dict[str, Any]
) -> None:
    rows = [asked(number, queue=f"q{number % 5}") for number in range(60)]
    assert leakage_of(prepare(rows, source={"columns": ASKED}, examples=examples, evaluation=evaluation)).passed


@pytest.mark.parametrize(("answer", "called"), [({"label": "{label}"}, "label 'label'"), ("{label}", "the answer")])
def test_a_fact_that_repeats_the_label_under_another_name_is_found(prepare: Prepare, answer: Any, called: str) -> None:
    as_text = {"answer_format": "text", "fields": {}} if isinstance(answer, str) else {}
    rows = [asked(number) for number in range(120)]
    examples = {"answer": answer, "facts": ["queue"]}
    (problem,) = leakage_of(prepare(rows, source={"columns": ASKED}, examples=examples, evaluation=as_text)).problems
    assert problem.startswith(f"fact 'queue' repeats {called}: the question holds what is to be learnt")
    fallible = [asked(number) | ({"queue": "d"} if number % 20 == 0 else {}) for number in range(120)]
    assert leakage_of(prepare(fallible, source={"columns": ASKED}, examples=examples, evaluation=as_text)).passed, (
        "a good feature that errs is none"
    )


def test_a_text_that_repeats_a_fact_is_grounded_and_no_leak(prepare: Prepare) -> None:
    rows = [asked(number) for number in range(60)]
    text = {"fields": {"label": {"kind": "text", "grounded": True}}}
    made = prepare(rows, source={"columns": ASKED}, examples={"facts": ["queue"]}, evaluation=text)
    assert leakage_of(made).passed
