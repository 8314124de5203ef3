"""Refusals are seen by people: in `mlp status` as long as they stand, in `mlp ledger log` for ever."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ml_platform.cli.app import app
from ml_platform.contracts.events import AdmissionRefused
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import RefusedError
from ml_platform.lineage.ledger import Ledger
from tests.samples.followed import Watched, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    home = Home(tmp_path / "home")
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home.root))
    monkeypatch.setenv("COLUMNS", "240")
    return World(home, home.ledger_url)


def mlp(*words: str) -> str:
    done = CliRunner().invoke(app, [*words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_status_and_log_show_what_a_gateway_refuses_until_the_slot_moves(world: World) -> None:
    async def run() -> None:
        watched = Watched(world)
        watched.engine.refuses.add(world.adapter(2))
        world.serve(1)
        world.try_out(2)
        await watched.look()

    asyncio.run(run())
    second = world.release(2).release_id
    sentence = f"gateway gateway-1 refused release {second[:12]} in canary"
    assert sentence in mlp("status", world.product)
    assert sentence in mlp("ledger", "log", world.product)
    [found] = json.loads(mlp("status", world.product, "--json"))["products"]
    assert [(one["release_id"], one["slot"]) for one in found["refused"]] == [(second, "canary")]
    assert "does not fit the base model" in found["refused"][0]["reason"]

    world.controller.abort_canary(world.product, second, "nobody can load it", world.now, "ops")
    assert sentence not in mlp("status", world.product)
    assert sentence in mlp("ledger", "log", world.product)


def test_a_refusal_is_recorded_once_an_epoch_and_only_of_what_is_in_the_slot(world: World) -> None:
    first = world.serve(1)
    second = world.prove(world.release(2))
    said = AdmissionRefused(release_id=first, slot=SlotName.PRODUCTION, reason="no", gateway="a")
    with Ledger(world.url).write(world.product, world.now, "a") as transaction:
        transaction.append(said)
        for wrong in (said, said.model_copy(update={"slot": None}), said.model_copy(update={"release_id": second})):
            with pytest.raises(RefusedError, match="not recorded"):
                transaction.append(wrong)
        transaction.append(said.model_copy(update={"gateway": "b"}))
    assert Ledger(world.url).state(world.product).epoch == 2
    world.open(second)
    with Ledger(world.url).write(world.product, world.now, "a") as transaction:
        assert not transaction.replay.refusals
        transaction.append(said)
    Ledger(world.url).verify(world.trust.evidence, world.trust.operators)
