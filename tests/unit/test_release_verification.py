"""Eligibility from envelopes alone, whatever order and company they come in."""

import itertools
from datetime import timedelta

import pytest

from ml_platform.contracts.evidence import Verdict
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.statements import sign_evidence
from ml_platform.lineage.verification import assess_evidence
from tests.samples.releases import NOW, make_evidence, make_policy, make_release, trusting

KEY = SigningKey.generate()
TRUSTED = trusting(KEY)
POLICY = make_policy()
RELEASE = make_release()
LATER = NOW + timedelta(hours=1)
PROOF = [sign_evidence(make_evidence(RELEASE, POLICY, gate), KEY) for gate in POLICY.gate_names]


def test_complete_evidence_is_eligible_until_the_first_of_it_expires() -> None:
    early = sign_evidence(make_evidence(RELEASE, POLICY, "late_recall", at=NOW - timedelta(days=3)), KEY)
    proof = [envelope for envelope in PROOF if envelope != PROOF[2]]
    found = assess_evidence([*proof, early], TRUSTED, POLICY, RELEASE, LATER)
    assert found.eligible
    assert found.expires_at == NOW + timedelta(days=27)


def test_no_evidence_at_all_is_held_by_every_gate() -> None:
    found = assess_evidence([], TRUSTED, POLICY, RELEASE, LATER)
    assert not found.eligible
    assert tuple(found.reasons) == POLICY.gate_names
    assert found.expires_at is None


def test_the_moment_of_expiry_no_longer_counts() -> None:
    last = NOW + timedelta(days=30)
    assert assess_evidence(PROOF, TRUSTED, POLICY, RELEASE, last - timedelta(microseconds=1)).eligible
    assert not assess_evidence(PROOF, TRUSTED, POLICY, RELEASE, last).eligible


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR])
@pytest.mark.parametrize("minutes", [0, 1])
def test_a_newer_or_equally_new_verdict_wins_over_pass_in_any_order(verdict: Verdict, minutes: int) -> None:
    worse = make_evidence(RELEASE, POLICY, "late_recall", verdict, NOW + timedelta(minutes=minutes))
    for envelopes in ([*PROOF, sign_evidence(worse, KEY)], [sign_evidence(worse, KEY), *PROOF]):
        found = assess_evidence(envelopes, TRUSTED, POLICY, RELEASE, LATER)
        assert found.sentence == "held: late_recall"


def test_replaying_an_old_pass_does_not_undo_a_newer_fail() -> None:
    old = sign_evidence(make_evidence(RELEASE, POLICY, "late_recall", at=NOW - timedelta(hours=1)), KEY)
    fail = sign_evidence(make_evidence(RELEASE, POLICY, "late_recall", Verdict.FAIL), KEY)
    rest = [envelope for envelope in PROOF if envelope != PROOF[2]]
    for envelopes in itertools.permutations([old, fail, old]):
        assert not assess_evidence([*rest, *envelopes], TRUSTED, POLICY, RELEASE, LATER).eligible


def test_an_expired_fail_does_not_bring_an_older_pass_back() -> None:
    fail = make_evidence(RELEASE, POLICY, "late_recall", Verdict.FAIL, NOW + timedelta(minutes=1))
    fail = fail.model_copy(update={"expires_at": NOW + timedelta(minutes=2)})
    assert not assess_evidence([*PROOF, sign_evidence(fail, KEY)], TRUSTED, POLICY, RELEASE, LATER).eligible


def test_damaging_a_fail_does_not_bring_an_older_pass_back() -> None:
    fail = sign_evidence(make_evidence(RELEASE, POLICY, "late_recall", Verdict.FAIL, LATER), KEY)
    for index in range(0, len(fail), 7):
        damaged = fail[:index] + bytes([fail[index] ^ 1]) + fail[index + 1 :]
        found = assess_evidence([*PROOF, damaged], TRUSTED, POLICY, RELEASE, LATER)
        assert not found.eligible
        assert "evidence" in found.reasons


def test_evidence_under_another_policy_does_not_count() -> None:
    looser = make_policy(version="0.9.0")
    proof = [sign_evidence(make_evidence(RELEASE, looser, gate), KEY) for gate in POLICY.gate_names]
    found = assess_evidence(proof, TRUSTED, POLICY, RELEASE, LATER)
    assert found.reasons["late_recall"] == f"There is no evidence. There is some under policy {looser.sha256[:12]}."


def test_a_policy_that_the_release_does_not_name_makes_nothing_eligible() -> None:
    looser = make_policy(version="0.9.0")
    proof = [sign_evidence(make_evidence(RELEASE, looser, gate), KEY) for gate in POLICY.gate_names]
    found = assess_evidence(proof, TRUSTED, looser, RELEASE, LATER)
    assert not found.eligible
    assert "names policy" in found.reasons["late_recall"]


def test_evidence_of_another_product_does_not_count() -> None:
    other = make_release(product="other")
    proof = [sign_evidence(make_evidence(other, POLICY, gate), KEY) for gate in POLICY.gate_names]
    assert "of product other" in assess_evidence(proof, TRUSTED, POLICY, RELEASE, LATER).reasons["late_recall"]


def test_evidence_for_gates_beyond_the_policy_changes_nothing() -> None:
    extra = sign_evidence(make_evidence(RELEASE, POLICY, "invented", Verdict.FAIL), KEY)
    assert assess_evidence([*PROOF, extra], TRUSTED, POLICY, RELEASE, LATER).eligible


def test_every_missing_envelope_holds_its_gate() -> None:
    for index, gate in enumerate(POLICY.gate_names):
        found = assess_evidence(PROOF[:index] + PROOF[index + 1 :], TRUSTED, POLICY, RELEASE, LATER)
        assert found.sentence == f"held: {gate}"
