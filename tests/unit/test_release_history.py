"""What the ledger tells of releases."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.evidence import Verdict
from ml_platform.errors import InvalidInputError
from ml_platform.lineage.keys import SigningKey
from ml_platform.release.controller import Controller
from ml_platform.release.history import find_release, release_history, verify_release
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

KEY = SigningKey.generate()
POLICY = make_policy()
FIRST, SECOND = make_release(), make_release(date(2013, 4, 7))


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    made = make_controller(tmp_path, KEY)
    pin(made, POLICY)
    made.register_release(FIRST, POLICY, NOW, "daily run")
    made.record_verdicts(FIRST, make_results(POLICY), inputs_of(FIRST), KEY, NOW, "daily run")
    made.open_canary(PRODUCT, FIRST.release_id, NOW, "daily run")
    made.register_release(SECOND, POLICY, NOW + timedelta(days=7), "somebody")
    results = [result for result in make_results(POLICY, late_recall=Verdict.FAIL) if result.gate != "no_leakage"]
    made.record_verdicts(SECOND, results, inputs_of(SECOND), KEY, NOW + timedelta(days=7), "somebody")
    return made


def test_history_lists_the_newest_registration_first_with_its_gates(controller: Controller) -> None:
    newest, oldest = release_history(controller.ledger, PRODUCT, {FIRST.release_id: "4"})
    assert (newest.release, newest.state, newest.actor) == (SECOND, ReleaseState.HELD, "somebody")
    assert newest.verdicts["late_recall"] is Verdict.FAIL
    assert newest.verdicts["no_leakage"] is None
    assert tuple(newest.verdicts) == POLICY.gate_names
    assert dict(newest.held_by) == {
        "no_leakage": "There is no evidence.",
        "late_recall": "FAIL: late_recall was looked at.",
    }
    assert (oldest.state, oldest.as_of, oldest.recorded_at) == (ReleaseState.CANARY, date(2013, 3, 31), NOW)
    assert (oldest.mlflow_version, newest.mlflow_version) == ("4", None)


def test_a_product_without_releases_has_no_history(controller: Controller) -> None:
    assert release_history(controller.ledger, "other") == []


def test_a_release_is_found_by_the_beginning_of_its_id(controller: Controller) -> None:
    assert find_release(controller.ledger, FIRST.release_id).release == FIRST
    assert find_release(controller.ledger, f" {SECOND.release_id[:12].upper()} ").release == SECOND


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("", "expected the first 4 or more"),
        ("abc", "expected the first 4 or more"),
        ("nothex", "expected the first 4 or more"),
        ("0" * 12, "no registered release begins so. 2 are."),
        ("f" * 65, "no registered release begins so"),
    ],
)
def test_a_release_that_cannot_be_found_says_what_to_do(controller: Controller, prefix: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        find_release(controller.ledger, prefix)


def test_an_ambiguous_beginning_names_all_that_it_could_be(tmp_path: Path) -> None:
    controller = make_controller(tmp_path, KEY)
    policy = make_policy()
    begins: dict[str, str] = {}
    for seed in range(2000):
        release = make_release(seed=seed)
        prefix = release.release_id[:4]
        if prefix in begins:
            controller.register_release(make_release(seed=int(begins[prefix])), policy, NOW, "tester")
            controller.register_release(release, policy, NOW, "tester")
            break
        begins[prefix] = str(seed)
    with pytest.raises(InvalidInputError, match=r"2 releases begin so: .* Give more digits"):
        find_release(controller.ledger, prefix)


def test_verification_checks_every_signature_again(controller: Controller) -> None:
    record = find_release(controller.ledger, FIRST.release_id)
    assert verify_release(controller.ledger, record, controller.trusted, NOW).eligible
    assert not verify_release(controller.ledger, record, {}, NOW).eligible
    assert not verify_release(controller.ledger, record, controller.trusted, NOW + timedelta(days=30)).eligible
