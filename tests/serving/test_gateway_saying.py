"""Feedback and outcomes: durable before they are confirmed, the same when sent again; and an answer's page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ml_platform.cli.app import run
from ml_platform.errors import StorageError
from ml_platform.lineage.provenance.shipping import Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.serving.gateway.access import Scope
from tests.samples.gateway import ANSWER, PRODUCT, Running, asked, running_gateway

FLIGHT = {"flight_id": "2013-04-01-UA-1545-EWR"}
THUMB = {"idempotency_key": "f-1", "kind": "thumbs_up", "response_id": "resp_12345678"}
LATE = {
    "idempotency_key": "o-1",
    "entity": FLIGHT,
    "occurred_at": "2013-04-01T18:00:00Z",
    "values": {"arrival_delay_min": 42, "cancelled": False, "gate": "C 12", "wind_mph": 7.5, "reason": None},
}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Running]:
    with running_gateway(tmp_path) as running:
        yield running


def send(gateway: Running, path: str, body: Any, token: str | None = None, **headers: str) -> httpx2.Response:
    named = {"authorization": f"Bearer {token or gateway.token()}", **headers}
    return httpx2.post(f"{gateway.url}/v1/{path}", json=body, headers=named)


def answer(gateway: Running) -> str:
    return str(send(gateway, "chat/completions", asked(metadata=FLIGHT)).json()["id"])


def ship(gateway: Running) -> None:
    store = ProvenanceStore(gateway.home.provenance_url)
    Shipper(gateway.home.provenance_log, store).ship()
    assert store.conflicts() == ()
    store.close()


def test_what_is_said_by_id_and_by_entity_is_joined_to_the_answer(gateway: Running) -> None:
    response_id = answer(gateway)
    said = {**THUMB, "response_id": response_id}
    assert send(gateway, "feedback", said).json() == {"object": "receipt", "accepted": 1}
    assert send(gateway, "outcomes", LATE).json() == {"object": "receipt", "accepted": 1}
    ship(gateway)
    found = gateway.find(response_id)
    assert [one.kind.value for one in found.feedback] == ["thumbs_up"]
    assert [one.values for one in found.outcomes] == [LATE["values"]]


def test_what_is_sent_again_counts_once_and_another_under_its_name_is_a_conflict(gateway: Running) -> None:
    response_id = answer(gateway)
    said = {**THUMB, "response_id": response_id}
    for _ in range(3):
        assert send(gateway, "feedback", said).status_code == 200
    ship(gateway)
    assert len(gateway.find(response_id).feedback) == 1
    send(gateway, "feedback", {**said, "kind": "thumbs_down"})
    store = ProvenanceStore(gateway.home.provenance_url)
    Shipper(gateway.home.provenance_log, store).ship()
    assert [conflict.key for conflict in store.conflicts()] == ["f-1"]
    store.close()


def test_an_outcome_that_comes_before_its_answer_finds_it(gateway: Running) -> None:
    assert send(gateway, "outcomes", LATE).status_code == 200
    response_id = answer(gateway)
    ship(gateway)
    assert len(gateway.find(response_id).outcomes) == 1


def test_many_are_taken_at_once_or_none(gateway: Running) -> None:
    many = [{**THUMB, "idempotency_key": f"f-{number}"} for number in range(500)]
    assert send(gateway, "feedback", many).json()["accepted"] == 500
    answered = send(gateway, "feedback", [*many, THUMB])
    assert answered.status_code == 400
    assert "at most 500" in answered.json()["error"]["message"]
    answered = send(gateway, "outcomes", [{**LATE, "idempotency_key": f"o-{number}"} for number in range(500)])
    assert (answered.status_code, answered.json()["error"]["code"]) == (413, "body_too_large")
    wrong = [LATE, {**LATE, "idempotency_key": "o-2", "values": {}}]
    answered = send(gateway, "outcomes", wrong)
    assert answered.status_code == 400
    assert "[1].values" in answered.json()["error"]["message"]


def test_an_entity_that_no_index_holds_is_refused_and_the_rest_is_shipped(gateway: Running) -> None:
    longest = {"flight_id": "🛫" * 512}
    for entity in ({f"column {number}": "x" * 512 for number in range(16)}, {"flight_id": "\1" * 512}):
        for path, said in (("feedback", {**THUMB, "entity": entity}), ("outcomes", {**LATE, "entity": entity})):
            answered = send(gateway, path, said)
            assert answered.status_code == 400
            assert "2,500 bytes" in answered.json()["error"]["message"]
    assert send(gateway, "outcomes", {**LATE, "entity": longest}).status_code == 200
    ship(gateway)


def test_a_correction_is_kept_without_personal_data(gateway: Running) -> None:
    response_id = answer(gateway)
    said = {**THUMB, "response_id": response_id, "kind": "correction", "text": "Call me: +1 212 555 0100, a@b.example"}
    assert send(gateway, "feedback", said).status_code == 200
    ship(gateway)
    assert gateway.find(response_id).feedback[0].text == "Call me: [phone], [email]"


def test_what_has_no_key_of_its_own_is_named_by_the_header_or_by_what_it_says(gateway: Running) -> None:
    bare = {key: value for key, value in THUMB.items() if key != "idempotency_key"}
    response_id = answer(gateway)
    bare["response_id"] = response_id
    for body, header in (
        (bare, "from-a-header"),
        ([bare, bare], "many"),
        (bare, None),
        (bare, None),
        ({**bare, "idempotency_key": "its-own"}, "from-a-header"),
    ):
        assert send(gateway, "feedback", body, **({"idempotency-key": header} if header else {})).status_code == 200
    ship(gateway)
    *named, last = sorted(one.idempotency_key for one in gateway.find(response_id).feedback)
    assert named == ["from-a-header", "its-own", "many.0", "many.1"]
    assert last.startswith("sha256:")
    for wrong in ("with space", "x" * 121):
        answered = send(gateway, "feedback", bare, **{"idempotency-key": wrong})
        assert (answered.status_code, answered.json()["error"]["code"]) == (400, "invalid_header")


@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        ("feedback", {"response_id": None}, "name what this is about"),
        ("feedback", {"kind": "correction"}, "needs its text"),
        ("feedback", {"kind": "meh"}, "expected one of"),
        ("feedback", {"text": "x" * 8001}, "text"),
        ("feedback", {"given_at": "2013-04-01T18:00:00"}, "given_at"),
        ("feedback", {"given_at": 12}, "given_at"),
        ("feedback", {"idempotency_key": "a\0b"}, "idempotency_key"),
        ("feedback", {"response_id": "../../etc"}, "response_id"),
        ("outcomes", {"values": {"Late Minutes": 1}}, "values"),
        ("outcomes", {"values": {"late": [1]}}, "values"),
        ("outcomes", {"entity": {"flight_id": 1.5}}, "entity"),
        ("outcomes", {"occurred_at": None}, "occurred_at"),
        ("outcomes", {"received_at": "2013-04-01T18:00:00Z"}, "unknown key"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(gateway: Running, path: str, change: dict, says: str) -> None:  # type: ignore[type-arg]
    body = {**(THUMB if path == "feedback" else LATE), **change}
    answered = send(gateway, path, body)
    assert answered.status_code == 400, answered.text
    assert says in answered.json()["error"]["message"]


def test_a_key_for_all_products_names_the_one_it_speaks_of(gateway: Running) -> None:
    token = gateway.token(Scope.FEEDBACK, product=None)
    assert "product" in send(gateway, "feedback", THUMB, token).json()["error"]["message"]
    assert send(gateway, "feedback", {**THUMB, "product": PRODUCT}, token).status_code == 200


def test_what_cannot_be_recorded_is_not_confirmed(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(_: object) -> None:
        raise StorageError("log /secret: no space left on device")

    monkeypatch.setattr(gateway.answerer.recorder, "take", full)
    answered = send(gateway, "feedback", THUMB)
    assert (answered.status_code, answered.json()["error"]["code"]) == (503, "not_recorded")
    assert "secret" not in answered.text


def test_an_operator_sees_what_produced_an_answer_at_once_and_once_it_is_shipped(gateway: Running) -> None:
    response_id = answer(gateway)
    headers = {"authorization": f"Bearer {gateway.token(Scope.OPERATE)}"}
    before = httpx2.get(f"{gateway.url}/v1/responses/{response_id}", headers=headers).json()
    assert before["record"]["response_id"] == response_id
    assert before["record"]["answer"] == ANSWER
    send(gateway, "feedback", {**THUMB, "response_id": response_id})
    ship(gateway)
    after = httpx2.get(f"{gateway.url}/v1/responses/{response_id}", headers=headers).json()
    assert after["record"] == before["record"]
    assert [one["kind"] for one in after["feedback"]] == ["thumbs_up"]
    for unknown in ("resp_00000000", "x", "%00", "'; drop table responses", "ü" * 80):
        found = httpx2.get(f"{gateway.url}/v1/responses/{unknown}", headers=headers)
        assert (found.status_code, found.json()["error"]["code"]) == (404, "response_not_found")
    stranger = {"authorization": f"Bearer {gateway.token(Scope.OPERATE, product='other')}"}
    assert httpx2.get(f"{gateway.url}/v1/responses/{response_id}", headers=stranger).status_code == 404


def test_mlp_trace_lays_it_out_for_people_and_programs(
    gateway: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(gateway.home.root))
    response_id = answer(gateway)
    assert run(["trace", response_id]) == 0
    page = capsys.readouterr().out
    for shown in (
        response_id,
        "a" * 64,
        "route_delay_mean_30d",
        "groundedness",
        "production (assigned)",
        "1.0.0",
        "184 read, 31 written",
        "0.000041 USD",
        "0" * 40,
        "Nothing was said of it yet",
        "e" * 64,
    ):
        assert shown in page, shown
    send(gateway, "feedback", {**THUMB, "response_id": response_id})
    send(gateway, "outcomes", LATE)
    ship(gateway)
    assert run(["trace", response_id]) == 0
    page = capsys.readouterr().out
    assert "thumbs_up" in page
    assert "arrival_delay_min=42" in page
    assert run(["trace", response_id, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["record"]["response_id"] == response_id
    assert len(found["outcomes"]) == 1
    assert found["release"] is None
    assert run(["trace", "resp_00000000"]) == 1
    assert "there is no answer" in capsys.readouterr().err
