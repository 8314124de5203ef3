"""The commands that tell of releases, on a real ledger with a canary and a held release."""

import json
import sqlite3
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from ml_platform.cli.app import run
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.lineage.keys import operator_key, signing_key, trusted_keys, trusted_operators
from ml_platform.lineage.ledger import Ledger
from ml_platform.release.controller import Controller
from tests.samples.releases import PRODUCER, PRODUCT, inputs_of, make_policy, make_release, make_results

POLICY = make_policy()
CANARY, HELD = make_release(), make_release(date(2013, 4, 7))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose ledger has one release in the canary slot and one that a gate holds."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    home = Home.from_environment()
    home.root.mkdir()
    key, now = signing_key(home), datetime.now(UTC)
    operator = operator_key(home)
    assert operator is not None
    controller = Controller(Ledger(home.ledger_url), trusted_keys(home), PRODUCER, trusted_operators(home))
    controller.pin_policy(PRODUCT, POLICY, operator, "a test", now, "a test")
    for release, results in (
        (CANARY, make_results(POLICY)),
        (HELD, make_results(POLICY, late_recall=Verdict.FAIL)),
    ):
        controller.register_release(release, POLICY, now, "a test")
        controller.record_verdicts(release, results, inputs_of(release), key, now, "a test")
        controller.open_canary(PRODUCT, release.release_id, now, "a test")
    return home


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command prints as JSON; it must print nothing else."""

    def tell(*arguments: str, code: int = 0) -> Any:
        assert run([*arguments, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return tell


def test_an_aborted_release_says_until_when_it_is_quarantined(home: Home, told: Any) -> None:
    controller = Controller(Ledger(home.ledger_url), {}, PRODUCER)
    controller.abort_canary(PRODUCT, CANARY.release_id, "errors", datetime.now(UTC), "a test")
    said = told("show", CANARY.release_id[:12])["outcome"]
    assert said.startswith("aborted. It was aborted or rolled back once and is quarantined until ")


def test_status_shows_what_serves(home: Home, told: Any) -> None:
    (found,) = told("status")["products"]
    assert found["product"] == PRODUCT
    assert found["slots"] == {"canary": CANARY.release_id}
    assert found["exposure"] == POLICY.canary.steps[0]
    assert found["releases"] == 2
    assert found["newest"]["state"] == "held"
    assert set(found["newest"]["held_by"]) == {"late_recall"}


def test_releases_lists_the_newest_first_with_what_holds_it(home: Home, told: Any) -> None:
    newest, oldest = told("releases", PRODUCT)
    assert (newest["release_id"], newest["state"]) == (HELD.release_id, "held")
    assert newest["verdicts"]["late_recall"] == "FAIL"
    assert (oldest["release_id"], oldest["state"], oldest["held_by"]) == (CANARY.release_id, "canary", {})


def test_show_tells_the_whole_tuple_its_gates_and_where_it_serves(home: Home, told: Any) -> None:
    found = told("show", CANARY.release_id[:8])
    assert found["release"] == CANARY.model_dump(mode="json")
    assert [gate["gate"] for gate in found["gates"]] == list(POLICY.gate_names)
    assert {gate["verdict"] for gate in found["gates"]} == {"PASS"}
    assert (found["slot"], found["eligible"], found["outcome"]) == ("canary", True, "canary, open to 5 % of the users")
    assert found["paths"]["candidate"].endswith(CANARY.model.candidate_sha256)


def test_show_tells_of_a_held_release_what_holds_it(home: Home, told: Any) -> None:
    found = told("show", HELD.release_id)
    assert (found["slot"], found["eligible"], found["outcome"]) == (None, False, "held: late_recall")
    (failed,) = (gate for gate in found["gates"] if gate["verdict"] != "PASS")
    assert (failed["gate"], failed["verdict"]) == ("late_recall", "FAIL")
    assert failed["reason"] == "late_recall was looked at."


def test_diff_names_every_part_that_differs_and_no_other(home: Home, told: Any) -> None:
    found = told("diff", CANARY.release_id, HELD.release_id)
    parts = {one["part"]: (one["one"], one["other"]) for one in found["differences"]}
    assert parts["data.as_of"] == ("2013-03-31", "2013-04-07")
    assert "product" not in parts


def test_a_release_does_not_differ_from_itself(home: Home, told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert told("diff", CANARY.release_id, CANARY.release_id)["differences"] == []
    assert run(["diff", CANARY.release_id, CANARY.release_id]) == 0
    assert "They are the same release." in capsys.readouterr().out


def test_verify_fails_and_names_the_artifacts_that_are_not_there(home: Home, told: Any) -> None:
    found = told("verify", CANARY.release_id, code=1)
    states = {one["what"]: one["state"] for one in found["findings"]}
    assert found["verified"] is False
    assert states["ledger"] == states["evidence"] == states["gate late_recall"] == "ok"
    assert states["snapshot"] == states["candidate"] == states["base model"] == "broken"


def test_a_gate_that_honestly_failed_breaks_no_verification(home: Home, told: Any) -> None:
    states = {one["what"]: one["state"] for one in told("verify", HELD.release_id, code=1)["findings"]}
    assert states["gate late_recall"] == states["evidence"] == "note"


def test_an_unknown_or_short_release_is_refused_on_stderr(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    for release, words in (("0000", "no registered release begins so"), ("ab", "expected the first 4")):
        assert run(["show", release]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("mlp: ")
        assert words in output.err
        assert "Traceback" not in output.err


def test_debug_shows_the_traceback_behind_any_command(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "0000", "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_unknown_product_is_refused_wherever_one_may_be_named(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["status"], ["releases"], ["ledger", "log"]):
        assert run([*command, "nobody"]) == 1
        assert f"there is no product 'nobody'; known products: {PRODUCT}" in capsys.readouterr().err


def test_the_ledger_is_listed_and_verified(home: Home, told: Any) -> None:
    events = told("ledger", "log")
    assert events[0]["kind"] == "policy_recorded"
    assert [event["sequence"] for event in events] == sorted(event["sequence"] for event in events)
    assert told("ledger", "log", PRODUCT, "--last", "1") == events[-1:]
    (chain,) = told("ledger", "verify")["chains"]
    assert chain["events"] == len(events)


def test_a_ledger_that_was_changed_is_refused_with_the_event(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(home.root / "ledger.sqlite") as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("UPDATE events SET actor = 'somebody else' WHERE sequence = 2")
    assert run(["ledger", "verify"]) == 1
    assert f"event 2 of {PRODUCT}" in capsys.readouterr().err


def test_people_read_the_same_in_tables(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    short = CANARY.release_id[:12]
    expected = {
        ("status",): [PRODUCT, f"{short} at 5 %", "late_recall"],
        ("releases", PRODUCT): [short, HELD.release_id[:12], "canary", "held"],
        ("show", short): [CANARY.release_id, "late_recall", "PASS", "data.snapshot_sha256"],
        ("diff", short, HELD.release_id): ["data.as_of", "2013-04-07"],
        ("ledger", "log"): [f"release {short} became the canary at 5%"],
        ("ledger", "verify"): ["Every event and every signature verifies"],
    }
    for arguments, words in expected.items():
        assert run(list(arguments)) == 0
        output = capsys.readouterr().out
        assert [word for word in words if word not in output] == []


def test_before_the_first_run_there_is_nothing_to_show_and_nothing_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    assert run(["status"]) == 0
    assert "No product here" in capsys.readouterr().out
    for arguments in (["show", "abcd"], ["ledger", "log"], ["ledger", "verify"], ["releases", "x"]):
        assert run(arguments) == 1
        assert "nothing was run here yet. Start with `mlp run" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
