"""`mlp mirror`: an alias moved by hand goes back, and the ledger keeps who noticed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ml_platform.cli.app import run
from ml_platform.contracts.home import Home
from ml_platform.lineage.keys import SigningKey
from ml_platform.registry.mlflow_registry import MlflowRegistry
from tests.samples.releases import (
    NOW,
    PRODUCT,
    inputs_of,
    make_controller,
    make_policy,
    make_release,
    make_results,
    pin,
)

PATIENCE_S = 60.0
CANARY = make_release()
OTHER = make_release(date(2013, 3, 24))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """One release is the canary, an older one is only registered; MLflow knows both and its aliases are right."""
    home, policy, key = Home(tmp_path), make_policy(), SigningKey.generate()
    controller = make_controller(home.root, key)
    pin(controller)
    registry = MlflowRegistry(home.mlflow_url, home.mlflow_artifacts)
    (tmp_path / "candidate" / "adapter").mkdir(parents=True)
    for release in (OTHER, CANARY):
        controller.register_release(release, policy, NOW, "a test")
        controller.record_verdicts(release, make_results(policy), inputs_of(release), key, NOW, "a test")
        registry.register(release, tmp_path / "candidate", "eligible", controller.state(PRODUCT))
    controller.open_canary(PRODUCT, CANARY.release_id, NOW, "a test")
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home.root))
    assert run(["mirror", "--json"]) == 0
    return home


@pytest.fixture
def client(home: Home) -> MlflowClient:
    return MlflowClient(home.mlflow_url, registry_uri=home.mlflow_url)


def canary_of(client: MlflowClient) -> str:
    return str(client.get_registered_model(PRODUCT).aliases["canary"])


def until(true: Callable[[], bool]) -> None:
    """Waits for what must come; fails when it does not."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_alias_moved_by_hand_goes_back_and_the_ledger_tells(
    home: Home, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert canary_of(client) == "2"
    client.set_registered_model_alias(PRODUCT, "canary", "1")
    capsys.readouterr()
    assert run(["mirror", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[PRODUCT]["changes"] == ["canary is version 2 (was 1)"]
    assert canary_of(client) == "2"
    assert run(["status"]) == 0
    assert "ALERT: the alias canary was moved to version 1 in MLflow by hand" in capsys.readouterr().out
    assert run(["mirror", PRODUCT]) == 0
    assert capsys.readouterr().out == f"{PRODUCT}: every alias is what its slot holds\n"


def test_as_a_process_it_puts_back_what_is_moved_while_it_runs_and_ends_when_told(
    home: Home, client: MlflowClient
) -> None:
    command = [sys.executable, "-c", "from ml_platform.cli import main; main()", "mirror", "--every", "0.2"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Looking every 0.2 s")
        for _ in range(2):
            client.set_registered_model_alias(PRODUCT, "canary", "1")
            until(lambda: canary_of(client) == "2")
        client.delete_registered_model_alias(PRODUCT, "canary")
        until(lambda: client.get_registered_model(PRODUCT).aliases.get("canary") is not None)
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert told.count("canary is version 2 (was 1)") == 2
    assert "canary is version 2 (was unset)" in told


def test_before_the_first_run_there_is_nothing_to_mirror_and_nothing_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "none"))
    assert run(["mirror", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {}
    assert not (tmp_path / "none").exists()


def test_a_product_that_nobody_knows_has_no_aliases_to_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "none"))
    assert run(["mirror", "nonsense"]) == 1
    assert run(["mirror", "nonsense", "--every", "10"]) == 1
    assert capsys.readouterr().err.count("there is no product 'nonsense'") == 2


def test_one_document_is_not_asked_of_what_has_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mirror", "--every", "10", "--json"]) == 1
    said = capsys.readouterr()
    assert "Leave out one of them" in said.err
    assert not said.out
