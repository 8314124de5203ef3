"""`mlp freeze|unfreeze|sign-off` and `mlp controller --once`: what operators say to the controller, and it to them."""

import json
from pathlib import Path
from typing import Any

import pytest

from ml_platform.cli.app import run
from ml_platform.contracts.events import EventKind
from ml_platform.lineage.keys import operator_key
from ml_platform.lineage.ledger import Ledger
from tests.samples.proven import Proven, make_proven, prove
from tests.samples.releases import PRODUCT


@pytest.fixture
def proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proven:
    found = make_proven(tmp_path)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(found.home.root))
    return found


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_product_is_frozen_once_and_let_go_on(proven: Proven, capsys: pytest.CaptureFixture[str]) -> None:
    first = told(capsys, "freeze", PRODUCT, "--reason", "a holiday")
    assert first == {"product": PRODUCT, "changed": True, "frozen": "a holiday"}
    assert told(capsys, "freeze", PRODUCT, "--reason", "again")["changed"] is False
    held = proven.controller.open_canary(PRODUCT, proven.release.release_id, proven.now, "a test")
    assert held.sentence.startswith("held: the product is frozen since")
    assert "a holiday" in held.sentence
    assert run(["unfreeze", PRODUCT, "--reason", "back"]) == 0
    assert capsys.readouterr().out == f"{PRODUCT}: goes on.\n"
    assert run(["unfreeze", PRODUCT, "--reason", "back"]) == 0
    assert "was not frozen before" in capsys.readouterr().out
    assert run(["ledger", "log", PRODUCT]) == 0
    log = " ".join(capsys.readouterr().out.split())
    assert "the product was frozen: a holiday" in log
    assert "the product goes on: back" in log


def test_a_product_that_nobody_knows_is_not_frozen(proven: Proven, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["freeze", "nonsense", "--reason", "why not"]) == 1
    assert "there is no product 'nonsense'" in capsys.readouterr().err
    assert run(["freeze", PRODUCT, "--reason", " "]) == 1
    assert "--reason is empty" in capsys.readouterr().err


def test_an_operator_signs_the_promotion_of_the_canary(
    proven: Proven, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["sign-off", PRODUCT, "--reason", "fine"]) == 1
    assert "there is nothing to sign" in capsys.readouterr().err
    proven.controller.open_canary(PRODUCT, proven.release.release_id, proven.now, "a test")
    key = operator_key(proven.home)
    assert key
    said = told(capsys, "sign-off", PRODUCT, "--reason", "I looked at it")
    assert said == {"product": PRODUCT, "release_id": proven.release.release_id, "operator_key": key.key_id}
    assert Ledger(proven.home.ledger_url).events(PRODUCT)[-1].kind is EventKind.PROMOTION_SIGNED
    assert told(capsys, "sign-off", PRODUCT, said["release_id"][:12], "--reason", "I looked at this one") == said
    monkeypatch.setenv("ML_PLATFORM_TRUSTED_OPERATORS", "0" * 64)
    assert run(["sign-off", PRODUCT, "--reason", "fine"]) == 1
    assert "no operator's key is here, and others are named as operators" in capsys.readouterr().err
    monkeypatch.setenv("ML_PLATFORM_OPERATOR_KEY_FILE", str(proven.home.keys / "operator_key.pem"))
    assert run(["sign-off", PRODUCT, "--reason", "fine"]) == 1
    assert "which is not trusted" in capsys.readouterr().err


def test_another_canary_than_the_one_that_was_looked_at_is_not_signed(
    proven: Proven, capsys: pytest.CaptureFixture[str]
) -> None:
    proven.controller.open_canary(PRODUCT, proven.release.release_id, proven.now, "a test")
    seen = proven.release.model_copy(update={"model": proven.release.model.model_copy(update={"seed": 2})})
    prove(proven, seen, "e" * 64)
    before = Ledger(proven.home.ledger_url).events(PRODUCT)[-1]
    assert run(["sign-off", PRODUCT, seen.release_id[:12], "--reason", "fine"]) == 1
    assert f"the canary of {PRODUCT} is release {proven.release.release_id[:12]}, not" in capsys.readouterr().err
    assert Ledger(proven.home.ledger_url).events(PRODUCT)[-1] == before


def test_a_controller_looks_once_and_says_what_it_waits_for(proven: Proven, capsys: pytest.CaptureFixture[str]) -> None:
    proven.controller.open_canary(PRODUCT, proven.release.release_id, proven.now, "a test")
    assert run(["controller", "--once"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{PRODUCT}: hold: ")
    assert "  waits for " in out
    [look] = told(capsys, "controller", PRODUCT, "--once")
    assert look["canary"] == proven.release.release_id
    assert look["decision"]["action"] == "hold"


def test_a_look_where_nothing_serves_is_an_empty_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "new"))
    assert told(capsys, "controller", "--once") == []


@pytest.mark.parametrize("more", [["--once"], ["--once", "--json"], []], ids=" ".join)
def test_a_product_that_nobody_knows_is_not_watched_and_nothing_is_made_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    home = tmp_path / "none"
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home))
    assert run(["controller", "nonsense", *more]) == 1
    said = capsys.readouterr()
    assert "there is no product 'nonsense'" in said.err
    assert not said.out
    assert not home.exists()
