"""A product made of files learns what people said of its answers, and is measured by none of it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_platform.contracts.evaluation_spec import LabelField
from ml_platform.contracts.example import Example
from ml_platform.contracts.home import Home
from ml_platform.contracts.labelling import GivenLabel
from ml_platform.contracts.products import Product, load_product
from ml_platform.contracts.provenance import Feedback, Outcome, ProvenanceRecord
from ml_platform.contracts.source import Origin
from ml_platform.families.lora.prepare import leakage_of, load_examples, make_training_set
from ml_platform.lineage.answered import AnswerHistory
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.lineage.labels import LabelStore
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.snapshots.extract import manifest_of, take_snapshot
from ml_platform.snapshots.leakage import check_leakage
from tests.samples.answered import fill
from tests.samples.monitoring import WITHOUT_OUTCOMES
from tests.samples.postgres import make_database
from tests.samples.provenance import make_feedback, make_outcome, make_record, response_id_of

NAME = "helpdesk"
AS_OF = date(2026, 6, 1)
ASKED = datetime(2026, 5, 30, 12, tzinfo=UTC)
ROUTER = Path(__file__).parents[3] / "docs" / "your-own-product.md"
GOLDEN = {
    "example_id": "g",
    "entity": "G1",
    "utterance": "Golden words?",
    "facts": {"line": "a"},
    "answer": {"team": "x"},
}
PRODUCT: dict[str, Any] = {
    "name": NAME,
    "title": "t",
    "description": "d",
    "owner": "team:x",
    "family": "lora",
    "first_as_of": "2026-01-01",
    "max_staleness_days": None,
    "files": {name: f"{name}.yaml" for name in ("prompt", "promotion_policy", "monitor_policy", "guardrails")},
    "sources": {
        "rows": {
            "kind": "jsonl",
            "path": "rows.jsonl",
            "columns": {"id": "string", "at": "timestamp", "text": "string", "line": "string", "team": "string"},
            "key": ["id"],
            "event_time": "at",
        },
        "answered": {"kind": "answered", "origins": ["correction", "label", "outcome"]},
    },
    "examples": {
        "source": "rows",
        "entity": "id",
        "prediction_time": "at",
        "utterance": "{text}",
        "facts": ["line"],
        "answer": {"team": "{team}"},
        "max_examples": 1000,
        "splits": {"validation_share": 0.2, "test_share": 0.2},
    },
    "training": {
        "base_model": "smollm2-135m-instruct",
        "rank": 4,
        "alpha": 4,
        "learning_rate": 0.001,
        "epochs": 1,
        "pack_tokens": 64,
        "packs_per_step": 1,
        "max_example_tokens": 64,
        "evaluations_per_epoch": 1,
        "early_stopping_patience": 1,
        "seed": 1,
    },
    "evaluation": {
        "answer_format": "json",
        "fields": {"team": {"kind": "label", "values": ["x", "y", "z"]}},
        "golden_sets": {"golden": {"path": "golden.jsonl", "version": "1.0.0"}},
        "max_test_examples": 10,
        "max_reference_examples": 10,
        "latency_requests": 1,
        "decoding": {"max_new_tokens": 8, "batch_size": 1},
        "cost": {"input_usd_per_million": 0, "output_usd_per_million": 0},
    },
}


def policy() -> Any:
    """The promotion policy of the page on products of one's own: any that fits does."""
    text = ROUTER.read_text(encoding="utf-8")
    return yaml.safe_load(text.partition('```yaml title="promotion_policy.yaml"\n')[2].partition("\n```")[0])


class World:
    """A product in a folder, its home, and what is said of its answers."""

    def __init__(self, root: Path) -> None:
        folder = root / NAME
        folder.mkdir()
        rows = [
            {
                "id": f"T{n}",
                "at": f"2026-05-{n % 28 + 1:02d}T0{n % 7}:00:00Z",
                "text": f"ticket {n}",
                "line": "a",
                "team": "x",
            }
            for n in range(60)
        ]
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (folder / "golden.jsonl").write_text(json.dumps(GOLDEN))
        files = {
            "product": PRODUCT,
            "promotion_policy": policy(),
            "prompt": {"version": "1.0.0", "system": "{facts}"},
            "monitor_policy": WITHOUT_OUTCOMES,
            "guardrails": {"version": "1.0.0", "max_utterance_characters": 100, "safe_reply": "no"},
        }
        for name, data in files.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
        self.product: Product = load_product(folder)
        self.home, self.artifacts = Home(root / "home"), LocalArtifactStore(root / "artifacts")
        self.answers = ProvenanceStore(self.home.provenance_url)
        self.labels = LabelStore(self.home.provenance_url)

    def say(self, *values: ProvenanceRecord | Feedback | Outcome | GivenLabel) -> None:
        fill(self.answers, *(value for value in values if not isinstance(value, GivenLabel)))
        for value in values:
            if isinstance(value, GivenLabel):
                self.labels.put(value)

    def snapshot(self, day: date = AS_OF) -> Artifact:
        with AnswerHistory.at(self.home) as history:
            return take_snapshot(self.product, day, self.artifacts, history=history)

    def training_set(self) -> Artifact:
        return make_training_set(self.product, self.snapshot(), None, self.artifacts)

    def taught(self) -> dict[str, Any]:
        """What is learnt of each response, once no leakage was found."""
        made = self.training_set()
        assert leakage_of(made).problems == ()
        for name in ("validation", "test"):
            assert not [one for one in load_examples(made, name) if one.origin]
        return {one.example_id.split("/")[1]: one.answer for one in load_examples(made, "train") if one.origin}

    def aside(self) -> dict[str, str]:
        """Why which row was set aside, by origin and response."""
        lines = self.training_set().file("quarantine/taught.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return {f"{row['original']['origin']} {row['original']['response_id']}": row["reason"] for row in rows}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.answers.close()
    made.labels.close()


def asked(number: int, **changes: Any) -> ProvenanceRecord:
    plain = {
        "product": NAME,
        "answered_at": ASKED + timedelta(seconds=number),
        "features": None,
        "entity": {"id": f"live {number}"},
        "utterance": f"Where does {number} go?",
        "facts": {"line": "b"},
        "answer": '{"team": "x"}',
    }
    return make_record(number, **{**plain, **changes})


def corrected(number: int, team: str = "y", **changes: Any) -> Feedback:
    plain = {"product": NAME, "kind": "correction", "text": json.dumps({"team": team})}
    return make_feedback(number, **{**plain, "received_at": ASKED + timedelta(minutes=number + 1), **changes})


def label(number: int, team: str | None = "y", by: str = "ana", minutes: int = 0) -> GivenLabel:
    return GivenLabel(
        product=NAME,
        response_id=response_id_of(number),
        labeller=by,
        answer=None if team is None else json.dumps({"team": team}),
        reason=None if team else "unclear",
        labelled_at=ASKED + timedelta(hours=1, minutes=minutes),
        known_at=ASKED + timedelta(hours=1, minutes=minutes),
    )


def test_what_people_say_is_learnt_without_a_line_of_python(world: World) -> None:
    happened = make_outcome(3, product=NAME, entity={"id": "live 3"}, occurred_at=ASKED, values={"team": "z", "n": 1})
    world.say(
        asked(1), corrected(1), asked(2), label(2, "z"), asked(3), happened.model_copy(update={"received_at": ASKED})
    )
    assert world.taught() == {
        response_id_of(1): {"team": "y"},
        response_id_of(2): {"team": "z"},
        response_id_of(3): {"team": "z"},
    }
    assert world.training_set().facts["taught"] == {"correction": 1, "label": 1, "outcome": 1}


def test_a_label_of_another_kind_than_the_products_is_never_learnt(world: World) -> None:
    spec = world.product.spec
    either = spec.evaluation.model_copy(update={"fields": {"team": LabelField(kind="label", values=("x", "y", "2"))}})
    world.product = replace(world.product, spec=spec.model_copy(update={"evaluation": either}))
    number = make_feedback(1, product=NAME, kind="correction", text='{"team": 2}', received_at=ASKED)
    world.say(asked(1), number, asked(2), corrected(2, "2"))
    assert world.taught() == {response_id_of(2): {"team": "2"}}
    (reason,) = world.aside().values()
    assert reason == "label 'team' is the number 2, but the product's is a text. Write it as the examples do."


def test_without_anything_said_no_digest_depends_on_who_answered_what(world: World, tmp_path: Path) -> None:
    first = world.training_set()
    world.say(asked(1), make_feedback(1, product=NAME), make_outcome(1, product=NAME, entity={"id": "another"}))
    assert world.training_set().sha256 == first.sha256
    assert first.facts["set_aside"] == {}
    assert "taught" not in first.facts


@pytest.mark.parametrize(
    ("number", "changes", "reason"),
    [
        (1, {"entity": {"id": "G1"}}, "reserved for golden sets"),
        (2, {"utterance": "golden  WORDS !!"}, "asks in words that candidates are measured by"),
        (3, {"utterance": "Ticket 27"}, "asks in words that candidates are measured by"),
        (4, {"entity": {"id": "T27"}}, "is about what candidates are measured by"),
        (5, {"facts": {"line": "b", "colour": "red"}}, "shows facts that no other example has"),
        (6, {"adapter": None}, "no model answered it"),
        (7, {"utterance": "long " * 30}, "longer than 100 characters"),
    ],
)
def test_what_candidates_are_measured_by_is_never_learnt(
    world: World, number: int, changes: dict[str, Any], reason: str
) -> None:
    """T27 is the newest ticket of its day 28, so it stands in the test split."""
    world.say(asked(number, **changes), corrected(number))
    assert world.taught() == {}
    (found,) = world.aside().values()
    assert found.startswith(reason)


def test_a_label_outranks_a_correction_and_the_newest_word_of_a_person_counts(world: World) -> None:
    world.say(asked(1), corrected(1, "z"), label(1, "z"), label(1, "y", minutes=1))
    again = corrected(2, "z", idempotency_key="again", received_at=ASKED + timedelta(hours=2))
    world.say(asked(2), corrected(2, "y"), again)
    assert world.taught() == {response_id_of(1): {"team": "y"}, response_id_of(2): {"team": "z"}}
    assert world.aside()[f"correction {response_id_of(1)}"] == "a label outranks it"


@pytest.mark.parametrize(
    ("said", "taught"),
    [
        ([("ana", "y"), ("ben", "z")], None),
        ([("ana", "y"), ("ben", "z"), ("cy", "z")], "z"),
        ([("ana", "y"), ("ben", "z"), ("cy", "x")], None),
        ([("ana", "y"), ("ben", None)], None),
        ([("ana", "y"), ("ben", None), ("cy", "y")], "y"),
        ([("ana", None)], None),
    ],
)
def test_labellers_who_disagree_teach_nothing_until_most_agree(
    world: World, said: list[tuple[str, str | None]], taught: str | None
) -> None:
    world.say(asked(1), *(label(1, team, by, minutes) for minutes, (by, team) in enumerate(said)))
    assert world.taught() == ({} if taught is None else {response_id_of(1): {"team": taught}})


def test_outcomes_that_contradict_each_other_teach_nothing(world: World) -> None:
    for number, team in enumerate("yz"):
        world.say(
            make_outcome(
                number,
                product=NAME,
                entity={},
                response_id=response_id_of(1),
                occurred_at=ASKED,
                received_at=ASKED + timedelta(minutes=number),
                values={"team": team},
            )
        )
    world.say(asked(1))
    assert world.taught() == {}
    assert set(world.aside().values()) == {"people say different things"}


def test_no_crowd_and_no_single_user_can_teach_what_they_like(world: World) -> None:
    world.say(*(asked(n, user_sha256="7" * 64) for n in range(25)), *(corrected(n) for n in range(25)))
    learnt = world.taught()
    train = load_examples(world.training_set(), "train")
    assert len(learnt) <= 0.25 * len(train)
    assert len(learnt) == 12
    reasons = list(world.aside().values())
    assert reasons.count("beyond 20 corrections of one user") == 5
    assert reasons.count("more than 25% of what is learnt") == 8


def test_a_question_that_training_answered_otherwise_gives_way_to_the_correction(world: World) -> None:
    train = load_examples(world.training_set(), "train")
    old = train[0]
    world.say(asked(1, utterance=old.utterance, facts=old.facts), corrected(1))
    assert world.taught() == {response_id_of(1): {"team": "y"}}
    after = load_examples(world.training_set(), "train")
    assert len(after) == len(train)
    assert old.example_id not in {one.example_id for one in after}


def test_the_same_question_corrected_in_two_ways_teaches_neither(world: World) -> None:
    same = {"utterance": "Where to?"}
    world.say(asked(1, **same), corrected(1, "y"), asked(2, **same), corrected(2, "z"))
    assert world.taught() == {}
    assert set(world.aside().values()) == {"people say different things"}
    world.say(asked(3, utterance="And this?"), corrected(3), asked(4, utterance="And this?"), corrected(4))
    assert world.taught() == {response_id_of(4): {"team": "y"}}


WRITTEN = [
    *('{"team": "y"', "[[[[" * 5000, '{"team": 1e999}', '{"team": NaN}', '{"team": "\\ud800"}', '{"team": {"a": []}}'),
    *('{"team": null}', '{"team": true}', '{"team": ' + "9" * 5000 + "}", "null", '"y"', "7", '{"team": "Y"}', " "),
    *('{"TEAM": "y"}', '{"team": "y", "": 1}', "\u202e{}", '{"team": "y"}}', "`{}`", "{'team': 'y'}"),
]


def test_whatever_people_write_breaks_nothing_and_is_kept_with_a_reason(world: World) -> None:
    for number, text in enumerate(WRITTEN):
        world.say(asked(number), corrected(number, text=text))
    assert world.taught() == {}
    assert len(world.aside()) == len(WRITTEN)
    assert all(world.aside().values())


def test_a_past_day_keeps_its_snapshot_whatever_is_said_later(world: World) -> None:
    world.say(asked(1), corrected(1))
    live = world.snapshot().sha256
    later = ASKED + timedelta(days=5)
    world.say(asked(2, answered_at=later), corrected(2, received_at=later), label(1, "z"))
    world.labels.put(label(1, "x", "ben").model_copy(update={"known_at": later}))
    rows = manifest_of(world.snapshot()).tables["answered"].rows
    assert rows == 2, "the label of that hour was known"
    assert world.snapshot().sha256 != live
    again = world.snapshot().sha256
    world.say(corrected(1, "x", idempotency_key="much later", received_at=later))
    assert world.snapshot().sha256 == again


def test_both_databases_give_the_same_snapshot_whatever_else_they_hold(
    world: World, postgres: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = make_outcome(1, product=NAME, entity={"id": "live 1"}, occurred_at=ASKED, received_at=ASKED)
    values = [asked(1), corrected(1), asked(2, utterance="Où va-t-il ? 🧳"), corrected(2, "z"), label(2), happened]
    world.say(*values)
    first = world.snapshot()
    monkeypatch.setenv("ML_PLATFORM_PROVENANCE_URL", make_database(postgres))
    world.answers, world.labels = ProvenanceStore(world.home.provenance_url), LabelStore(world.home.provenance_url)
    world.say(asked(9), *reversed(values))
    second = world.snapshot()
    assert second.sha256 == first.sha256
    assert manifest_of(second).tables["answered"].rows == 4
    world.answers.close()
    world.labels.close()


def example(name: str, **changes: Any) -> Example:
    plain = {"prediction_time": ASKED, "utterance": f"{name}?", "answer": {"team": "x"}, "facts": {"line": "a"}}
    return Example(example_id=name, entity=name, **{**plain, **changes})


@pytest.fixture
def leaks(world: World) -> Callable[..., tuple[str, ...]]:
    def check(taught: Example, where: str = "train", golden: tuple[Example, ...] = ()) -> tuple[str, ...]:
        times = {"train": 3, "validation": 2, "test": 1}
        splits = {name: [example(name, prediction_time=ASKED - timedelta(days=days))] for name, days in times.items()}
        splits[where].append(taught)
        return check_leakage(world.product, world.snapshot(), splits, golden).problems

    return check


def test_leakage_is_looked_for_once_more_whoever_made_the_splits(leaks: Callable[..., tuple[str, ...]]) -> None:
    taught = example("live", origin=Origin.CORRECTION)
    assert leaks(taught) == (), "it may be newer than the test split"
    assert "begins" in leaks(taught.model_copy(update={"origin": None}))[0]
    for name in ("validation", "test"):
        assert any("are measured by: live" in problem for problem in leaks(taught, name))
    assert any("are measured by: live" in problem for problem in leaks(example("new"), golden=(taught,)))
    worded = taught.model_copy(update={"utterance": "TEST?", "facts": {"line": "b"}})
    assert any("asked in words" in problem for problem in leaks(worded))
    assert any("share 1 entities" in problem for problem in leaks(taught.model_copy(update={"entity": "test"})))


def test_an_example_without_an_origin_is_written_as_before() -> None:
    assert "origin" not in example("a").model_dump(mode="json")
    assert example("a", origin=Origin.LABEL).model_dump(mode="json")["origin"] == "label"
