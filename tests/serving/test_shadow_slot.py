"""The shadow slot at a gateway: what the ledger opens there gets copies of questions, and holds up nothing."""

import asyncio
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.cli.app import run as command
from ml_platform.contracts.home import Home
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.contracts.routing import Cohort
from ml_platform.contracts.slot_moves import ShadowOpened
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.provenance.recorder import Recorder
from ml_platform.lineage.provenance.shipping import Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.wal import WriteAheadLog
from ml_platform.lineage.standing import Trust
from ml_platform.serving.answering import Answerer
from ml_platform.serving.engine_client import Generated
from ml_platform.serving.loading import UNLOAD_AFTER_SECONDS
from ml_platform.serving.question import ReplyStatus
from ml_platform.serving.shadow import shadow_id
from tests.samples.followed import SERVING, Watched, World, watching
from tests.samples.memory_engine import MemoryEngine
from tests.samples.serving import question

COPIED = SERVING.model_copy(update={"spec": SERVING.spec.model_copy(update={"shadow_share": 1.0})})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Home(tmp_path / "home"), f"sqlite:///{tmp_path / 'ledger.sqlite'}", serving=COPIED)


def test_a_shadow_is_admitted_and_gets_the_share_that_production_names(world: World) -> None:
    async def steps(watched: Watched) -> None:
        first = world.serve(1)
        await watched.look()
        second = world.shadow(2)
        await watched.look()
        table = watched.table
        assert (table.production, table.canary, table.shadow) == (first, None, second)
        assert (table.epoch, table.shadow_share, table.exposure) == (3, 1.0, 0.0)
        assert not watched.heard
        world.open(second)
        await watched.look()
        assert (watched.table.canary, watched.table.shadow) == (second, None)

    watching(world, steps)


def test_a_shadow_that_was_closed_is_gone_and_leaves_the_engine(world: World) -> None:
    async def steps(watched: Watched) -> None:
        world.serve(1)
        second = world.shadow(2)
        await watched.look()
        world.controller.close_shadow(world.product, second, "seen enough", world.now, "ops")
        await watched.look()
        assert watched.table.shadow is None
        watched.seconds += UNLOAD_AFTER_SECONDS + 1
        await watched.follower.look_after_engine()
        assert set(watched.engine.held) == {world.adapter(1)}

    watching(world, steps)


def test_a_shadow_that_nobody_can_load_is_absent_until_it_can(world: World) -> None:
    async def steps(watched: Watched) -> None:
        first = world.serve(1)
        watched.engine.refuses.add(world.adapter(2))
        second, third = world.shadow(2), world.try_out(3)
        await watched.look()
        table = watched.table
        assert (table.production, table.canary, table.shadow, table.epoch) == (first, third, None, 4)
        assert [(one.release_id, one.place) for one in watched.heard] == [(second, "shadow")]
        assert [one["slot"] for one in world.events("admission_refused")] == ["shadow"]
        watched.engine.refuses.clear()
        await watched.look_later()
        assert watched.table.shadow == second

    watching(world, steps)


def test_a_shadow_is_loaded_after_everything_that_users_see(world: World) -> None:
    """A gateway that starts brings up production and canary first, however long they take."""

    async def steps(watched: Watched) -> None:
        first, second, third = world.serve(1), world.shadow(2), world.try_out(3)
        watched.engine.gate.clear()
        await watched.follower.look()
        async with asyncio.timeout(60):
            while len(watched.engine.loads) < 2:
                await asyncio.sleep(0.01)
        assert sorted(watched.engine.loads) == sorted([world.adapter(1), world.adapter(3)])
        watched.engine.gate.set()
        await watched.follower.settled()
        assert watched.engine.loads[2:] == [world.adapter(2)]
        assert (watched.table.production, watched.table.canary, watched.table.shadow) == (first, third, second)

    watching(world, steps)


def test_a_shadow_that_hangs_in_the_engine_delays_no_promotion_and_no_rollback(world: World) -> None:
    async def steps(watched: Watched) -> None:
        first, second = world.serve(1), world.try_out(3)
        await watched.look()
        watched.engine.gate.clear()
        world.shadow(2)
        await watched.follower.look()
        world.promote(second)
        await watched.follower.look()
        assert (watched.table.production, watched.table.shadow, watched.table.epoch) == (second, None, 5)
        world.controller.roll_back(world.product, "no", world.now, "ops")
        await watched.follower.look()
        assert (watched.table.production, watched.table.shadow, watched.table.epoch) == (first, None, 6)
        watched.engine.gate.set()

    watching(world, steps)


def test_a_shadow_that_was_written_past_the_controller_is_refused(world: World) -> None:
    """Eligible by the ledger's word alone: no evidence counted when its slot was opened."""
    from ml_platform.contracts.events import ReleaseEligible

    async def steps(watched: Watched) -> None:
        first, release = world.serve(1), world.release(2)
        world.controller.register_release(release, world.policy, world.now, "ci")
        until = world.now + timedelta(days=30)
        said = ReleaseEligible(release_id=release.release_id, policy_sha256=world.policy.sha256, expires_at=until)
        with Ledger(world.url).write(world.product, world.now, "forger") as transaction:
            transaction.append(said)
            transaction.append(ShadowOpened(release_id=release.release_id, reason="r"))
        await watched.look()
        assert (watched.table.production, watched.table.shadow, watched.table.epoch) == (first, None, 3)
        assert [one.place for one in watched.heard] == ["shadow"]
        assert "There is no evidence" in watched.heard[0].reason
        assert world.adapter(2) not in watched.engine.loads

    watching(world, steps)


def test_a_revoked_key_takes_the_shadow_out_at_the_next_look(world: World) -> None:
    async def steps(watched: Watched) -> None:
        first, second = world.serve(1), world.shadow(2)
        await watched.look()
        assert watched.table.shadow == second
        revoked = {one: key.model_copy(update={"revoked": True}) for one, key in world.trust.evidence.items()}
        world.trust = Trust(revoked, world.trust.operators)
        await watched.look()
        assert (watched.table.production, watched.table.shadow) == (first, None)

    watching(world, steps)


class HangingEngine(MemoryEngine):
    """Answers, but for one adapter that never does until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs, self.go_on = "", asyncio.Event()
        self.asked = list[str]()

    async def generate(self, model: str, *given: object, **named: object) -> Generated:
        """The number of the adapter in the order of loading, or nothing for long."""
        self.asked.append(model)
        if model == self.hangs:
            await self.go_on.wait()
        return await super().generate(model, *given, **named)


def test_a_question_to_production_leaves_a_record_of_the_shadow_and_never_waits_for_it(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the ledger's event to the stored copy and to who looks at it, with a real log and a real store."""

    async def run() -> tuple[ProvenanceRecord, ProvenanceRecord, str]:
        log = WriteAheadLog(world.home.provenance_log)
        watched = Watched(world, HangingEngine())
        engine: Any = watched.engine
        answerer = Answerer(watched.deployments, engine, Recorder(log), user_salt=b"salt", code_commit=None)
        try:
            first, second = world.serve(1), world.shadow(2)
            await watched.look()
            engine.hangs = world.adapter(2)
            asked = question(metadata={}, product=world.product)
            started = time.monotonic()
            reply = await answerer.answer(asked)
            assert time.monotonic() - started < 5.0
            assert (reply.status, reply.record.release_id) == (ReplyStatus.ANSWERED, first)
            await asyncio.sleep(0)
            world.controller.close_shadow(world.product, second, "seen enough", world.now, "ops")
            await watched.look()
            engine.go_on.set()
            await answerer.drain()
            other = await answerer.answer(question(metadata={}, product=world.product))
            await answerer.drain()
            assert other.record.release_id == first
            assert engine.asked.count(world.adapter(2)) == 2, "once to warm up, once for the copy"
        finally:
            log.close()
            await watched.loader.close()
        return reply.record, await asyncio.to_thread(stored_copy, reply.record), second

    def stored_copy(record: ProvenanceRecord) -> ProvenanceRecord:
        store = ProvenanceStore(world.home.provenance_url)
        Shipper(world.home.provenance_log, store).ship()
        moment = record.answered_at
        [copy] = store.scan(
            world.product, moment - timedelta(hours=1), moment + timedelta(hours=1), cohort=Cohort.SHADOW
        )
        assert store.find(shadow_id(record.response_id)) == copy
        store.close()
        return copy

    original, copy, shadow = asyncio.run(run())
    assert (copy.release_id, copy.shadow_of) == (shadow, original.response_id)
    assert (copy.cohort, copy.epoch, copy.errors, copy.answer) == (Cohort.SHADOW, 3, (), original.answer)
    assert copy.adapter == world.adapter(2)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(world.home.root))
    assert command(["trace", original.response_id]) == 0
    page = capsys.readouterr().out
    assert copy.response_id in page
    assert shadow in page
    for name, its in ((original.response_id, copy.response_id), (copy.response_id, None)):
        assert command(["trace", name, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["shadow"]
        assert its == (found and found["response_id"])
