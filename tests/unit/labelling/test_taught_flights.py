"""A correction of a live answer of flight_assistant becomes an example of the next training set."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product, load_product
from ml_platform.contracts.source import Origin
from ml_platform.families.lora.prepare import leakage_of, load_examples, make_training_set
from ml_platform.features.build import build_features
from ml_platform.features.join import join_features
from ml_platform.lineage.answered import AnswerHistory
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.snapshots.extract import load_table, manifest_of, take_snapshot
from tests.samples.answered import FLIGHT, RIGHT, answered, correction, fill
from tests.samples.provenance import response_id_of

FOLDER = Path(__file__).parents[3] / "products" / "flight_assistant"
AS_OF = date(2013, 1, 21)


class World:
    """The product with fewer examples, a home, and what its chain makes of what was said."""

    def __init__(self, root: Path) -> None:
        loaded = load_product(FOLDER)
        examples = loaded.spec.examples.model_copy(update={"max_examples": 200})
        self.product: Product = replace(loaded, spec=loaded.spec.model_copy(update={"examples": examples}))
        self.home, self.artifacts = Home(root), LocalArtifactStore(root / "artifacts")
        self.answers = ProvenanceStore(self.home.provenance_url)

    def snapshot(self, day: date = AS_OF) -> Artifact:
        with AnswerHistory.at(self.home) as history:
            return take_snapshot(self.product, day, self.artifacts, history=history)

    def training_set(self) -> Artifact:
        snapshot = self.snapshot()
        features = build_features(self.product, snapshot, self.artifacts)
        join = partial(join_features, self.product, features, home=self.home)
        return make_training_set(self.product, snapshot, join, self.artifacts)


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("untaught"))


@pytest.fixture
def world(tmp_path: Path, untaught: World) -> Iterator[World]:
    made = World(tmp_path)
    made.artifacts = untaught.artifacts
    yield made
    made.answers.close()


def taught(training_set: Artifact) -> list[Any]:
    return [one for one in load_examples(training_set, "train") if one.origin]


def set_aside(training_set: Artifact) -> list[Any]:
    lines = training_set.file("quarantine/taught.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_correction_becomes_a_row_with_its_origin_and_an_example(world: World) -> None:
    fill(world.answers, answered(1), correction(1))
    row = load_table(world.snapshot(), "answered").iloc[0]
    assert (row["origin"], row["response_id"]) == ("correction", response_id_of(1))
    made = world.training_set()
    (example,) = taught(made)
    assert (example.origin, example.entity, example.answer) == (Origin.CORRECTION, FLIGHT, RIGHT)
    assert list(example.answer) == ["intent", "risk", "reply"]
    assert example.slices == {"origin": "EWR", "carrier": "UA", "lane": "other", "intent": "delay_risk"}
    assert leakage_of(made).problems == ()
    assert made.facts["taught"] == {"correction": 1}
    assert set_aside(made) == []


def test_nobody_has_to_say_anything_and_then_nothing_changes(world: World, untaught: World) -> None:
    nothing_said = untaught.snapshot().sha256
    fill(world.answers, answered(1))
    snapshot = world.snapshot()
    assert snapshot.sha256 == nothing_said
    assert manifest_of(snapshot).tables["answered"].rows == 0
    assert not (world.home.root / "nothing").exists()


def test_a_correction_of_an_answer_at_a_cutoff_enters_the_next_snapshot(world: World) -> None:
    before = world.snapshot()
    cutoff = manifest_of(before).cutoff
    fill(world.answers, answered(1, published_at=cutoff), correction(1))
    assert world.snapshot().sha256 == before.sha256
    assert len(load_table(world.snapshot(AS_OF + timedelta(days=1)), "answered")) == 1


NONSENSE: list[tuple[str | dict[str, Any], str]] = [
    ("It goes to Houston!", "is no JSON: "),
    ({"intent": "delay_risk", "risk": "elevated"}, "the answer has the fields"),
    ({**RIGHT, "risk": "extreme"}, "label 'risk' is 'extreme'"),
    ({**RIGHT, "risk": "low"}, "says risk low, where the policy says elevated"),
    ({**RIGHT, "reply": "99% of flights leave late."}, "text 'reply' says 99"),
    ({**RIGHT, "reply": "It leaves from JFK."}, "says what stands in no fact"),
    ('{"intent": "why", "intent": "why", "risk": "low", "reply": "x"}', "is no JSON: a key is repeated"),
    ('["delay_risk"]', "is a JSON list"),
]


def test_nonsense_is_set_aside_with_its_reason(world: World) -> None:
    for number, (said, _) in enumerate(NONSENSE):
        fill(world.answers, answered(number), correction(number, said))
    made = world.training_set()
    assert taught(made) == []
    found = {row["original"]["response_id"]: row["reason"] for row in set_aside(made)}
    for number, (_, reason) in enumerate(NONSENSE):
        assert found.pop(response_id_of(number)).startswith(reason)
    assert not found
    assert sum(made.facts["set_aside"].values()) == len(NONSENSE)


def test_no_wording_of_the_test_split_and_no_reserved_flight_is_learnt(world: World) -> None:
    reserved = world.product.hook("examples.py:is_reserved")
    names = (f"2013-01-20_UA_{number}_EWR_1515" for number in range(1, 1000))
    kept_for_golden = next(name for name in names if reserved(name))
    fill(world.answers, answered(1, utterance="ua1545 ON TIME"), correction(1))
    fill(world.answers, answered(2, utterance="So, is UA 1545 going to leave late, or what?!"), correction(2))
    fill(world.answers, answered(3, entity={"flight_id": kept_for_golden}), correction(3))
    fill(world.answers, answered(4), correction(4))
    made = world.training_set()
    assert [one.example_id.split("/")[1] for one in taught(made)] == [response_id_of(4)]
    found = {row["original"]["response_id"]: row["reason"] for row in set_aside(made)}
    assert found == {
        response_id_of(1): "asks in words that candidates are measured by",
        response_id_of(2): "asks in words that candidates are measured by",
        response_id_of(3): "is about a flight that is reserved for golden sets",
    }
