"""The controller on PostgreSQL: ledger, records and looks each in a database; two of them, one works."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform.contracts.monitoring import Action
from ml_platform.lineage.looks import LookStore
from tests.samples.postgres import make_database
from tests.samples.rollouts import Rollout, go_on, make_rollout

STORES = ("ML_PLATFORM_LEDGER_URL", "ML_PLATFORM_PROVENANCE_URL", "ML_PLATFORM_MONITORING_URL")


@pytest.fixture
def world(postgres: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rollout]:
    for name in STORES:
        monkeypatch.setenv(name, make_database(postgres))
    made = make_rollout(tmp_path / "home")
    yield made
    made.records.close()
    made.looks.close()


def test_a_good_canary_goes_into_production_and_a_bad_one_away(world: Rollout) -> None:
    loop = world.loop()
    assert [one.action for one in go_on(world, loop)] == [Action.STEP_UP, Action.PROMOTE]
    world.try_out(3)
    assert [one.action for one in go_on(world, loop, canary_errors=0.5)] == [Action.ABORT]
    assert not list(world.home.root.glob("*.sqlite"))
    world.controller.ledger.verify(world.trust.evidence, world.trust.operators)
    latest = world.looks.latest(world.product)
    assert latest
    assert latest.decision.action is Action.ABORT
    assert len(world.looks.history(world.product)) > 3
    loop.close()


def test_one_of_two_controllers_leads_and_the_other_takes_over(world: Rollout) -> None:
    first, second = LookStore(world.home.monitoring_url), LookStore(world.home.monitoring_url)
    assert first.take_lease("controller", "a", 30.0)
    assert not second.take_lease("controller", "b", 30.0)
    assert second.lease_holder("controller") == "a"
    first.drop_lease("controller", "a")
    assert second.take_lease("controller", "b", 30.0)
    for store in (first, second):
        store.close()
