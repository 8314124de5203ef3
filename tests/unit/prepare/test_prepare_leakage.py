"""A fact that was only known afterwards is found whatever the key of its table is made of."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

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
