"""Every way for an answer to slip into the question is found, and nothing innocent is accused."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from ml_platform.contracts.evidence import CheckResult
from ml_platform.contracts.example import Example
from ml_platform.contracts.product import SplitSpec
from ml_platform.contracts.products import Product
from ml_platform.lineage.artifacts import Artifact
from ml_platform.snapshots.extract import load_table
from ml_platform.snapshots.leakage import check_leakage
from ml_platform.snapshots.splits import Splits, split_examples
from ml_platform.snapshots.suspicion import foretells, repeats

SPEC = SplitSpec(validation_share=0.1, test_share=0.2)


@pytest.fixture(scope="module")
def flights(flight_snapshot: Artifact) -> pd.DataFrame:
    """400 real flights with what was known two hours before departure, and what happened then."""
    schedule = load_table(flight_snapshot, "schedule")
    departures = load_table(flight_snapshot, "departures").drop(columns=["carrier", "origin", "route", "known_at"])
    joined = schedule.merge(departures, on="flight_id")
    joined["route_late"] = joined.groupby("route")["late"].transform("mean").round(3)
    flights: pd.DataFrame = joined.sample(400, random_state=7).sort_values("scheduled_departure")
    return flights


def examples_of(flights: pd.DataFrame, **facts: Any) -> list[Example]:
    """Honest examples, with additional facts that are functions of a flight's row."""
    return [
        Example(
            example_id=f"risk {row.flight_id}",
            entity=row.flight_id,
            prediction_time=row.scheduled_departure - timedelta(hours=2),
            utterance=f"Will {row.carrier} {row.flight_number} be late?",
            facts={
                "route": row.route,
                "carrier": row.carrier,
                "scheduled": row.scheduled_departure_local,
                "route_late": row.route_late,
                **{name: fact(row) for name, fact in facts.items()},
            },
            answer={"risk": "low"},
            outcome={"late": row.late, "delay_min": None if row.cancelled else row.departure_delay_min},
        )
        for row in flights.itertuples()
    ]


@pytest.fixture
def check(flight_product: Product, flight_snapshot: Artifact) -> Any:
    def run(splits: Splits, golden: list[Example] | None = None) -> CheckResult:
        return check_leakage(flight_product, flight_snapshot, splits, golden or [])

    return run


def test_honest_examples_of_real_flights_pass(check: Any, flights: pd.DataFrame) -> None:
    splits = split_examples(examples_of(flights), SPEC)
    result = check(splits, splits["test"][:3])
    assert result == CheckResult(check="no_leakage", passed=True, examined=403)


def test_nothing_examined_is_never_a_pass(check: Any, flights: pd.DataFrame) -> None:
    assert len(check({}).problems) == 3
    splits = split_examples(examples_of(flights), SPEC)
    assert not check({**splits, "test": []}).passed
    assert not check({"train": splits["train"], "validation": splits["validation"], "tests": splits["test"]}).passed


LEAKS = {
    "the outcome under its own name": ("late", lambda row: row.late, "fact 'late' is an outcome"),
    "the outcome under another name": ("tag", lambda row: row.late, "fact 'tag' foretells outcome 'late'"),
    "the outcome upside down": ("punctual", lambda row: not row.late, "fact 'punctual' foretells outcome 'late'"),
    "the outcome in words": (
        "note",
        lambda row: "was late" if row.late else "fine",
        "fact 'note' foretells outcome 'late' almost surely",
    ),
    "a number from the future": (
        "minutes",
        lambda row: None if row.cancelled else row.departure_delay_min,
        r"fact 'minutes' repeats departures\.departure_delay_min, which became known only after",
    ),
    "a time from the future, scaled": (
        "hours",
        lambda row: None if row.cancelled else row.departure_delay_min / 60 + 1,
        "fact 'hours' foretells outcome 'delay_min' almost surely",
    ),
}


@pytest.mark.parametrize("case", LEAKS)
def test_a_planted_leak_is_found(case: str, check: Any, flights: pd.DataFrame) -> None:
    name, fact, message = LEAKS[case]
    result = check(split_examples(examples_of(flights, **{name: fact}), SPEC))
    assert not result.passed
    assert pd.Series(result.problems).str.contains(message).any(), result.problems


def test_predictions_after_the_cutoff_are_found(check: Any, flights: pd.DataFrame) -> None:
    examples = examples_of(flights)
    future = datetime(2013, 3, 1, tzinfo=UTC)
    examples[-1] = examples[-1].model_copy(update={"prediction_time": future})
    result = check(split_examples(examples, SPEC))
    assert any("1 examples predict after the cutoff 2013-02-16 00:00Z" in problem for problem in result.problems)


def test_splits_out_of_order_in_time_are_found(check: Any, flights: pd.DataFrame) -> None:
    splits = split_examples(examples_of(flights), SPEC)
    result = check({**splits, "train": splits["test"], "test": splits["train"]})
    assert any("split 'test' begins" in problem for problem in result.problems)


@pytest.mark.parametrize(("one", "other"), [("train", "test"), ("train", "validation"), ("validation", "test")])
def test_a_shared_entity_is_found(one: str, other: str, check: Any, flights: pd.DataFrame) -> None:
    splits = split_examples(examples_of(flights), SPEC)
    again = splits[one][-1].model_copy(
        update={"utterance": "And now?", "prediction_time": splits[other][0].prediction_time}
    )
    result = check({**splits, other: [again, *splits[other]]})
    assert result.problems == (
        f"'{one}' and {other} share 1 entities: {again.entity}. Keep all examples of an entity on one side.",
    )


def test_a_shared_question_is_found(check: Any, flights: pd.DataFrame) -> None:
    splits = split_examples(examples_of(flights), SPEC)
    again = splits["train"][0].model_copy(
        update={"entity": "another", "example_id": "copy", "prediction_time": splits["test"][0].prediction_time}
    )
    (problem,) = check({**splits, "test": [again, *splits["test"]]}).problems
    assert "'train' and test share 1 questions with the same facts: copy" in problem


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_golden_example_that_training_knows_is_found(split: str, check: Any, flights: pd.DataFrame) -> None:
    splits = split_examples(examples_of(flights), SPEC)
    golden = [splits[split][0].model_copy(update={"utterance": "In other words?"})]
    (problem,) = check(splits, golden).problems
    assert f"'{split}' and the golden sets share 1 entities" in problem


class TestSuspicion:
    def test_too_few_pairs_prove_nothing(self) -> None:
        assert not foretells([(number, number) for number in range(20)])

    def test_an_identifier_is_not_accused(self) -> None:
        assert not foretells([(f"flight {number}", number % 2) for number in range(500)])

    def test_a_good_but_fallible_feature_is_not_accused(self) -> None:
        chance = random.Random(3)  # noqa: S311 - reproducible data
        assert not foretells([((late := chance.random() < 0.3) + chance.gauss(0, 0.6), late) for _ in range(2000)])

    def test_a_constant_is_not_accused(self) -> None:
        assert not foretells([("EWR", number % 2) for number in range(100)])
        assert not foretells([(number, 1) for number in range(100)])
        assert not repeats([(1.0, 1.0)] * 100)

    def test_a_perfect_ranking_is_accused_in_either_direction(self) -> None:
        pairs = [(number, number > 70) for number in range(100)]
        assert foretells(pairs) == foretells([(-fact, outcome) for fact, outcome in pairs]) != ""

    def test_missing_values_are_left_out(self) -> None:
        pairs = [(number, number > 70) for number in range(100)]
        assert foretells([*pairs, (None, True), (3, None)]) == foretells(pairs)
