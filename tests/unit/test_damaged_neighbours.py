"""A product whose chain does not verify keeps that to itself: commands and the mirror go on for all others."""

import json
import sqlite3
from pathlib import Path

import pytest

from ml_platform.cli.app import run
from ml_platform.contracts.home import Home
from ml_platform.errors import LedgerCorruptError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.registry.mlflow_registry import MlflowRegistry
from ml_platform.release.history import find_release
from tests.samples.releases import NOW, PRODUCT, make_controller, make_policy, make_release

NEIGHBOUR = "aaa"
"""Before the healthy product by name, so that it is read first."""
HEALTHY, DAMAGED = make_release(), make_release(product=NEIGHBOUR)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Two products with a release each; somebody inserted a row at the end of the neighbour's chain."""
    home = Home(tmp_path)
    controller = make_controller(tmp_path, SigningKey.generate())
    for release in (DAMAGED, HEALTHY):
        controller.register_release(release, make_policy(), NOW, "a test")
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute(
            "INSERT INTO events (product, sequence, epoch, kind, payload, previous_sha256, event_sha256, recorded_at, "
            "actor) VALUES (?, 3, 0, 'x', '{}', '0', '1', 'x', 'x')",
            (NEIGHBOUR,),
        )
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return home


def test_a_release_is_found_beside_a_damaged_chain(home: Home) -> None:
    assert find_release(Ledger(home.ledger_url), HEALTHY.release_id[:12]).release == HEALTHY


def test_a_release_that_may_stand_in_the_damaged_chain_is_not_called_unknown(home: Home) -> None:
    with pytest.raises(LedgerCorruptError, match=f"no release that can be read begins so. event 3 of {NEIGHBOUR}"):
        find_release(Ledger(home.ledger_url), DAMAGED.release_id[:12])


def test_the_healthy_release_is_shown(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", HEALTHY.release_id[:12], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["release_id"] == HEALTHY.release_id


def test_status_shows_the_others_and_what_is_wrong_with_this_one(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", "--json"]) == 1
    damaged, healthy = json.loads(capsys.readouterr().out)["products"]
    assert damaged["damaged"].startswith(f"event 3 of {NEIGHBOUR}")
    assert (damaged["epoch"], damaged["slots"], damaged["newest"]) == (None, {}, None)
    assert (healthy["damaged"], healthy["newest"]["release_id"]) == (None, HEALTHY.release_id)
    assert run(["status"]) == 1
    assert f"{NEIGHBOUR}: event 3 of {NEIGHBOUR}" in capsys.readouterr().out
    assert run(["status", PRODUCT]) == 0


def test_the_aliases_of_the_others_are_mirrored_and_the_damage_is_told(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = MlflowRegistry(home.mlflow_url, home.mlflow_artifacts)
    (home.root / "candidate" / "adapter").mkdir(parents=True)
    registry.register(HEALTHY, home.root / "candidate", "registered", Ledger(home.ledger_url).state(PRODUCT))
    capsys.readouterr()
    assert run(["mirror", "--json"]) == 1
    said = capsys.readouterr()
    assert list(json.loads(said.out)) == [PRODUCT]
    assert f"event 3 of {NEIGHBOUR}" in said.err
