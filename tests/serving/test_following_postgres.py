"""A ledger on PostgreSQL: its bell wakes followers, its permissions are enough when they are to read only."""

import asyncio
import time
import uuid
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from ml_platform.contracts.home import Home
from ml_platform.lineage.ledger import Ledger
from tests.samples.followed import Watched, World, until
from tests.samples.postgres import make_database


def test_the_bell_of_postgresql_wakes_a_follower_that_would_not_look_for_long(
    tmp_path: Path, postgres: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_platform.serving.following.LISTENING_POLL_SECONDS", 3600.0)
    world = World(Home(tmp_path / "home"), make_database(postgres))

    async def run() -> None:
        watched = Watched(world, monotonic=time.monotonic)
        world.serve(1)
        task = asyncio.create_task(watched.follower.follow())
        async with asyncio.timeout(30):
            while watched.deployments.of(world.product) is None or not watched.follower.listening:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            second = await asyncio.to_thread(world.serve, 2)
            while watched.table.production != second:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


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


def test_a_bell_that_breaks_is_listened_to_again_and_looking_goes_on(tmp_path: Path, postgres: str | None) -> None:
    world = World(Home(tmp_path / "home"), make_database(postgres))

    async def run() -> None:
        watched = Watched(world, monotonic=time.monotonic)
        task = asyncio.create_task(watched.follower.follow())
        first = await asyncio.to_thread(world.serve, 1)
        await until(lambda: watched.serves(first) and watched.follower.listening)
        await asyncio.to_thread(end_connections, world.url, "query LIKE 'LISTEN%'")
        await until(lambda: not watched.follower.listening)
        assert "the connection that listened broke" in (watched.follower.problem or "")
        second = await asyncio.to_thread(world.serve, 2)
        await until(lambda: watched.serves(second) and watched.follower.listening)
        assert watched.follower.problem is None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def end_connections(url: str, which: str) -> None:
    """Ends connections to this database, as a restart of the server or a firewall does."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND "
    with engine.connect() as connection:
        ended = connection.execute(text(query + which)).all()
    engine.dispose()
    assert ended


def test_kept_connections_that_were_ended_are_made_anew(tmp_path: Path, postgres: str | None) -> None:
    world = World(Home(tmp_path / "home"), make_database(postgres))
    ledger = Ledger(world.url, keep_connections=True)

    async def run() -> None:
        watched = Watched(world, ledger=ledger)
        world.serve(1)
        await watched.look()
        end_connections(world.url, "pid <> pg_backend_pid()")
        second = world.serve(2)
        await watched.look()
        assert watched.serves(second)
        assert watched.follower.problem is None

    asyncio.run(run())
    ledger.close()
