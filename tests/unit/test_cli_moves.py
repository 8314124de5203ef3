"""`mlp promote|pause|resume|abort|rollback|shadow`: operators move slots through the controller's own door."""

import json
from pathlib import Path
from typing import Any

import pytest

from ml_platform.cli.app import run
from ml_platform.contracts.events import Event, EventKind
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.lineage.keys import operator_key
from ml_platform.lineage.ledger import Ledger
from tests.samples.proven import Proven, make_proven, prove
from tests.samples.releases import PRODUCT


@pytest.fixture
def proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proven:
    found = make_proven(tmp_path)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(found.home.root))
    return found


def open_canary(proven: Proven, release: Release) -> None:
    proven.controller.open_canary(PRODUCT, release.release_id, proven.now, "a test")


def slots(home: Home) -> dict[SlotName, str]:
    return Ledger(home.ledger_url).state(PRODUCT).slots


def last(home: Home) -> Event:
    return Ledger(home.ledger_url).events(PRODUCT)[-1]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_canary_is_promoted_with_a_reason_that_the_ledger_keeps(
    proven: Proven, capsys: pytest.CaptureFixture[str]
) -> None:
    open_canary(proven, proven.release)
    assert told(capsys, "promote", PRODUCT, "--reason", "the first one")["slot"] == "production"
    assert slots(proven.home) == {SlotName.PRODUCTION: proven.release.release_id}
    assert last(proven.home).payload["reason"] == "the first one"
    assert run(["ledger", "log", PRODUCT]) == 0
    assert "went into production: the first one" in capsys.readouterr().out


def test_a_release_whose_evidence_does_not_count_is_not_promoted_by_hand_either(
    proven: Proven, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_canary(proven, proven.release)
    monkeypatch.setenv("ML_PLATFORM_TRUSTED_KEYS", "0" * 64)
    assert run(["promote", PRODUCT, "--reason", "I know better"]) == 1
    assert "stays where it is, held: " in capsys.readouterr().err
    assert slots(proven.home) == {SlotName.CANARY: proven.release.release_id}


def test_a_canary_is_paused_resumed_and_taken_away(proven: Proven, capsys: pytest.CaptureFixture[str]) -> None:
    open_canary(proven, proven.release)
    for command, kind in (("pause", EventKind.CANARY_PAUSED), ("resume", EventKind.CANARY_RESUMED)):
        assert run([command, PRODUCT, "--reason", "looking at it"]) == 0
        assert last(proven.home).kind is kind
    assert run(["abort", PRODUCT, "--reason", "it is rude"]) == 0
    assert "canary aborted" in capsys.readouterr().out
    assert slots(proven.home) == {}


def test_production_goes_back_to_what_served_before(proven: Proven, capsys: pytest.CaptureFixture[str]) -> None:
    open_canary(proven, proven.release)
    assert run(["promote", PRODUCT, "--reason", "the first one"]) == 0
    newer = proven.release.model_copy(update={"model": proven.release.model.model_copy(update={"seed": 2})})
    assert operator_key(proven.home) is not None
    prove(proven, newer, "e" * 64, reference=proven.release.release_id)
    open_canary(proven, newer)
    assert run(["promote", PRODUCT, "--reason", "better"]) == 0
    capsys.readouterr()
    assert run(["rollback", PRODUCT, "--reason", "worse", "--to", newer.release_id[:12]]) == 1
    assert "stays where it is" in capsys.readouterr().err
    back = told(capsys, "rollback", PRODUCT, "--reason", "worse")
    assert (back["release_id"], back["slot"]) == (proven.release.release_id, "production")


def test_who_rolls_back_after_somebody_else_takes_no_healthy_release_away(
    proven: Proven, capsys: pytest.CaptureFixture[str]
) -> None:
    first, healthy, harmful = (
        proven.release.model_copy(update={"model": proven.release.model.model_copy(update={"seed": seed})})
        for seed in (proven.release.model.seed, 2, 3)
    )
    serves = first
    for release in (first, healthy, harmful):
        if release != first:
            prove(proven, release, "e" * 64, reference=serves.release_id)
        open_canary(proven, release)
        assert run(["promote", PRODUCT, "--reason", "better"]) == 0
        serves = release
    capsys.readouterr()
    assert told(capsys, "rollback", PRODUCT, "--reason", "paged")["release_id"] == healthy.release_id
    before = last(proven.home)
    for named in ((), ("--from", harmful.release_id[:12])):
        assert run(["rollback", PRODUCT, *named, "--reason", "paged, too"]) == 1
        said = capsys.readouterr().err
        assert f"release {healthy.release_id[:12]} serves since" in said
        assert f"was rolled back to {healthy.release_id[:12]}: paged" in said
        assert f"--from {healthy.release_id[:12]}" in said
    assert last(proven.home) == before
    back = told(capsys, "rollback", PRODUCT, "--from", healthy.release_id[:12], "--reason", "it harms as well")
    assert back["release_id"] == first.release_id


@pytest.mark.parametrize("command", ["promote", "pause", "resume", "abort", "rollback"])
def test_without_a_release_in_the_slot_there_is_nothing_to_move(
    command: str, proven: Proven, capsys: pytest.CaptureFixture[str]
) -> None:
    before = last(proven.home)
    assert run([command, PRODUCT, "--reason", "why not"]) == 1
    assert f"no release of {PRODUCT} is in the slot" in capsys.readouterr().err
    assert last(proven.home) == before


def test_a_shadow_is_opened_shown_and_taken_away(proven: Proven, capsys: pytest.CaptureFixture[str]) -> None:
    open_canary(proven, proven.release)
    newer = proven.release.model_copy(update={"code": proven.release.code.model_copy(update={"version": "0.2.0"})})
    assert run(["shadow", PRODUCT, proven.release.release_id[:12], "--reason", "to compare"]) == 1
    assert f"no release of {PRODUCT} is in the slot production" in capsys.readouterr().err
    assert run(["promote", PRODUCT, "--reason", "the first one"]) == 0
    prove(proven, newer, "e" * 64, proven.release.release_id)
    assert run(["shadow", PRODUCT, proven.release.release_id[:12], "--reason", "to compare"]) == 1
    assert "held: it is in the slot production" in capsys.readouterr().err
    opened = told(capsys, "shadow", PRODUCT, newer.release_id[:12], "--reason", "to compare")
    assert (opened["slot"], opened["sentence"], opened["exposure"]) == ("shadow", "became the shadow", 0.0)
    assert last(proven.home).payload == {"release_id": newer.release_id, "reason": "to compare"}
    assert slots(proven.home)[SlotName.SHADOW] == newer.release_id
    assert told(capsys, "status")["products"][0]["slots"]["shadow"] == newer.release_id
    assert told(capsys, "show", newer.release_id)["outcome"].startswith("shadow, answers copies of questions")
    assert run(["status"]) == 0
    assert f"release {newer.release_id[:12]} is the shadow; nobody sees what it answers." in capsys.readouterr().out
    assert run(["shadow", PRODUCT, "--off", "--reason", "seen enough"]) == 0
    assert "is the shadow no more" in capsys.readouterr().out
    assert slots(proven.home) == {SlotName.PRODUCTION: proven.release.release_id}
    assert run(["shadow", PRODUCT, "--off", "--reason", "again"]) == 1
    assert f"no release of {PRODUCT} is in the slot shadow" in capsys.readouterr().err
    for arguments in ((), (newer.release_id[:12], "--off")):
        assert run(["shadow", PRODUCT, *arguments, "--reason", "what"]) == 1
        assert "either a release, which becomes the shadow, or --off" in capsys.readouterr().err


def test_a_move_needs_a_reason(proven: Proven, capsys: pytest.CaptureFixture[str]) -> None:
    open_canary(proven, proven.release)
    assert run(["abort", PRODUCT]) == 2
    assert run(["abort", PRODUCT, "--reason", "  "]) == 1
    assert "--reason is empty" in capsys.readouterr().err
    assert slots(proven.home) == {SlotName.CANARY: proven.release.release_id}
