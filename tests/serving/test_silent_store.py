"""A store of answers that takes every connection and says nothing: only what needs it is missing, and not for long."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from ml_platform.errors import StorageError
from ml_platform.lineage.databases import SILENCE
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.serving.gateway.endpoints import FIND_SECONDS
from ml_platform.serving.gateway.measuring import STORE_SECONDS
from tests.samples.gateway import asked, running_gateway

SCRAPE_TIMEOUT_SECONDS = 10.0
"""Prometheus' own."""


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a PostgreSQL behind a network that swallows what is sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"postgresql://nobody@127.0.0.1:{server.getsockname()[1]}/answers"


def test_a_store_that_says_nothing_is_given_up(silent: str) -> None:
    began = time.monotonic()
    with pytest.raises(StorageError):
        ProvenanceStore(silent).find("resp_1")
    assert time.monotonic() - began < 4 * SILENCE["connect_timeout"]


def test_a_store_that_was_never_opened_is_not_asked_when_it_is_closed(silent: str) -> None:
    began = time.monotonic()
    ProvenanceStore(silent).close()
    assert time.monotonic() - began < SILENCE["connect_timeout"]


def test_the_figures_come_although_the_store_says_nothing(tmp_path: Path, silent: str) -> None:
    with running_gateway(tmp_path, store_url=silent) as gateway, httpx2.Client(base_url=gateway.url) as client:
        headers = {"authorization": f"Bearer {gateway.token()}"}

        def look(_: int) -> str:
            page = httpx2.get(f"{gateway.url}/metrics", timeout=SCRAPE_TIMEOUT_SECONDS)
            assert page.status_code == 200
            return page.text

        answer = client.post("/v1/chat/completions", json=asked(), headers=headers, timeout=20)
        response_id = answer.json()["id"]
        with ThreadPoolExecutor(16) as many:  # more than there are threads for them
            pages = list(many.map(look, range(32)))
        waiting = [line for line in pages[-1].splitlines() if line.startswith("mlp_wal_pending_bytes")]
        assert float(waiting[0].split()[-1]) > 0, "nothing is known to be in the store"
        found = client.get(f"/v1/responses/{response_id}", headers=headers, timeout=20)
        assert (found.status_code, found.json()["record"]["response_id"]) == (200, response_id), "it is in the log"


def test_answers_that_nobody_finds_hold_up_neither_figures_nor_questions(tmp_path: Path, silent: str) -> None:
    with running_gateway(tmp_path, store_url=silent) as gateway, ThreadPoolExecutor(16) as many:
        headers = {"authorization": f"Bearer {gateway.token()}"}

        def look_up(number: int) -> tuple[int, float]:
            began = time.monotonic()
            url = f"{gateway.url}/v1/responses/resp_{number}"
            return httpx2.get(url, headers=headers, timeout=60).status_code, time.monotonic() - began

        looking = [many.submit(look_up, number) for number in range(16)]
        began = time.monotonic()
        page = httpx2.get(f"{gateway.url}/metrics", timeout=SCRAPE_TIMEOUT_SECONDS)
        assert page.status_code == 200
        assert time.monotonic() - began < 2 * STORE_SECONDS
        url = f"{gateway.url}/v1/chat/completions"
        assert httpx2.post(url, json=asked(), headers=headers, timeout=20).status_code == 200
        found = [one.result(timeout=60) for one in looking]
        assert {status for status, _ in found} == {503}
        assert max(seconds for _, seconds in found) < FIND_SECONDS + 4.0
