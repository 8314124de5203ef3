"""The console of a gateway as people start it: each worker knows who signed in; answers come as if nobody looked."""

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx2
import pytest

from ml_platform.contracts.home import Home
from ml_platform.lineage.looks import LookStore
from tests.samples.followed import World
from tests.samples.gateway_processes import GatewayProcess, Load, gateway_process, instant_engine, until
from tests.samples.looks import make_rollout

START = datetime(2013, 4, 1, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    home = Home(tmp_path_factory.mktemp("home"))
    world = World(home, home.ledger_url)
    first, second = world.serve(1), world.try_out(2)
    looks = LookStore(home.monitoring_url, every_seconds=0.0)
    for look in make_rollout(world.product, START, datetime.now(UTC), looks=200, production=first, canary=second):
        looks.put(look)
    looks.close()
    with instant_engine() as engine, gateway_process(world, engine, "--workers", "2") as running:
        yield running


def signed_in(gateway: GatewayProcess) -> dict[str, str]:
    answer = httpx2.post(f"{gateway.url}/console/login", data={"key": gateway.token}, timeout=20)
    assert answer.status_code == 303
    return {"cookie": answer.headers["set-cookie"].partition(";")[0]}


def test_every_worker_knows_who_signed_in_and_shows_the_same(gateway: GatewayProcess) -> None:
    headers = signed_in(gateway)
    for _ in range(20):
        page = httpx2.get(f"{gateway.url}/console/products/assistant", headers=headers, timeout=20)
        assert page.status_code == 200
        assert "this gateway serves epoch 3" in page.text
        assert page.text.count("<polygon") == 9


def test_an_answer_is_found_the_moment_it_is_given(gateway: GatewayProcess) -> None:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Is it <b>late</b>?"}], "user": "ada"}
    answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers, timeout=20)
    page = httpx2.get(f"{gateway.url}/console/responses/{answer.json()['id']}", headers=signed_in(gateway), timeout=20)
    assert page.status_code == 200
    assert "Is it &lt;b&gt;late&lt;/b&gt;?" in page.text
    assert "not loaded here" not in page.text


def latencies(gateway: GatewayProcess) -> list[float]:
    took = []
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Is it?"}]}
    with httpx2.Client(headers=gateway.headers, timeout=20) as client:
        for _ in range(100):
            began = time.perf_counter()
            assert client.post(f"{gateway.url}/v1/chat/completions", json=body).status_code == 200
            took.append(time.perf_counter() - began)
    return sorted(took)


def test_answers_are_as_quick_while_people_look(gateway: GatewayProcess) -> None:
    headers, looking, ended = signed_in(gateway), threading.Event(), threading.Event()

    def look() -> None:
        with httpx2.Client(headers=headers, timeout=20) as client:
            while not ended.wait(0.2):
                if looking.is_set():
                    assert client.get(f"{gateway.url}/console/products/assistant").status_code == 200

    people = [threading.Thread(target=look) for _ in range(4)]
    for person in people:
        person.start()
    quiet, watched = [], []
    for _ in range(4):  # in turns, so that whatever else this machine does comes to both alike
        looking.clear()
        quiet.append(latencies(gateway))
        looking.set()
        watched.append(latencies(gateway))
    ended.set()
    for person in people:
        person.join()
    # A bound, no benchmark: client, gateway, engine and four people share few cores here.
    assert min(map(statistics.median, watched)) < 3 * min(map(statistics.median, quiet)) + 0.01
    assert min(one[-4] for one in watched) < min(one[-4] for one in quiet) + 0.25, "no answer waits for a page"


def test_people_who_look_break_no_answer_of_a_gateway_under_load(gateway: GatewayProcess) -> None:
    headers = signed_in(gateway)

    async def scenario() -> Load:
        load, ended = Load(gateway), asyncio.Event()
        asking = asyncio.create_task(load.ask_until(ended, reconnect=True))
        async with httpx2.AsyncClient(headers=headers, timeout=20) as client:
            while len(load.answered) < 300:
                page = await client.get(f"{gateway.url}/console/products/assistant")
                assert page.status_code == 200
        ended.set()
        await asking
        return load

    load = asyncio.run(scenario())
    assert set(load.statuses) == {200}
    assert load.broken == []


def test_a_ledger_that_goes_away_leaves_a_page_that_says_so(gateway: GatewayProcess) -> None:
    headers, ledger = signed_in(gateway), gateway.home.root / "ledger.sqlite"
    away = ledger.with_name("away")
    ledger.rename(away)
    try:
        ledger.mkdir()

        def told() -> bool:
            page = httpx2.get(f"{gateway.url}/console/products/assistant", headers=headers, timeout=20)
            return page.status_code == 200 and "The ledger cannot be read" in page.text

        until(told, "that the ledger is gone")
        ledger.rmdir()
    finally:
        away.rename(ledger)
    whole = f"{gateway.url}/console/products/assistant"
    until(lambda: "cannot be read" not in httpx2.get(whole, headers=headers, timeout=20).text, "that it is back")
