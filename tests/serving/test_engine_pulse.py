"""Who says that the engine is down is right: it lists models while no token comes out, or is busy and nothing else."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from ml_platform.contracts.home import Home
from ml_platform.errors import EngineBusyError
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.engine.service import EngineLimits
from ml_platform.serving.engine_client import EngineClient, Generated
from ml_platform.serving.pulse import PROBE_EVERY_SECONDS
from tests.samples.engine import CONVERSATIONS, DECODING, Gate, TinyWorld, make_world, running_engine, using
from tests.samples.followed import Watched, World, until, watching

ENGINE = "ml_platform.serving.engine.service"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def local(tmp_path: Path) -> World:
    return World(Home(tmp_path / "home"), f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def ask(client: EngineClient, model: str) -> "asyncio.Future[Generated]":
    deadline = Deadline.after(60.0, time.monotonic())
    return asyncio.ensure_future(client.generate(model, CONVERSATIONS[0], DECODING, deadline=deadline))


def test_an_engine_that_lists_its_models_while_no_token_comes_out_is_down(local: World) -> None:
    async def steps(watched: Watched) -> None:
        await watched.follower.look_after_engine()
        watched.engine.hangs = True
        watched.seconds += PROBE_EVERY_SECONDS
        await watched.follower.look_after_engine()
        assert watched.follower.problem is None, "one probe that fails may be a long pass through the model"
        watched.seconds += 1.0
        await watched.follower.look_after_engine()
        assert "no token comes out" in watched.follower.problems["the engine"]
        watched.engine.hangs = False
        watched.seconds += 1.0
        await watched.follower.look_after_engine()
        assert watched.follower.problem is None

    watching(local, steps)


def test_a_probe_that_fails_once_in_a_while_is_nothing(local: World) -> None:
    async def steps(watched: Watched) -> None:
        for round_ in range(40):
            watched.engine.hangs = round_ % 2 == 0
            watched.seconds += PROBE_EVERY_SECONDS
            await watched.follower.look_after_engine()
            assert watched.follower.problem is None

    watching(local, steps)


def test_the_pulse_of_a_sound_engine_is_felt_every_ten_seconds_and_not_at_every_look(local: World) -> None:
    async def steps(watched: Watched) -> None:
        for _ in range(100):
            watched.seconds += 1.0
            await watched.follower.look_after_engine()
        assert watched.engine.probes == 100.0 / PROBE_EVERY_SECONDS

    watching(local, steps)


def test_a_real_engine_whose_model_hangs_is_down_until_a_token_comes_out(
    local: World, tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{ENGINE}.PROBE_SECONDS", 0.3)
    monkeypatch.setattr(f"{ENGINE}.PROBE_VALID_SECONDS", 0.1)

    async def work(client: EngineClient) -> None:
        watched = Watched(local, cast("Any", client))
        begun = ask(client, tiny.base.name)
        await until(lambda: running.engine.scheduler.load == (0, 1))
        await asyncio.sleep(0.15)  # what was generated before the model hung counts no more
        for _ in range(2):
            await watched.follower.look_after_engine()
        assert "no token comes out" in watched.follower.problems["the engine"]
        monkeypatch.setattr(f"{ENGINE}.PROBE_SECONDS", 5.0)  # what works may take its time
        gate.open()
        await begun
        await watched.follower.look_after_engine()
        assert watched.follower.problem is None

    with running_engine(tiny.base) as running:
        gate = Gate(running.engine)
        using(running, work)


def test_a_real_engine_that_is_full_is_not_down(local: World, tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token is fresh enough to count, and no row gets free for the probe: others get tokens, which is enough."""
    monkeypatch.setattr(f"{ENGINE}.PROBE_SECONDS", 1.0)
    monkeypatch.setattr(f"{ENGINE}.PROBE_VALID_SECONDS", 0.0)

    async def work(client: EngineClient) -> None:
        watched = Watched(local, cast("Any", client))
        begun = [ask(client, tiny.base.name)]
        await until(lambda: running.engine.scheduler.load == (0, 1))  # or both would wait, and the second has no room
        begun.append(ask(client, tiny.base.name))
        await until(lambda: running.engine.scheduler.load == (1, 1))
        with pytest.raises(EngineBusyError):
            await ask(client, tiny.base.name)
        for _ in range(2):
            watched.seconds += PROBE_EVERY_SECONDS
            await watched.follower.look_after_engine()
            assert watched.follower.problem is None
        assert running.engine.scheduler.load >= (1, 1), "it was full all the time"
        slow.set()
        await asyncio.gather(*begun)

    with running_engine(tiny.base, EngineLimits(rows=1, context=600, max_queue=1)) as running:
        slow, advance = threading.Event(), running.engine._decoder.advance

        def crawl(*arguments: Any) -> list[int]:
            slow.wait(0.2)
            return advance(*arguments)

        running.engine._decoder.advance = crawl  # type: ignore[method-assign, assignment]
        using(running, work)


def test_a_store_that_hangs_is_no_fault_of_the_engine(local: World) -> None:
    """It keeps every thread that stages, so that nobody can look after the stages either."""

    async def run() -> None:
        watched, back = Watched(local, monotonic=time.monotonic), threading.Event()
        threads = watched.follower._stores
        staging = [
            asyncio.ensure_future(threads.call(lambda: back.wait(60.0), timeout_seconds=60.0))
            for _ in range(threads._limit)
        ]
        await asyncio.sleep(0)  # all are on their way
        await looked_until(watched, lambda: bool(watched.follower.problems))
        assert list(watched.follower.problems) == ["the staging folder"]
        back.set()
        await asyncio.gather(*staging)
        await looked_until(watched, lambda: not watched.follower.problems)
        await watched.loader.close()

    asyncio.run(run())


async def looked_until(watched: Watched, true: Callable[[], bool]) -> None:
    """Looks after the engine until it is true."""
    async with asyncio.timeout(60.0):
        while not true():
            await watched.follower.look_after_engine()
            await asyncio.sleep(0.05)
