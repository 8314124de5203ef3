"""Following: what the ledger names serves as soon as it is loaded, and what cannot be admitted changes nothing."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from ml_platform.contracts.home import Home
from ml_platform.lineage.ledger import Ledger, Reading
from ml_platform.serving.loading import UNLOAD_AFTER_SECONDS
from tests.samples.followed import Watched, World, until, watching
from tests.samples.memory_engine import MemoryEngine
from tests.samples.postgres import make_database


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path, postgres: str | None) -> World:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}" if request.param == "sqlite" else make_database(postgres)
    return World(Home(tmp_path / "home"), url)


@pytest.fixture
def local(tmp_path: Path) -> World:
    return World(Home(tmp_path / "home"), f"sqlite:///{tmp_path / 'ledger.sqlite'}")


HOUR = timedelta(hours=1)


def test_production_canary_and_the_last_good_release_serve_as_the_ledger_says(world: World) -> None:
    async def steps(watched: Watched) -> None:
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

    watching(world, steps)


def test_another_rollout_of_the_same_release_draws_other_users(local: World) -> None:
    async def steps(watched: Watched) -> None:
        local.serve(1)
        second = local.try_out(2)
        await watched.look()
        rollout = watched.table.rollout
        local.controller.abort_canary(local.product, second, "no", local.now, "ops")
        await watched.look()
        assert watched.table.canary is None
        local.now += local.policy.quarantine.hours(1) * HOUR
        local.open(second)
        await watched.look()
        assert watched.table.canary == second
        assert watched.table.rollout != rollout

    watching(local, steps)


def test_a_rollback_to_the_last_good_release_swaps_while_the_engine_hangs(world: World) -> None:
    async def steps(watched: Watched) -> None:
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

    watching(world, steps)


def test_an_abort_takes_the_canary_out_although_the_new_production_does_not_load(local: World) -> None:
    """The gateway is behind: it missed a promotion to what its engine refuses, and then an abort."""

    async def steps(watched: Watched) -> None:
        first = local.serve(1)
        await watched.look()
        second = local.prove(local.release(2))
        watched.engine.refuses.add(local.adapter(2))
        local.open(second)
        local.promote(second)
        third = local.try_out(3)
        await watched.look()
        assert (watched.table.production, watched.table.canary, watched.table.epoch) == (first, None, 2)
        local.controller.abort_canary(local.product, third, "no", local.now, "ops")
        await watched.look()
        assert (watched.table.production, watched.table.canary) == (first, None)
        [refused] = [one for one in local.events("admission_refused") if one["slot"] == "production"][-1:]
        assert refused["release_id"] == second
        assert "does not fit the base model" in refused["reason"]

    watching(local, steps)


def test_a_canary_that_nobody_can_load_leaves_its_users_with_production(local: World) -> None:
    async def steps(watched: Watched) -> None:
        first = local.serve(1)
        await watched.look()
        watched.engine.refuses.add(local.adapter(2))
        second = local.try_out(2)
        await watched.look()
        assert (watched.table.production, watched.table.canary, watched.table.exposure) == (first, None, 0.0)
        assert watched.table.epoch == 3
        assert [(one.release_id, one.place) for one in watched.heard] == [(second, "canary")]
        await watched.look_later()
        await watched.look_later()
        assert len(local.events("admission_refused")) == len(watched.heard) == 1
        watched.engine.refuses.clear()
        await watched.look_later()
        assert watched.table.canary == second

    watching(local, steps)


def test_what_is_loaded_is_not_loaded_again_when_it_moves(local: World) -> None:
    async def steps(watched: Watched) -> None:
        first, second = local.serve(1), local.try_out(2)
        await watched.look()
        local.promote(second)
        await watched.look()
        local.controller.roll_back(local.product, "no", local.now, "ops")
        await watched.look()
        assert watched.table.production == first
        assert len(watched.engine.loads) == 2

    watching(local, steps)


def test_a_product_that_cannot_be_admitted_does_not_touch_another(local: World) -> None:
    async def steps(watched: Watched) -> None:
        other = World(local.home, local.url, key=local.key, now=local.now, product="other")
        watched.engine.refuses.add(local.adapter(1))
        local.serve(1)
        second = other.serve(2)
        await watched.look()
        assert watched.deployments.products() == ("other",)
        serving = watched.deployments.of("other")
        assert serving is not None
        assert serving.table.production == second

    watching(local, steps)


def test_several_workers_of_one_gateway_record_a_refusal_once(local: World) -> None:
    async def run() -> None:
        engine = MemoryEngine()
        engine.refuses.add(local.adapter(2))
        workers = [Watched(local, engine) for _ in range(3)]
        first, _ = local.serve(1), local.try_out(2)
        await asyncio.gather(*(worker.look() for worker in workers))
        assert {worker.table.production for worker in workers} == {first}
        assert len(local.events("admission_refused")) == 1
        assert len(engine.held) == 1

    asyncio.run(run())


def test_what_nothing_names_any_more_leaves_the_engine_after_a_while(local: World) -> None:
    async def steps(watched: Watched) -> None:
        local.serve(1)
        second = local.try_out(2)
        await watched.look()
        local.controller.abort_canary(local.product, second, "no", local.now, "ops")
        await watched.look()
        await watched.follower.look_after_engine()
        assert local.adapter(2) in watched.engine.held
        watched.seconds += UNLOAD_AFTER_SECONDS + 1
        await watched.follower.look_after_engine()
        assert set(watched.engine.held) == {local.adapter(1)}

    watching(local, steps)


def test_followers_swap_by_themselves_until_they_are_cancelled(world: World) -> None:
    async def run() -> None:
        watched = Watched(world)
        task = asyncio.create_task(watched.follower.follow())
        first = world.serve(1)
        async with asyncio.timeout(20):
            while watched.deployments.of(world.product) is None:
                await asyncio.sleep(0.01)
        assert watched.table.production == first
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_a_product_that_is_slow_to_read_delays_no_rollback_of_another(local: World) -> None:
    class Slow(Ledger):
        @contextmanager
        def read(self, product: str) -> Iterator[Reading]:
            if product == "other":
                assert going.wait(60.0)
            with super().read(product) as view:
                yield view

    async def run() -> None:
        other = World(local.home, local.url, key=local.key, now=local.now, product="other")
        first, second, third = local.serve(1), local.serve(2), other.serve(3)
        watched = Watched(local, ledger=Slow(local.url))
        await watched.follower.look()
        await until(lambda: watched.serves(second) and watched.table.last_good == first)
        local.controller.roll_back(local.product, "no", local.now, "ops")
        await watched.follower.look()
        assert watched.serves(first)
        assert watched.deployments.products() == (local.product,)
        going.set()
        await watched.look()
        found = watched.deployments.of("other")
        assert found
        assert found.table.production == third

    going = threading.Event()
    asyncio.run(run())
