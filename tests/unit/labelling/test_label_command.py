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
