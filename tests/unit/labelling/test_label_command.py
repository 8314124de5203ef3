"""`mlp label next|put|export` on a real store of answers."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.cli.app import run
from ml_platform.contracts.home import Home
from ml_platform.contracts.provenance import FeedbackKind
from ml_platform.contracts.routing import Cohort
from ml_platform.lineage.provenance.store import ProvenanceStore
from tests.samples.answered import RIGHT, WRONG, answered, correction, fill
from tests.samples.provenance import RELEASES, make_feedback, response_id_of

TODAY = datetime.now(UTC) - timedelta(hours=1)
CALM = {"late_chance": 10}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProvenanceStore]:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    opened = ProvenanceStore(Home(tmp_path).provenance_url)
    yield opened
    opened.close()


def asked(number: int, **changes: Any) -> Any:
    plain = {"answered_at": TODAY + timedelta(seconds=number), "utterance": f"question {number}"}
    return answered(number, **{**plain, **changes})


def copied(number: int, answer: dict[str, Any]) -> Any:
    shadow = {"cohort": Cohort.SHADOW, "shadow_of": response_id_of(number), "release_id": RELEASES[1]}
    return asked(number + 1000, answer=json.dumps(answer), response_id=f"shadow_{number:032x}", **shadow)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["label", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["label", *arguments]) == 1
    return capsys.readouterr().err


def next_ids(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [one["response_id"] for one in told(capsys, "next", "flight_assistant", "--json")]


def test_what_releases_disagree_on_comes_first_and_leaves_once_it_is_labelled(
    store: ProvenanceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    disliked = make_feedback(2, kind=FeedbackKind.THUMBS_DOWN, received_at=TODAY + timedelta(minutes=1))
    fill(store, asked(1), copied(1, RIGHT), asked(2), disliked, asked(3), copied(3, WRONG))
    requests = told(capsys, "next", "flight_assistant", "--json")
    assert [one["response_id"] for one in requests] == [response_id_of(1), response_id_of(2)]
    assert requests[0]["reasons"] == ["releases disagree in intent"]
    put = ("put", response_id_of(1), "--by", "ana", "--answer", json.dumps(RIGHT), "--json")
    assert told(capsys, *put) == [{"response_id": response_id_of(1), "kept": "new"}]
    assert told(capsys, *put)[0]["kept"] == "same"
    assert next_ids(capsys) == [response_id_of(2)]
    assert run(["label", "export", "flight_assistant"]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (json.loads(row["label"]), row["labeller"], row["disputed"]) == (RIGHT, "ana", False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--answer", "It goes to Houston"), "not JSON"),
        (("--answer", json.dumps({**RIGHT, "risk": "low"})), "where the action policy says elevated"),
        (("--answer", json.dumps({**RIGHT, "reply": "Expect 77 minutes."})), "its reply says 77"),
        ((), "either an answer or the reason"),
        (("--answer", json.dumps(RIGHT), "--cannot", "no"), "either an answer or the reason"),
    ],
)
def test_a_label_that_could_not_teach_is_refused_and_says_why(
    store: ProvenanceStore, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    fill(store, asked(1))
    assert said in refused(capsys, "put", response_id_of(1), "--by", "ana", *arguments)
    assert run(["label", "export", "flight_assistant"]) == 0
    assert capsys.readouterr().out == ""


def test_a_correction_that_teaches_needs_no_labeller_and_one_that_does_not_does(
    store: ProvenanceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = TODAY + timedelta(minutes=5)
    fill(store, asked(1), correction(1, received_at=heard), asked(2), correction(2, "Houston!", received_at=heard))
    assert next_ids(capsys) == [response_id_of(2)]


def test_a_file_of_labels_is_put_whole_or_not_at_all(
    store: ProvenanceStore, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fill(store, asked(1), asked(2))
    path = tmp_path / "labels.jsonl"
    good = {"response_id": response_id_of(1), "answer": RIGHT}
    path.write_text(json.dumps(good) + "\n" + json.dumps({"response_id": response_id_of(2), "answer": "late"}))
    assert "label 2" in refused(capsys, "put", "--by", "ana", "--file", str(path))
    assert run(["label", "export", "flight_assistant"]) == 0
    assert capsys.readouterr().out == ""
    other = {"response_id": response_id_of(2), "cannot": "Nobody knows; ask ana@example.org"}
    path.write_text(json.dumps(good) + "\n\n" + json.dumps(other) + "\n")
    assert [one["kept"] for one in told(capsys, "put", "--by", "ana", "--file", str(path), "--json")] == ["new", "new"]
    out = tmp_path / "out.jsonl"
    assert run(["label", "export", "flight_assistant", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [json.loads(rows[0]["label"]), rows[1]["cannot"]] == [RIGHT, "Nobody knows; ask [email]"]
    assert "2 labels" in capsys.readouterr().out
    assert told(capsys, "export", "flight_assistant", "--json") == rows


def test_labellers_who_disagree_are_told_apart_and_a_third_is_asked(
    store: ProvenanceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store, asked(1))
    other = {**RIGHT, "intent": "why", "reply": "Because 25% of recent EWR departures left late."}
    for by, answer in (("ana", RIGHT), ("ben", other)):
        told(capsys, "put", response_id_of(1), "--by", by, "--answer", json.dumps(answer), "--json")
    (again,) = told(capsys, "next", "flight_assistant", "--by", "cy", "--json")
    assert again["reasons"] == ["labellers disagree"]
    assert told(capsys, "next", "flight_assistant", "--by", "ben", "--json") == []
    assert run(["label", "export", "flight_assistant"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["labeller"], row["disputed"]) for row in rows] == [("ana", True), ("ben", True)]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("put", "resp_00000000", "--by", "ana", "--answer", "x"), 1, "there is no such answer"),
        (("put", "resp_00000000", "--by", "ana@example.org", "--answer", "x"), 1, "there is no such answer"),
        (("put", "resp_00000000", "--answer", "x"), 2, "--by"),
        (("put", "--by", "ana"), 2, "RESPONSE_ID"),
        (("put", "--by", "ana", "--file", "nowhere.jsonl"), 1, "cannot be read"),
        (("next", "flight_asistant"), 1, "did you mean 'flight_assistant'"),
        (("export", "flight_asistant"), 1, "did you mean 'flight_assistant'"),
    ],
)
def test_mistakes_are_explained(
    store: ProvenanceStore, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    fill(store, asked(1))
    assert run(["label", *arguments]) == code
    assert said in capsys.readouterr().err


def test_a_labeller_is_no_address(store: ProvenanceStore, capsys: pytest.CaptureFixture[str]) -> None:
    fill(store, asked(1))
    put = ("put", response_id_of(1), "--answer", json.dumps(RIGHT), "--by")
    assert "labeller" in refused(capsys, *put, "ana@example.org")


def test_people_read_why_a_question_is_asked(store: ProvenanceStore, capsys: pytest.CaptureFixture[str]) -> None:
    fill(store, asked(1), copied(1, RIGHT))
    assert run(["label", "next", "flight_assistant"]) == 0
    out = capsys.readouterr().out
    for words in ("releases disagree in intent", "question 1", "late_chance 23", "mlp label put"):
        assert words in out


def test_where_nothing_was_answered_it_says_so_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    assert "nothing was answered yet" in refused(capsys, "next", "flight_assistant")
    assert list(tmp_path.iterdir()) == []
