"""Admission: what a gateway believes of a ledger: signatures that it can verify with public keys, and nothing else."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.home import Home
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.standing import Trust
from tests.samples.followed import Watched, World
from tests.samples.releases import OPERATOR, inputs_of, make_results, trusting


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Home(tmp_path / "home"), f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def watch(world: World, steps: Callable[[Watched], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(steps(Watched(world)))


def test_a_revoked_key_takes_the_canary_out_at_the_next_look_and_leaves_production(world: World) -> None:
    async def steps(watched: Watched) -> None:
        first = world.serve(1)
        world.try_out(2)
        before = await watched.look()
        assert before
        assert before.table.canary
        revoked = {one: key.model_copy(update={"revoked": True}) for one, key in world.trust.evidence.items()}
        world.trust = Trust(revoked, world.trust.operators)
        await watched.look()
        assert (watched.table.production, watched.table.canary) == (first, None)
        assert {one.place for one in watched.heard} == {"production", "canary"}
        anew = Watched(world)
        assert await anew.look() is None
        assert {one.place for one in anew.heard} == {"production", "canary"}

    watch(world, steps)


def test_a_pin_by_an_operator_who_is_not_trusted_here_counts_for_nothing(world: World) -> None:
    async def steps(watched: Watched) -> None:
        world.serve(1)
        world.trust = Trust(world.trust.evidence, trusting(SigningKey.generate()))
        assert await watched.look() is None
        assert "No promotion policy" in watched.heard[0].reason
        world.trust = Trust(world.trust.evidence, trusting(OPERATOR))
        assert await watched.look()

    watch(world, steps)


def test_after_a_key_was_revoked_production_stands_again_when_it_is_proven_anew(world: World) -> None:
    """The way out of a stolen key: pin again, evaluate what serves again, and every gateway admits it again."""

    async def steps(watched: Watched) -> None:
        first = world.serve(1)
        world.key, operator = SigningKey.generate(), SigningKey.generate()
        world.trust = Trust(trusting(world.key), trusting(operator))
        assert await watched.look() is None
        controller, release = world.controller, world.release(1)
        controller.pin_policy(world.product, world.policy, operator, "a key was stolen", world.now, "operator")
        await watched.look_later()
        assert watched.deployments.of(world.product) is None
        world.now += timedelta(days=1)
        results = make_results(world.policy)
        controller.record_verdicts(release, results, inputs_of(release), world.key, world.now, "ci")
        await watched.look_later()
        assert watched.deployments.of(world.product) is None, "the old evidence of the stolen key is still damaged"
        revoked = {one: key.model_copy(update={"revoked": True}) for one, key in stolen.items()}
        world.trust = Trust({**revoked, **world.trust.evidence}, world.trust.operators)
        await watched.look_later()
        assert watched.serves(first)

    stolen = world.trust.evidence
    watch(world, steps)


def test_production_whose_evidence_expired_since_is_served_by_a_gateway_that_starts_later(world: World) -> None:
    async def steps(watched: Watched) -> None:
        first, second = world.serve(1), world.serve(2)
        world.now += timedelta(days=400)
        await watched.look()
        assert (watched.table.production, watched.table.last_good) == (second, first)
        assert not watched.heard

    watch(world, steps)


def test_admission_needs_no_private_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.serve(1)

    def refuse(*_: object) -> None:
        raise AssertionError("a gateway has no private key")

    monkeypatch.setattr("ml_platform.lineage.keys.SigningKey.generate", refuse)
    monkeypatch.setattr("ml_platform.lineage.statements._sign", refuse)
    monkeypatch.delattr("ml_platform.lineage.keys.signing_key")

    async def steps(watched: Watched) -> None:
        await watched.look()
        assert watched.table.production == first

    watch(world, steps)
    assert not list(world.home.root.rglob("*.pem"))


@pytest.mark.parametrize("column", ["payload", "recorded_at", "event_sha256", "epoch", "kind"])
def test_a_row_that_was_changed_in_sql_stops_following_and_no_answer(world: World, tmp_path: Path, column: str) -> None:
    async def steps(watched: Watched) -> None:
        first = world.serve(1)
        await watched.look()
        second = world.try_out(2)
        with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            query = f"UPDATE events SET {column} = ? WHERE kind = 'canary_opened' AND epoch = 3"  # noqa: S608 - a test
            old = connection.execute("SELECT payload FROM events WHERE epoch = 3").fetchone()[0]
            new = {"payload": old.replace("0.05", "1.0"), "epoch": 4, "kind": "canary_advanced"}
            connection.execute(query, (new.get(column, "2013-01-01T00:00:00Z"),))
        connection.close()
        await watched.look()
        assert (watched.table.production, watched.table.canary) == (first, None)
        assert watched.follower.problem
        anew = Watched(world)
        assert await anew.look() is None
        assert anew.follower.problem
        assert second not in anew.engine.held

    watch(world, steps)
