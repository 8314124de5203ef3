"""The whole way with a real engine: a release that was trained, proven and opened answers; a damaged one never does."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from ml_platform.contracts.home import Home
from ml_platform.contracts.report import Decoding
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.engine_client import EngineClient
from tests.samples.engine import CONVERSATIONS, TOKEN, RunningEngine, TinyWorld, make_world, running_engine
from tests.samples.followed import Watched, World

ANSWER = Decoding(max_new_tokens=8, batch_size=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def engine(tiny: TinyWorld) -> Iterator[RunningEngine]:
    with running_engine(tiny.base) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, tiny: TinyWorld) -> World:
    world = World(Home(tmp_path / "home"), f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    world.base = tiny.base.name
    world.adapters = {seed: adapter.path for seed, adapter in enumerate(tiny.adapters, start=1)}
    return world


@asynccontextmanager
async def following(world: World, engine: RunningEngine) -> AsyncIterator[tuple[Watched, EngineClient]]:
    client = EngineClient(engine.url, token=TOKEN)
    yield Watched(world, cast("Any", client), monotonic=time.monotonic), client
    await client.close()


def test_releases_answer_through_a_real_engine_and_are_loaded_again_when_it_lost_them(
    world: World, engine: RunningEngine
) -> None:
    async def run() -> None:
        async with following(world, engine) as (watched, client):
            first, second = world.serve(1), world.try_out(2)
            await watched.look()
            assert (watched.table.production, watched.table.canary) == (first, second), watched.heard
            answers = [await ask(client, world.adapter(seed)) for seed in (1, 2)]
            assert answers[0] != answers[1]
            for seed in (1, 2):
                await client.unload(world.adapter(seed), timeout_seconds=10.0)
            await watched.follower.look_after_engine()
            await watched.follower.settled()
            assert [await ask(client, world.adapter(seed)) for seed in (1, 2)] == answers

    asyncio.run(run())


def test_an_adapter_that_the_engine_cannot_use_is_refused_and_production_answers(
    world: World, engine: RunningEngine
) -> None:
    """Bytes, evidence and release agree, but the file is no adapter of this model: its maker was wrong."""

    async def run() -> None:
        async with following(world, engine) as (watched, client):
            first, production = world.serve(1), world.adapter(1)
            world.adapters.clear()
            world.try_out(9)
            await watched.look()
            assert (watched.table.production, watched.table.canary) == (first, None)
            [refused] = world.events("admission_refused")
            assert "was not loaded" in refused["reason"]
            assert await ask(client, production)

    asyncio.run(run())


def test_a_release_of_another_base_model_is_refused(world: World, engine: RunningEngine) -> None:
    async def run() -> None:
        async with following(world, engine) as (watched, _):
            world.base = "another-model"
            world.serve(1)
            await watched.look()
            assert watched.deployments.of(world.product) is None
            [refused] = world.events("admission_refused")
            assert "which this engine does not serve" in refused["reason"]

    asyncio.run(run())


async def ask(client: EngineClient, adapter: str) -> str:
    deadline = Deadline.after(60.0, time.monotonic())
    return (await client.generate(adapter, CONVERSATIONS[0], ANSWER, deadline=deadline)).text
