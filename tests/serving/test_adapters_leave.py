"""What the engine was given leaves it again: whatever went wrong on the way, and however many workers let go of it."""

import asyncio
from pathlib import Path

import pytest

from ml_platform.contracts.home import Home
from ml_platform.serving.loaded import ReleaseLoader
from ml_platform.serving.loading import UNLOAD_AFTER_SECONDS
from tests.samples.followed import Watched, World, all_but, until, watching
from tests.samples.memory_engine import MemoryEngine


@pytest.fixture
def local(tmp_path: Path) -> World:
    return World(Home(tmp_path / "home"), f"sqlite:///{tmp_path / 'ledger.sqlite'}")


class SlowToLetGo(MemoryEngine):
    """Lets go of adapters only once it may; `asked` is how often it was to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may_leave = 0, asyncio.Event()

    async def unload(self, name: str, **given: float) -> None:
        """Forgets one, when it may."""
        self.asked += 1
        await self.may_leave.wait()
        await super().unload(name, **given)


def abort(world: World, release_id: str) -> None:
    world.controller.abort_canary(world.product, release_id, "no", world.now, "ops")


async def let_go(watched: Watched) -> None:
    """What the aborts before it lead to, a while later."""
    await watched.look()
    watched.seconds += UNLOAD_AFTER_SECONDS + 1
    await watched.follower.look_after_engine()


def test_an_adapter_that_says_nothing_when_it_is_warmed_up_leaves(local: World) -> None:
    async def steps(watched: Watched) -> None:
        local.serve(1)
        watched.engine.silent.add(local.adapter(2))
        second = local.try_out(2)
        await watched.look()
        assert set(watched.engine.held) == {local.adapter(1), local.adapter(2)}
        abort(local, second)
        await let_go(watched)
        assert set(watched.engine.held) == {local.adapter(1)}

    watching(local, steps)


def test_the_adapter_of_a_release_whose_own_code_fails_leaves(local: World) -> None:
    async def run() -> None:
        loader = ReleaseLoader(local.home)
        watched = Watched(local, load=all_but(local.adapter(2), loader))
        local.serve(1)
        second = local.try_out(2)
        await watched.look()
        abort(local, second)
        await let_go(watched)
        assert set(watched.engine.held) == {local.adapter(1)}
        await loader.close()

    asyncio.run(run())


def test_an_adapter_whose_release_goes_while_it_is_loaded_leaves_although_it_arrives_later(local: World) -> None:
    async def steps(watched: Watched) -> None:
        local.serve(1)
        await watched.look()
        second, name = local.try_out(2), local.adapter(2)
        watched.engine.gate.clear()
        await watched.follower.look()
        await until(lambda: name in watched.engine.loads)
        abort(local, second)
        await watched.look()
        watched.engine.held[name] = Path("of a call that nobody waited for any more")
        await let_go(watched)
        assert set(watched.engine.held) == {local.adapter(1)}

    watching(local, steps)


def test_an_adapter_that_was_not_unloaded_in_time_is_unloaded_later_and_keeps_no_other(local: World) -> None:
    async def steps(watched: Watched) -> None:
        local.serve(1)
        for seed in (2, 3):
            candidate = local.try_out(seed)
            await watched.look()
            abort(local, candidate)
        watched.engine.keeps.add(local.adapter(2))
        await let_go(watched)
        assert set(watched.engine.held) == {local.adapter(1), local.adapter(2)}
        assert watched.follower.problem is None
        watched.engine.keeps.clear()
        await let_go(watched)
        assert set(watched.engine.held) == {local.adapter(1)}

    watching(local, steps)


def test_workers_that_let_go_of_the_same_adapters_have_no_problem_with_the_engine(local: World) -> None:
    async def run() -> None:
        engine = SlowToLetGo()
        workers = [Watched(local, engine) for _ in range(2)]
        local.serve(1)
        for seed in (2, 3):
            candidate = local.try_out(seed)
            for worker in workers:
                await worker.look()
            abort(local, candidate)
        leaving = [asyncio.create_task(let_go(worker)) for worker in workers]
        await until(lambda: engine.asked == len(workers))
        engine.may_leave.set()
        await asyncio.gather(*leaving)
        assert set(engine.held) == {local.adapter(1)}
        assert [worker.follower.problem for worker in workers] == [None, None]
        for worker in workers:
            await worker.loader.close()

    asyncio.run(run())


def test_a_release_that_is_wanted_again_while_its_adapter_leaves_gets_it_back_and_it_leaves_later(local: World) -> None:
    async def run() -> None:
        engine = SlowToLetGo()
        watched = Watched(local, engine)
        local.serve(1)
        second = local.shadow(2)
        await watched.look()
        local.controller.close_shadow(local.product, second, "seen enough", local.now, "ops")
        leaving = asyncio.create_task(let_go(watched))
        await until(lambda: engine.asked > 0)
        local.controller.open_shadow(local.product, second, "to compare again", local.now, "ops")
        await watched.look()
        engine.may_leave.set()
        await leaving
        await watched.follower.look_after_engine()
        await watched.follower.settled()
        assert set(engine.held) == {local.adapter(1), local.adapter(2)}
        local.controller.close_shadow(local.product, second, "seen enough", local.now, "ops")
        await let_go(watched)
        assert set(engine.held) == {local.adapter(1)}
        await watched.loader.close()

    asyncio.run(run())
