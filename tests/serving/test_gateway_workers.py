"""Workers that are ended, killed and orphaned under load: what was accepted is answered, what was answered is kept."""

import asyncio
import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from ml_platform.contracts.home import Home
from ml_platform.lineage.provenance.segments import segments_in
from ml_platform.lineage.provenance.shipping import Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from tests.samples.followed import World
from tests.samples.gateway_processes import (
    MLP,
    PATIENCE_S,
    GatewayProcess,
    Load,
    alive,
    environment,
    gateway_process,
    instant_engine,
    until,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = Home(tmp_path_factory.mktemp("home"))
    world = World(home, home.ledger_url)
    world.serve(1)
    return world


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with instant_engine() as url:
        yield url


def ready(gateway: GatewayProcess) -> bool:
    try:
        return httpx2.get(f"{gateway.url}/readyz", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def ship_all(world: World) -> ProvenanceStore:
    """Everything in the log brought to the store."""
    store = ProvenanceStore(world.home.provenance_url)
    Shipper(world.home.provenance_log, store).ship()
    return store


def assert_each_has_one_record(world: World, answered: list[str]) -> None:
    store = ship_all(world)
    assert len(set(answered)) == len(answered)
    assert [one for one in answered if store.find(one) is None] == []
    assert store.conflicts() == ()
    store.close()


def test_sigterm_under_load_fails_no_request_that_was_accepted(world: World, engine: str) -> None:
    async def scenario(gateway: GatewayProcess) -> Load:
        load, ended = Load(gateway, clients=16), asyncio.Event()
        asking = asyncio.create_task(load.ask_until(ended, reconnect=False))
        while len(load.answered) < 200:
            await asyncio.sleep(0.02)
        gateway.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await asking
        return load

    with gateway_process(world, engine, "--workers", "2") as gateway:
        load = asyncio.run(scenario(gateway))
        assert gateway.process.wait(PATIENCE_S) == 0
    assert load.broken == []
    assert load.statuses == {200: len(load.answered)}
    assert_each_has_one_record(world, load.answered)
    assert segments_in(world.home.provenance_log) == (), "every log was sealed, so that all of it could be put away"


def test_workers_that_are_killed_lose_no_record_of_what_they_answered(world: World, engine: str) -> None:
    chance = random.Random(4)  # noqa: S311 - which is killed, no secret

    async def scenario(gateway: GatewayProcess) -> Load:
        load, ended = Load(gateway), asyncio.Event()
        asking = asyncio.create_task(load.ask_until(ended, reconnect=True))
        for _ in range(4):
            before = len(load.answered)
            while len(load.answered) < before + 150:
                await asyncio.sleep(0.01)
            await asyncio.sleep(chance.random() * 0.2)
            os.kill(chance.choice(gateway.workers()), signal.SIGKILL)
            while len(gateway.workers()) < 2:
                await asyncio.sleep(0.01)
        ended.set()
        async with asyncio.timeout(PATIENCE_S):
            await asking
        return load

    with gateway_process(world, engine, "--workers", "2") as gateway:
        load = asyncio.run(scenario(gateway))
        assert gateway.end() == 0
    assert len(load.answered) > 600
    assert set(load.statuses) == {200}
    assert load.refused == 0, "the address stays bound while workers die"
    assert_each_has_one_record(world, load.answered)


def test_workers_end_when_their_parent_is_killed(world: World, engine: str) -> None:
    with gateway_process(world, engine, "--workers", "2") as gateway:
        until(lambda: len(gateway.workers()) == 2, "two workers")
        workers = gateway.workers()
        gateway.end(signal.SIGKILL)
        until(lambda: not any(alive(worker) for worker in workers), "the end of the orphans")


def test_the_figures_are_those_of_all_workers_and_outlive_one(world: World, engine: str) -> None:
    def answers(gateway: GatewayProcess) -> float:
        lines = httpx2.get(f"{gateway.url}/metrics", timeout=20).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("mlp_answers_total{"))

    async def ask(gateway: GatewayProcess) -> Load:
        load, ended = Load(gateway), asyncio.Event()
        asking = asyncio.create_task(load.ask_until(ended, reconnect=True))
        while len(load.answered) < 100:
            await asyncio.sleep(0.01)
        ended.set()
        await asking
        return load

    with gateway_process(world, engine, "--workers", "2") as gateway:
        load = asyncio.run(ask(gateway))
        assert answers(gateway) == len(load.answered)
        os.kill(gateway.workers()[0], signal.SIGKILL)
        until(lambda: answers(gateway) == len(load.answered), "the figures of the dead")


def test_what_was_answered_is_shipped_beside_and_the_figures_say_what_waits(world: World, engine: str) -> None:
    def waiting(gateway: GatewayProcess) -> float:
        lines = httpx2.get(f"{gateway.url}/metrics", timeout=20).text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith("mlp_wal_pending_bytes"))

    body = {"model": world.product, "messages": [{"role": "user", "content": "Is it?"}]}
    with gateway_process(world, engine) as gateway:
        answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers, timeout=20)
        assert answer.status_code == 200
        assert waiting(gateway) > 0
        command = [MLP, "ship", "--json"]
        with subprocess.Popen(command, env=environment(world), stdout=subprocess.PIPE, text=True) as shipper:
            store = ProvenanceStore(world.home.provenance_url)
            until(lambda: store.find(answer.json()["id"]) is not None, "the record in the store")
            store.close()
            until(lambda: waiting(gateway) == 0.0, "nothing waits")
            shipper.terminate()
            assert shipper.wait(PATIENCE_S) == 0


def test_log_lines_are_json_with_the_id_and_without_what_was_asked(world: World, engine: str, tmp_path: Path) -> None:
    asked = "Is it mine? My number is +1 212 555 0100, a secret."
    path = tmp_path / "stderr"
    with path.open("w") as stderr, gateway_process(world, engine, "--log-answers", stderr=stderr) as gateway:
        url = f"{gateway.url}/v1/chat/completions"
        body = {"model": world.product, "messages": [{"role": "user", "content": asked}], "user": "a traveller"}
        answer = httpx2.post(url, json=body, headers=gateway.headers, timeout=20)
        assert answer.status_code == 200
        for wrong in ({**body, "model": "other"}, {**body, "temperature": asked}):
            assert httpx2.post(url, json=wrong, headers=gateway.headers, timeout=20).status_code in (400, 404)
        assert httpx2.post(url, json=body, headers={"authorization": "Bearer mlp_a-secret"}).status_code == 401
        gateway.end()
        token = gateway.token
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    told = next(line for line in lines if line.get("response_id") == answer.json()["id"])
    assert (told["level"], told["status"], told["product"]) == ("info", "answered", world.product)
    for secret in ("secret", "555 0100", "traveller", token):
        assert secret not in text


def test_a_gateway_that_never_had_an_engine_is_not_ready_and_says_so(world: World) -> None:
    with gateway_process(world, "http://127.0.0.1:1") as gateway:
        assert not ready(gateway)
        body = {"model": world.product, "messages": [{"role": "user", "content": "Is it?"}]}
        answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers, timeout=20)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_serving")


def test_a_gateway_whose_keys_cannot_be_read_does_not_begin(tmp_path: Path, engine: str) -> None:
    home = Home(tmp_path)
    world = World(home, home.ledger_url)
    home.keys.mkdir()
    (home.keys / "api_keys.json").write_text("{broken")
    command = [MLP, "gateway", "--port", "0", "--engine-url", engine]
    done = subprocess.run(
        command, env=environment(world), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 1
    assert "api_keys.json" in done.stderr
    assert "mlp: no worker of the gateway can begin" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_taken_is_said(world: World, engine: str) -> None:
    with gateway_process(world, engine) as gateway:
        port = gateway.url.rpartition(":")[2]
        command = [MLP, "gateway", "--port", port]
        done = subprocess.run(command, env=environment(world), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "cannot be bound" in done.stderr
