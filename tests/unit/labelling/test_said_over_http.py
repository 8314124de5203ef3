"""From POST /v1/feedback to a row of the next snapshot: durable, without personal data, and with its origin."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from ml_platform.contracts.home import Home
from ml_platform.contracts.serving import ServingTime
from ml_platform.contracts.source import AnsweredSpec
from ml_platform.lineage.answered import AnsweredRow, AnswerHistory
from ml_platform.lineage.provenance.shipping import Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from tests.samples.answered import RIGHT
from tests.samples.gateway import PRODUCT, Running, asked, running_gateway

FLIGHT = {"flight_id": "2013-04-01-UA-1545-EWR"}


def post(gateway: Running, path: str, body: Any) -> Any:
    answered = httpx2.post(
        f"{gateway.url}/v1/{path}", json=body, headers={"authorization": f"Bearer {gateway.token()}"}
    )
    assert answered.status_code == 200, answered.text
    return answered.json()


def rows(gateway: Running) -> list[AnsweredRow]:
    with closing(ProvenanceStore(gateway.home.provenance_url)) as store:
        Shipper(gateway.home.provenance_log, store).ship()
    spec = AnsweredSpec(kind="answered")
    later = datetime.now(UTC) + timedelta(hours=1)
    with AnswerHistory.at(gateway.home) as history:
        assert history is not None
        return history.rows(PRODUCT, spec, ServingTime.CLOCK, timedelta(hours=36), later)


def test_a_correction_that_was_posted_is_a_row_once_however_often_it_is_sent(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        response_id = post(gateway, "chat/completions", asked(metadata=FLIGHT))["id"]
        said = {"kind": "correction", "response_id": response_id, "text": json.dumps(RIGHT)}
        for _ in range(3):
            post(gateway, "feedback", said)
        (row,) = rows(gateway)
        assert (row.origin, row.response_id, json.loads(row.said or "")) == ("correction", response_id, RIGHT)
        assert row.known_at >= row.asked_at
        post(gateway, "feedback", {**said, "text": "Call me at ana@example.org or +1 212 555 0100 00"})
        texts = [row.said or "" for row in rows(gateway)]
        assert len(texts) == 2
        assert not [text for text in texts if "ana@" in text or "555" in text]


def test_a_home_where_nobody_asked_has_no_history_and_asking_makes_none(tmp_path: Path) -> None:
    with AnswerHistory.at(Home(tmp_path)) as history:
        assert history is None
    assert list(tmp_path.iterdir()) == []
