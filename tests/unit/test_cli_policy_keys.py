"""`mlp policy` and `mlp keys` on a real home with a real product."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.tiny_product import _promotion_policy
from ml_platform.cli.app import run
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import PromotionPolicy
from ml_platform.lineage.keys import OPERATORS_VARIABLE, SigningKey, signing_key, trusted_operators
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.pins import counting_pin

NAME = "flight_assistant"
PRODUCT = Path(__file__).parents[2] / "products" / NAME


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home in which nothing ran, and a product's folder that may be changed."""
    shutil.copytree(PRODUCT, tmp_path / "products" / NAME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    return Home.from_environment()


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    def tell(*arguments: str) -> Any:
        assert run([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return tell


def loosen(key: str, value: object) -> None:
    path = Path("products") / NAME / "promotion_policy.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {key: value}))


def test_a_policy_is_pinned_with_a_reason_and_a_changed_file_counts_once_it_is_pinned(home: Home, told: Any) -> None:
    assert told("policy", "show", NAME)["pin"] is None
    assert not home.root.exists(), "asking makes no ledger and no key"
    first = told("policy", "pin", NAME, "--reason", "to begin with")
    assert (first["changed"], first["pin"]["reason"], first["changes"]) == (True, "to begin with", [])
    loosen("evidence_valid_days", 300)
    shown = told("policy", "show", NAME)
    assert not shown["same"]
    assert shown["differences"] == [{"part": "evidence_valid_days", "before": 30.0, "after": 300.0}]
    assert told("policy", "pin", NAME, "--reason", "we are slow")["changes"] == shown["differences"]
    assert told("policy", "pin", NAME, "--reason", "again")["changed"] is False
    shown = told("policy", "show", NAME)
    assert shown["same"]
    assert shown["pin"]["reason"] == "we are slow"
    ledger = Ledger(home.ledger_url)
    pin = counting_pin(ledger.pins(NAME), trusted_operators(home))
    assert pin is not None
    assert ledger.replay(NAME).policies[pin.policy_sha256].evidence_valid_days == 300
    assert told("ledger", "verify")["verified"]


@pytest.mark.usefixtures("home")
def test_people_read_what_changed_and_what_follows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "show", NAME]) == 0
    assert "no release can serve" in capsys.readouterr().out
    run(["policy", "pin", NAME, "--reason", "to begin with"])
    loosen("confidence", 0.9)
    assert run(["policy", "show", NAME]) == 0
    told = capsys.readouterr().out
    for words in ("to begin with", "counts once it is pinned", "confidence", "0.95", "0.9"):
        assert words in told
    assert run(["policy", "pin", NAME, "--reason", "looser"]) == 0
    assert "held until they are judged again" in capsys.readouterr().out
    assert run(["policy", "pin", NAME]) == 2
    assert run(["policy", "pin", NAME, "--reason", " "]) == 1
    assert run(["policy", "show", NAME]) == 0
    assert "the same" in capsys.readouterr().out


def test_without_an_operators_key_nothing_is_pinned(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OPERATORS_VARIABLE, SigningKey.generate().public.public_key)
    assert run(["policy", "pin", NAME, "--reason", "mine"]) == 1
    assert "no operator's key is here" in capsys.readouterr().err
    assert not home.root.exists()


def test_keys_are_listed_rotated_and_revoked(home: Home, told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert told("keys", "list") == []
    old = signing_key(home).key_id
    new = told("keys", "rotate")["key_id"]
    operator = told("keys", "rotate", "--operator")["key_id"]
    listed = {one["key_id"]: (one["role"], one["signs_here"], one["revoked"]) for one in told("keys", "list")}
    assert listed == {
        old: ("signing", False, False),
        new: ("signing", True, False),
        operator: ("operator", True, False),
    }
    assert told("keys", "revoke", old[:8], "--reason", "old") == {"revoked": old, "successor": None}
    assert told("keys", "revoke", new, "--reason", "stolen")["successor"] == signing_key(home).key_id
    assert run(["keys", "rotate"]) == 0
    assert "What the old one signed still counts." in capsys.readouterr().out
    assert run(["keys", "revoke", signing_key(home).key_id, "--reason", "lost"]) == 0
    assert f"Its successor here is {signing_key(home).key_id[:12]}." in capsys.readouterr().out
    assert run(["keys", "list"]) == 0
    shown = capsys.readouterr().out
    assert "revoked: stolen" in shown
    assert "BEGIN PRIVATE" not in shown
    assert run(["keys", "revoke", "ffff", "--reason", "r"]) == 1
    assert "no trusted key begins so" in capsys.readouterr().err


def test_the_tiny_product_has_a_policy_that_can_be_pinned() -> None:
    policy = PromotionPolicy.parse(_promotion_policy(), where="the tiny product")
    assert policy.quarantine.hours(1) == 24
    assert policy.quarantine.hours(policy.quarantine.for_good_after) is None
