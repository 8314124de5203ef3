"""Following: what the ledger names serves as soon as it is loaded, and what cannot be admitted changes nothing."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform.contracts.home import Home
from tests.samples.followed import Watched, World
from tests.samples.postgres import make_database, running_postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[str | None]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path, postgres: str | None) -> World:
    home = Home(tmp_path / "home")
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}" if request.param == "sqlite" else make_database(postgres)
    return World(home, url)


def test_production_canary_and_the_last_good_release_serve_as_the_ledger_says(world: World) -> None:
    async def run() -> None:
        watched = Watched(world)
        assert await watched.look() is None
        first, second = world.serve(1), world.serve(2)
        third = world.try_out(3)
        await watched.look()
        table = watched.table
        assert (table.production, table.canary, table.last_good) == (second, third, first)
        assert (table.epoch, table.exposure) == (5, 0.05)
        assert table.rollout.startswith(third)
        assert watched.follower.problem is None
        assert len(watched.engine.held) == 3

    asyncio.run(run())


def test_a_rollback_to_the_last_good_release_swaps_while_the_engine_hangs(world: World) -> None:
    async def run() -> None:
        watched = Watched(world)
        first, second = world.serve(1), world.serve(2)
        await watched.look()
        watched.engine.gate.clear()
        third = world.try_out(3)
        await watched.follower.look()
        assert (watched.table.production, watched.table.canary, watched.table.epoch) == (second, None, 5)
        world.controller.roll_back(world.product, "it is wrong", world.now, "ops")
        await watched.follower.look()
        assert (watched.table.production, watched.table.epoch) == (first, 6)
        watched.engine.gate.set()
        await watched.look()
        assert watched.table.canary == third

    asyncio.run(run())
