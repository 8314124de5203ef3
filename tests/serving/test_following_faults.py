"""Faults: whatever is down, damaged or rewritten, what was admitted goes on serving until all is whole again."""

import asyncio
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.home import Home
from ml_platform.errors import ContractError, LedgerCorruptError
from ml_platform.lineage.standing import Trust
from ml_platform.serving.loaded import ReleaseLoader
from ml_platform.serving.routing import RoutingTable
from ml_platform.serving.wanted import decide_table
from tests.samples.followed import Watched, World, all_but, until, watching


@pytest.fixture
def local(tmp_path: Path) -> World:
    return World(Home(tmp_path / "home"), f"sqlite:///{tmp_path / 'ledger.sqlite'}")


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


def test_a_chain_that_does_not_verify_takes_canary_and_shadow_away_until_it_is_whole_again(
    local: World, tmp_path: Path
) -> None:
    """Whoever may insert a row could otherwise hold a harmful canary where nobody can take it away any more."""

    async def steps(watched: Watched) -> None:
        first, second, third = local.serve(1), local.try_out(2), local.shadow(3)
        await watched.look()
        whole = watched.table
        assert (whole.production, whole.canary, whole.shadow) == (first, second, third)
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database, database:
            database.execute(
                "INSERT INTO events (product, sequence, epoch, kind, payload, previous_sha256, event_sha256, "
                "recorded_at, actor) SELECT product, max(sequence) + 1, 0, 'x', '{}', '0', '1', 'x', 'x' FROM events"
            )
        with pytest.raises(LedgerCorruptError):
            local.controller.abort_canary(local.product, second, "harm", local.now, "ops")
        await watched.look()
        assert (watched.table.production, watched.table.canary, watched.table.shadow) == (first, None, None)
        assert watched.table.exposure == 0.0
        assert {one.release_id for one in watched.heard} == {second, third}
        assert "cannot be read" in (watched.follower.problem or "")
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database, database:
            database.execute("DROP TRIGGER events_no_delete")
            database.execute("DELETE FROM events WHERE kind = 'x'")
        await watched.look_later()
        await watched.look_later()
        assert watched.table == whole
        assert watched.follower.problem is None

    watching(local, steps)


def test_a_release_whose_bytes_are_damaged_is_refused_until_the_store_is_repaired(local: World) -> None:
    async def steps(watched: Watched) -> None:
        first, second = local.serve(1), local.try_out(2)
        weights = local.candidate(2).path / "adapter" / "adapter_model.safetensors"
        sound = weights.read_bytes()
        weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        await watched.look()
        assert (watched.table.production, watched.table.canary) == (first, None)
        [refused] = local.events("admission_refused")
        assert refused["release_id"] == second
        assert "changed or damaged" in refused["reason"]
        weights.write_bytes(sound)
        await watched.look()
        assert watched.table.canary is None
        await watched.look_later()
        assert watched.table.canary == second

    watching(local, steps)


def test_a_stage_that_was_damaged_is_made_anew_before_a_new_engine_reads_it(local: World) -> None:
    async def steps(watched: Watched) -> None:
        local.serve(1)
        serving = await watched.look()
        assert serving
        [one] = serving.releases.values()
        weights = one.admitted.adapter_path / "adapter_model.safetensors"
        sound = weights.read_bytes()
        weights.chmod(0o600)
        weights.write_bytes(b"pickled")
        watched.engine.restart()
        await watched.follower.look_after_engine()
        await watched.follower.settled()
        assert weights.read_bytes() == sound
        assert set(watched.engine.held) == {local.adapter(1)}

    watching(local, steps)


def test_a_store_that_is_down_is_no_fault_of_the_release(local: World) -> None:
    async def steps(watched: Watched) -> None:
        first = local.serve(1)
        await watched.look()
        second = local.try_out(2)
        away = local.home.work / "staging-away"
        (local.home.work / "staging").rename(away)
        (local.home.work / "staging").write_text("a disk that is not there")
        await watched.look()
        assert (watched.table.production, watched.table.canary) == (first, None)
        assert "could not be staged" in (watched.follower.problem or "")
        assert not watched.heard
        (local.home.work / "staging").unlink()
        await watched.look_later(6.0)
        assert watched.table.canary == second

    watching(local, steps)


def test_a_release_whose_own_code_fails_is_refused_and_stops_nobody(local: World) -> None:
    async def run() -> None:
        loader = ReleaseLoader(local.home)
        watched = Watched(local, load=all_but(local.adapter(2), loader))
        first, second = local.serve(1), local.try_out(2)
        await watched.look()
        assert (watched.table.production, watched.table.canary) == (first, None)
        assert [(one.release_id, one.reason) for one in watched.heard] == [(second, "ZeroDivisionError: in its hook")]

    asyncio.run(run())


def test_a_list_of_keys_that_cannot_be_read_changes_nothing(local: World) -> None:
    async def run() -> None:
        def trust() -> Trust:
            if broken:
                raise ContractError("half a list of keys.")
            return local.trust

        broken = False
        watched = Watched(local, trust=trust)
        first = local.serve(1)
        await watched.look()
        broken = True
        local.try_out(2)
        await watched.look_later()
        assert (watched.table.production, watched.table.canary) == (first, None)
        assert "half a list of keys" in (watched.follower.problem or "")

    asyncio.run(run())


def test_a_follower_that_is_cancelled_leaves_nothing_running(local: World) -> None:
    async def run() -> None:
        watched = Watched(local, monotonic=time.monotonic)
        watched.engine.gate.clear()
        task = asyncio.create_task(watched.follower.follow())
        local.serve(1)
        await until(lambda: bool(watched.engine.loads))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others
        assert not watched.engine.held

    asyncio.run(run())


def test_a_mistake_of_our_own_is_a_problem_with_its_traceback_in_the_log_until_a_round_succeeds(
    local: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        def trust() -> Trust:
            if next(mistakes, False):
                raise KeyError("a mistake")
            return local.trust

        mistakes = iter([True, True])
        watched = Watched(local, trust=trust)
        first = local.serve(1)
        for _ in range(2):
            await watched.look_later()
            assert watched.follower.problems == {"the ledger": "a mistake of our own (KeyError: 'a mistake')."}
        await watched.look_later()
        assert watched.serves(first)
        assert watched.follower.problems == {}

    asyncio.run(run())
    (told,) = [one for one in caplog.records if "a mistake of our own" in one.message]
    assert told.exc_info


def test_a_product_whose_reading_fails_as_nobody_thought_of_is_a_problem(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def steps(watched: Watched) -> None:
        first = local.serve(1)
        await watched.look()
        with monkeypatch.context() as broken:
            broken.setattr("ml_platform.serving.reading.assess_admission", lambda *_: len(5))  # type: ignore[arg-type]
            second = local.try_out(2)
            await watched.look_later()
            assert "TypeError" in watched.follower.problems[local.product]
            assert (watched.table.production, watched.table.canary) == (first, None)
        await watched.look_later()
        assert (watched.table.canary, watched.follower.problems) == (second, {})

    watching(local, steps)


def test_a_round_that_fails_behind_its_reading_ends_in_the_log_and_the_next_begins_anew(
    local: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        watched = Watched(local, monotonic=time.monotonic)
        first, decided = local.serve(1), iter([ZeroDivisionError(), ZeroDivisionError()])

        def decide(*given: Any) -> RoutingTable | None:
            if mistake := next(decided, None):
                raise mistake
            return decide_table(*given)

        monkeypatch.setattr("ml_platform.serving.following.decide_table", decide)
        task = asyncio.create_task(watched.follower.follow())
        await until(lambda: watched.serves(first))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert [one for one in caplog.messages if "a round of following failed" in one]
