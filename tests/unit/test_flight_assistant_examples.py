"""Examples of flight_assistant from three weeks of real flights."""

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_platform.contracts.example import Example
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product, load_product
from ml_platform.evaluation.groundedness import is_grounded
from ml_platform.families.lora.examples import ExamplesContext
from ml_platform.families.lora.prepare import leakage_of, load_examples, make_training_set
from ml_platform.features.build import build_features
from ml_platform.features.join import join_features
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.snapshots.extract import load_table, take_snapshot

FOLDER = Path(__file__).parents[2] / "products" / "flight_assistant"
AS_OF = date(2013, 1, 21)
HELD_OUT = {"train": False, "validation": False, "test": True}


class Prepared:
    """The product with fewer examples, its snapshot, features and training set."""

    def __init__(self, root: Path) -> None:
        loaded = load_product(FOLDER)
        spec = loaded.spec.model_copy(
            update={"examples": loaded.spec.examples.model_copy(update={"max_examples": 200})}
        )
        self.product: Product = replace(loaded, spec=spec)
        self.store, self.home = LocalArtifactStore(root / "store"), Home(root / "home")
        self.snapshot = take_snapshot(self.product, AS_OF, self.store)
        self.features = build_features(self.product, self.snapshot, self.store)

    def join(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The real join."""
        return join_features(self.product, self.features, rows, self.home)

    @cached_property
    def training_set(self) -> Artifact:
        """Made as the chain makes it."""
        return make_training_set(self.product, self.snapshot, self.join, self.store)

    @cached_property
    def examples(self) -> list[Example]:
        """Of every split."""
        return [one for name in HELD_OUT for one in load_examples(self.training_set, name)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("flights"))


def test_nothing_leaks(made: Prepared) -> None:
    assert leakage_of(made.training_set).problems == ()
    assert made.training_set.facts["counts"] == {"train": 148, "validation": 12, "test": 40}


def test_every_number_of_every_reply_stands_in_the_facts(made: Prepared) -> None:
    for one in made.examples:
        assert isinstance(one.answer, dict)
        assert is_grounded(one.answer["reply"], one.facts, one.utterance), one


def test_the_risk_is_what_the_action_policy_says(made: Prepared) -> None:
    policy = made.product.action_policy
    assert policy is not None
    for one in made.examples:
        assert isinstance(one.answer, dict)
        declined = one.answer["intent"] in ("out_of_scope", "override_attempt")
        assert one.answer["risk"] == ("none" if declined else policy.level(dict(one.facts)))
        assert list(one.answer) == ["intent", "risk", "reply"]


@pytest.mark.parametrize("split", HELD_OUT)
def test_wordings_of_the_test_split_were_never_trained_on(made: Prepared, split: str) -> None:
    parts = {one.phrasing_id.split("/")[1] for one in load_examples(made.training_set, split)}
    assert parts == ({"held_out"} if HELD_OUT[split] else {"train"})


def test_every_intent_is_asked_in_every_split(made: Prepared) -> None:
    for split in HELD_OUT:
        intents = Counter(one.slices["intent"] for one in load_examples(made.training_set, split))
        assert len(intents) == 8, split
        assert intents.pop("out_of_scope") >= sum(intents.values()) / 3
        assert max(intents.values()) <= 4 * min(intents.values()), intents


def test_no_reserved_flight_becomes_an_example(made: Prepared) -> None:
    reserved = made.product.hook("examples.py:is_reserved")
    assert not [one.entity for one in made.examples if reserved(one.entity)]


def test_outcomes_are_what_really_happened_and_was_known_by_the_cutoff(made: Prepared) -> None:
    departures = load_table(made.snapshot, "departures").set_index("flight_id")
    for one in made.examples:
        row = departures.loc[one.entity]
        assert one.outcome["late"] is bool(row["late"])
        assert row["cancelled"] or one.outcome["departure_delay_min"] == row["departure_delay_min"]
    assert 0.05 < sum(bool(one.outcome["late"]) for one in made.examples) / len(made.examples) < 0.6


def test_facts_are_what_was_known_two_hours_before_departure(made: Prepared) -> None:
    """Counted again from the table, row by row, at the quarter of an hour on which features stand."""
    departures = load_table(made.snapshot, "departures")
    compared = 0
    for one in made.examples[::10]:
        assert one.prediction_time is not None
        now = pd.Timestamp(one.prediction_time).floor("15min")
        window = departures[
            (departures["origin"] == one.facts["from"])
            & (departures["departed_at"] > now - timedelta(hours=3))
            & (departures["departed_at"] <= now)
        ]
        if "airport_late" in one.facts:
            share, delay = window["late"].mean() * 100, window["departure_delay_min"].mean()
            assert abs(float(one.facts["airport_late"]) - share) <= 0.5 + 1e-9, one.example_id  # type: ignore[arg-type]
            assert abs(float(one.facts["airport_delay"]) - delay) <= 0.5 + 1e-9, one.example_id  # type: ignore[arg-type]
            compared += 1
    assert compared >= 10


def test_the_order_of_rows_changes_nothing(made: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ExamplesContext(made.product, made.snapshot, 40, 13, made.join)
    build = made.product.hook("examples.py:build")
    straight = build(context)
    monkeypatch.setattr(
        ExamplesContext, "table", lambda self, name: load_table(self.snapshot, name).iloc[::-1].reset_index(drop=True)
    )
    assert build(context) == straight


def test_another_seed_draws_other_flights(made: Prepared) -> None:
    build = made.product.hook("examples.py:build")
    drawn: list[Any] = [build(ExamplesContext(made.product, made.snapshot, 40, seed, made.join)) for seed in (13, 14)]
    assert len({one.entity for one in drawn[0]} & {one.entity for one in drawn[1]}) < 20
