"""Following: what the ledger names serves as soon as it is loaded, and what cannot be admitted changes nothing."""

import asyncio
import shutil
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from ml_platform.contracts.home import Home
from ml_platform.lineage.ledger import Ledger
from tests.samples.followed import MemoryEngine, Watched, World
from tests.samples.postgres import make_database, running_postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[str | None]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path, postgres: str | None) -> World:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}" if request.param == "sqlite" else make_database(postgres)
    return World(Home(tmp_path / "home"), url)


@pytest.fixture
def local(tmp_path: Path) -> World:
    return World(Home(tmp_path / "home"), f"sqlite:///{tmp_path / 'ledger.sqlite'}")


HOUR = timedelta(hours=1)


def watching(world: World, steps: Callable[[Watched], Awaitable[None]]) -> None:
    """Takes these steps in an event loop, with a follower of this world."""

    async def run() -> None:
        watched = Watched(world)
        await steps(watched)
        await watched.follower.settled()
        await watched.loader.close()

    asyncio.run(run())


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


def test_an_engine_that_starts_again_gets_every_adapter_again(local: World) -> None:
    async def steps(watched: Watched) -> None:
        local.serve(1)
        local.try_out(2)
        await watched.look()
        held = dict(watched.engine.held)
        assert len(held) == 2
        watched.engine.restart()
        await watched.follower.look_after_engine()
        await watched.follower.settled()
        assert watched.engine.held == held

    watching(local, steps)


def test_an_engine_that_is_down_is_no_fault_of_the_release(local: World) -> None:
    async def steps(watched: Watched) -> None:
        watched.engine.down = True
        first = local.serve(1)
        await watched.look()
        assert watched.deployments.of(local.product) is None
        assert "the engine is not there" in (watched.follower.problem or "")
        assert not watched.heard
        assert not local.events("admission_refused")
        watched.engine.down = False
        await watched.look_later()
        assert watched.table.production == first
        assert watched.follower.problem is None

    watching(local, steps)


def test_a_ledger_that_is_gone_stops_no_answer_and_is_followed_again_when_it_is_back(
    local: World, tmp_path: Path
) -> None:
    async def steps(watched: Watched) -> None:
        first = local.serve(1)
        await watched.look()
        path, away = tmp_path / "ledger.sqlite", tmp_path / "away.sqlite"
        path.rename(away)
        path.mkdir()
        for _ in range(3):
            await watched.look_later(1.0)
        assert watched.table.production == first
        assert watched.follower.problem
        shutil.rmtree(path)
        away.rename(path)
        second = local.serve(2)
        await watched.look_later(6.0)
        assert watched.table.production == second
        assert watched.follower.problem is None

    watching(local, steps)


def test_a_ledger_that_was_rewritten_is_not_followed_and_what_served_goes_on(local: World, tmp_path: Path) -> None:
    async def steps(watched: Watched) -> None:
        first = local.serve(1)
        before = (tmp_path / "ledger.sqlite").read_bytes()
        await watched.look()
        local.serve(2)
        await watched.look()
        table = watched.table
        for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / "ledger.sqlite").write_bytes(before)
        await watched.look_later()
        assert watched.table == table
        assert table.production != first
        assert "restored from an old copy" in (watched.follower.problem or "")

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


def test_a_ledger_that_can_only_be_read_is_followed_and_refusals_are_in_the_log(
    tmp_path: Path, postgres: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(Home(tmp_path / "home"), make_database(postgres))
    first, _ = world.serve(1), world.try_out(2)
    engine = create_engine(world.url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        role = f"reader_{uuid.uuid4().hex}"
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"))
    engine.dispose()

    async def run() -> None:
        watched = Watched(world, ledger=Ledger(str(make_url(world.url).set(username=role))))
        watched.engine.refuses.add(world.adapter(2))
        for _ in range(3):
            await watched.look_later(1.0)
        assert watched.table.production == first
        assert len(watched.heard) == 1

    asyncio.run(run())
    assert [one for one in caplog.messages if "does not fit the base model" in one]
    assert [one for one in caplog.messages if "permission denied" in one]
    assert not world.events("admission_refused")


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
