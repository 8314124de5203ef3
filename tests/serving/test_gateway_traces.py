"""Traces reach a real MLflow server and carry the response id; without a collector there are none."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from mlflow import MlflowClient

from ml_platform.contracts.home import Home
from tests.samples.followed import World
from tests.samples.gateway_processes import PATIENCE_S, Load, gateway_process, instant_engine


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def mlflow_url(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    command = [mlflow, "server", "--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.sqlite'}"]
    command += ["--default-artifact-root", str(tmp_path / "artifacts"), "--port", str(port), "--workers", "1"]
    with (tmp_path / "mlflow.log").open("w") as log:
        # In a group of its own: uvicorn's worker is a child of it.
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env={**os.environ})
        try:
            url, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
            while not answers(url):
                assert time.monotonic() < end, (tmp_path / "mlflow.log").read_text()
                time.sleep(0.2)
            yield url
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


@pytest.mark.timeout(300)
def test_a_trace_arrives_in_mlflow_with_the_response_id(tmp_path: Path, mlflow_url: str) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    world = World(home, home.ledger_url)
    release_id = world.serve(1)

    async def ask(load: Load) -> None:
        ended = asyncio.Event()
        asking = asyncio.create_task(load.ask_until(ended, reconnect=False))
        while len(load.answered) < 3:
            await asyncio.sleep(0.01)
        ended.set()
        await asking

    with instant_engine() as engine, gateway_process(world, engine, "--traces-url", mlflow_url) as gateway:
        load = Load(gateway, clients=1)
        asyncio.run(ask(load))
        assert gateway.end() == 0
    client = MlflowClient(mlflow_url)
    traces = client.search_traces(locations=["0"], include_spans=True)
    spans = [trace.data.spans for trace in traces]
    roots = [next(span for span in one if span.parent_id is None) for one in spans]
    assert {root.attributes["response_id"] for root in roots} == set(load.answered)
    assert {root.attributes["release_id"] for root in roots} == {release_id}
    names = {span.name for span in spans[0]}
    assert {"answer", "guardrails of the question", "engine"} <= names
    assert all(
        root.start_time_ns <= span.start_time_ns <= span.end_time_ns <= root.end_time_ns
        for root, one in zip(roots, spans, strict=True)
        for span in one
    )
    assert "Is it?" not in str([span.to_dict() for one in spans for span in one])
