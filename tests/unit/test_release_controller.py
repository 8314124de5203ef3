"""The one door: what the controller records, moves, and refuses to move."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.events import EventKind
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.errors import EpochConflictError, EvidenceError, LedgerCorruptError, NotEligibleError, RefusedError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.statements import sign_evidence
from ml_platform.lineage.verification import Eligibility
from ml_platform.release.controller import Controller, Held, Move
from tests.samples.releases import (
    NOW,
    PRODUCT,
    inputs_of,
    make_controller,
    make_evidence,
    make_policy,
    make_release,
    make_results,
    pin,
    trusting,
)

KEY = SigningKey.generate()
POLICY = make_policy()
RELEASE = make_release()
LATER = NOW + timedelta(hours=1)
EXPIRED = NOW + timedelta(days=31)
INPUTS = inputs_of(RELEASE)


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    made = make_controller(tmp_path, KEY)
    pin(made, POLICY)
    return made


def prove(controller: Controller, release: Release = RELEASE, **verdicts: Verdict) -> Eligibility:
    """Registers a release and records a verdict for each gate."""
    controller.register_release(release, POLICY, NOW, "tester")
    return controller.record_verdicts(release, make_results(POLICY, **verdicts), inputs_of(release), KEY, NOW, "tester")


def open_canary(controller: Controller, release: Release = RELEASE) -> Move | Held:
    return controller.open_canary(PRODUCT, release.release_id, LATER, "tester")


def promote(controller: Controller, release: Release) -> None:
    assert isinstance(controller.promote(PRODUCT, release.release_id, LATER, "tester"), Move)


def kinds(controller: Controller) -> list[EventKind]:
    return [event.kind for event in controller.ledger.events()]


def test_a_proven_release_becomes_the_canary_at_the_first_step(controller: Controller) -> None:
    assert prove(controller).sentence == "eligible"
    move = open_canary(controller)
    assert move == Move(PRODUCT, RELEASE.release_id, SlotName.CANARY, 0.05, 1, changed=True)
    assert move.sentence == "canary open at 5%"
    state = controller.state(PRODUCT)
    assert state.slots == {SlotName.CANARY: RELEASE.release_id}
    assert state.releases[RELEASE.release_id] is ReleaseState.CANARY


def test_doing_everything_again_records_nothing(controller: Controller) -> None:
    prove(controller)
    open_canary(controller)
    before = controller.ledger.events()
    assert not controller.register_release(RELEASE, POLICY, LATER, "tester")
    again = controller.record_verdicts(RELEASE, make_results(POLICY), INPUTS, KEY, LATER, "tester")
    move = open_canary(controller)
    assert again.sentence == "eligible"
    assert move.sentence == "canary was already open at 5%"
    assert controller.ledger.events() == before


def test_evidence_that_expired_is_recorded_anew(controller: Controller) -> None:
    prove(controller)
    before = len(controller.ledger.events())
    found = controller.record_verdicts(RELEASE, make_results(POLICY), INPUTS, KEY, EXPIRED, "tester")
    assert found.sentence == "eligible"
    assert len(controller.ledger.events()) == before + len(POLICY.gates) + 1


def test_evidence_from_other_inputs_is_recorded_anew(controller: Controller) -> None:
    prove(controller)
    before = len(controller.ledger.events())
    controller.record_verdicts(RELEASE, make_results(POLICY), INPUTS | {"eval_report": "f" * 64}, KEY, LATER, "tester")
    assert len(controller.ledger.events()) == before + len(POLICY.gates) + 1


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR])
@pytest.mark.parametrize("gate", POLICY.gate_names)
def test_any_gate_with_any_verdict_but_pass_holds(controller: Controller, gate: str, verdict: Verdict) -> None:
    found = prove(controller, **{gate: verdict})
    assert found.sentence == f"held: {gate}"
    before = controller.ledger.events()
    held = open_canary(controller)
    assert isinstance(held, Held)
    assert held.sentence == f"held: {gate}"
    assert held.reasons == {gate: f"{verdict}: {gate} was looked at."}
    assert controller.ledger.events() == before
    assert controller.state(PRODUCT).slots == {}
    assert controller.state(PRODUCT).releases == {RELEASE.release_id: ReleaseState.HELD}


@pytest.mark.parametrize("gate", POLICY.gate_names)
def test_a_gate_that_was_never_measured_holds(controller: Controller, gate: str) -> None:
    controller.register_release(RELEASE, POLICY, NOW, "tester")
    results = [result for result in make_results(POLICY) if result.gate != gate]
    assert controller.record_verdicts(RELEASE, results, INPUTS, KEY, NOW, "tester").sentence == f"held: {gate}"
    assert open_canary(controller).sentence == f"held: {gate}"


def test_a_release_that_was_only_registered_is_held_by_every_gate(controller: Controller) -> None:
    controller.register_release(RELEASE, POLICY, NOW, "tester")
    held = open_canary(controller)
    assert isinstance(held, Held)
    assert held.gates == POLICY.gate_names


def test_a_release_that_is_not_registered_is_refused(controller: Controller) -> None:
    with pytest.raises(NotEligibleError, match="is not in the ledger"):
        open_canary(controller)
    with pytest.raises(NotEligibleError, match="is not in the ledger"):
        controller.record_verdicts(RELEASE, make_results(POLICY), INPUTS, KEY, NOW, "tester")
    assert kinds(controller) == [EventKind.POLICY_RECORDED, EventKind.POLICY_PINNED]


def test_expired_evidence_opens_nothing(controller: Controller) -> None:
    prove(controller)
    held = controller.open_canary(PRODUCT, RELEASE.release_id, EXPIRED, "tester")
    assert isinstance(held, Held)
    assert held.gates == POLICY.gate_names
    assert "expired at 2013-05-01 06:00 UTC" in held.reasons["late_recall"]


def test_evidence_from_the_future_opens_nothing(controller: Controller) -> None:
    prove(controller)
    held = controller.open_canary(PRODUCT, RELEASE.release_id, NOW - timedelta(seconds=1), "tester")
    assert isinstance(held, Held)
    assert "still to come" in held.reasons["late_recall"]


def test_a_later_fail_takes_eligibility_back_and_a_later_pass_gives_it_again(controller: Controller) -> None:
    prove(controller)
    results = make_results(POLICY, late_recall=Verdict.FAIL)
    assert not controller.record_verdicts(RELEASE, results, INPUTS, KEY, LATER, "tester").eligible
    assert controller.state(PRODUCT).releases[RELEASE.release_id] is ReleaseState.HELD
    moment = LATER + timedelta(seconds=1)
    assert controller.record_verdicts(RELEASE, make_results(POLICY), INPUTS, KEY, moment, "tester").eligible
    assert kinds(controller)[-1] is EventKind.RELEASE_ELIGIBLE


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR])
def test_a_later_verdict_from_a_clock_that_is_behind_takes_eligibility_back_as_any_other(
    controller: Controller, verdict: Verdict
) -> None:
    prove(controller)
    assert isinstance(open_canary(controller), Move)
    behind, results = NOW - timedelta(minutes=8), make_results(POLICY, late_recall=verdict)
    assert not controller.record_verdicts(RELEASE, results, INPUTS, KEY, behind, "another machine").eligible
    held = controller.promote(PRODUCT, RELEASE.release_id, LATER, "tester")
    assert isinstance(held, Held)
    assert held.gates == ("late_recall",)
    before = controller.ledger.events()
    controller.record_verdicts(RELEASE, results, INPUTS, KEY, behind, "another machine")
    assert controller.ledger.events() == before, "the same word again is no news"
    passes = make_results(POLICY)
    assert not controller.record_verdicts(RELEASE, passes, INPUTS, KEY, behind, "another machine").eligible
    assert not controller.record_verdicts(RELEASE, passes, INPUTS, KEY, NOW, "tester").eligible
    moment = NOW + timedelta(seconds=1)
    assert controller.record_verdicts(RELEASE, passes, INPUTS, KEY, moment, "tester").eligible


def test_of_verdicts_of_the_same_moment_the_worst_stands(controller: Controller) -> None:
    prove(controller)
    assert not prove(controller, late_recall=Verdict.FAIL).eligible
    before = controller.ledger.events()
    assert not prove(controller).eligible
    assert controller.ledger.events() == before


def test_a_moved_epoch_refuses_the_move(controller: Controller) -> None:
    prove(controller)
    with pytest.raises(EpochConflictError):
        controller.open_canary(PRODUCT, RELEASE.release_id, LATER, "tester", expected_epoch=3)
    assert controller.state(PRODUCT).slots == {}
    assert isinstance(controller.open_canary(PRODUCT, RELEASE.release_id, LATER, "tester", expected_epoch=0), Move)


def test_a_newer_release_replaces_the_canary_in_one_transaction(controller: Controller) -> None:
    newer = make_release(date(2013, 4, 7))
    prove(controller)
    open_canary(controller)
    prove(controller, newer)
    assert open_canary(controller, newer).sentence == "canary open at 5%"
    assert kinds(controller)[-2:] == [EventKind.CANARY_REPLACED, EventKind.CANARY_OPENED]
    state = controller.state(PRODUCT)
    assert state.slots == {SlotName.CANARY: newer.release_id}
    assert state.releases[RELEASE.release_id] is ReleaseState.ELIGIBLE
    assert open_canary(controller).sentence == "held: older than the release in canary, which is of 2013-04-07"


def test_another_release_of_the_same_day_replaces_the_canary(controller: Controller) -> None:
    other = make_release(seed=2)
    prove(controller)
    open_canary(controller)
    prove(controller, other)
    assert isinstance(open_canary(controller, other), Move)


@pytest.mark.parametrize("slot", [SlotName.CANARY, SlotName.PRODUCTION])
def test_a_backfill_of_an_older_day_never_moves_a_slot(controller: Controller, slot: SlotName) -> None:
    older = make_release(date(2013, 3, 24))
    prove(controller)
    open_canary(controller)
    if slot is SlotName.PRODUCTION:
        promote(controller, RELEASE)
    prove(controller, older)
    before = controller.ledger.events()
    assert open_canary(controller, older).sentence == f"held: older than the release in {slot}, which is of 2013-03-31"
    assert controller.ledger.events() == before


def test_a_release_in_production_is_left_alone(controller: Controller) -> None:
    prove(controller)
    open_canary(controller)
    promote(controller, RELEASE)
    before = controller.ledger.events()
    assert open_canary(controller).sentence == "already in production"
    assert not controller.record_verdicts(
        RELEASE, make_results(POLICY, late_recall=Verdict.FAIL), INPUTS, KEY, LATER, "tester"
    ).eligible
    assert [event.kind for event in controller.ledger.events()[len(before) :]] == [EventKind.EVIDENCE_RECORDED]
    assert controller.state(PRODUCT).slots == {SlotName.PRODUCTION: RELEASE.release_id}


def test_a_policy_that_the_release_does_not_name_is_refused(controller: Controller) -> None:
    with pytest.raises(RefusedError, match="names promotion policy"):
        controller.register_release(RELEASE, make_policy(version="1.0.1"), NOW, "tester")


def test_verdicts_on_gates_that_the_policy_does_not_know_are_refused(controller: Controller) -> None:
    controller.register_release(RELEASE, POLICY, NOW, "tester")
    result = make_results(POLICY)[0].model_copy(update={"gate": "invented"})
    with pytest.raises(RefusedError, match="'invented' is not one of the policy's"):
        controller.record_verdicts(RELEASE, [result], INPUTS, KEY, NOW, "tester")


@pytest.mark.parametrize("inputs", [{}, {"candidate": "0" * 64}])
def test_verdicts_on_another_candidate_are_refused(controller: Controller, inputs: dict[str, str]) -> None:
    controller.register_release(RELEASE, POLICY, NOW, "tester")
    with pytest.raises(RefusedError, match="these verdicts are about candidate"):
        controller.record_verdicts(RELEASE, make_results(POLICY), inputs, KEY, NOW, "tester")


def test_a_comparison_with_what_is_no_longer_in_production_opens_nothing(controller: Controller) -> None:
    newer = make_release(date(2013, 4, 7))
    prove(controller, newer)
    prove(controller)
    open_canary(controller)
    promote(controller, RELEASE)
    held = open_canary(controller, newer)
    assert isinstance(held, Held)
    assert held.gates == ("not_worse_than_production",)
    assert f"compares with base, what counts now is {RELEASE.release_id[:12]}." in next(iter(held.reasons.values()))
    inputs = inputs_of(newer, RELEASE.release_id)
    controller.record_verdicts(newer, make_results(POLICY), inputs, KEY, LATER, "tester")
    assert isinstance(open_canary(controller, newer), Move)


def test_a_key_that_is_not_trusted_records_nothing(controller: Controller) -> None:
    controller.register_release(RELEASE, POLICY, NOW, "tester")
    before = controller.ledger.events()
    with pytest.raises(EvidenceError, match="not trusted"):
        controller.record_verdicts(RELEASE, make_results(POLICY), INPUTS, SigningKey.generate(), NOW, "tester")
    assert controller.ledger.events() == before


def test_evidence_of_a_key_that_was_revoked_since_opens_nothing(controller: Controller) -> None:
    prove(controller)
    revoked = {KEY.key_id: KEY.public.model_copy(update={"revoked": True})}
    held = open_canary(replace(controller, trusted=revoked))
    assert isinstance(held, Held)
    assert held.gates == POLICY.gate_names


def test_after_a_revocation_a_new_key_proves_the_release_again(controller: Controller) -> None:
    prove(controller)
    fresh = SigningKey.generate()
    trusted = {KEY.key_id: KEY.public.model_copy(update={"revoked": True}), **trusting(fresh)}
    rotated = replace(controller, trusted=trusted)
    assert rotated.record_verdicts(RELEASE, make_results(POLICY), INPUTS, fresh, LATER, "tester").eligible
    assert isinstance(open_canary(rotated), Move)


def test_forged_evidence_in_the_ledger_opens_nothing(controller: Controller) -> None:
    """Whoever can write to the ledger, but has no trusted key, gets as far as this."""
    controller.register_release(RELEASE, POLICY, NOW, "forger")
    with controller.ledger.write(PRODUCT, NOW, "forger") as transaction:
        for gate in POLICY.gate_names:
            evidence = make_evidence(RELEASE, POLICY, gate)
            transaction.append_evidence(evidence, sign_evidence(evidence, SigningKey.generate()))
    held = open_canary(controller)
    assert isinstance(held, Held)
    assert set(held.gates) == {"evidence", *POLICY.gate_names}


def test_evidence_of_another_release_opens_nothing(controller: Controller) -> None:
    other = make_release(seed=2)
    prove(controller, other)
    controller.register_release(RELEASE, POLICY, NOW, "forger")
    with controller.ledger.write(PRODUCT, NOW, "forger") as transaction:
        for gate in POLICY.gate_names:
            envelope = sign_evidence(make_evidence(other, POLICY, gate), KEY)
            transaction.append_evidence(make_evidence(RELEASE, POLICY, gate), envelope)
    held = open_canary(controller)
    assert isinstance(held, Held)
    assert held.reasons["late_recall"] == f"There is no evidence. There is some of release {other.release_id[:12]}."


def test_an_event_that_says_eligible_without_evidence_opens_nothing(controller: Controller) -> None:
    from ml_platform.contracts.events import ReleaseEligible

    controller.register_release(RELEASE, POLICY, NOW, "forger")
    said = ReleaseEligible(release_id=RELEASE.release_id, policy_sha256=POLICY.sha256, expires_at=EXPIRED)
    with controller.ledger.write(PRODUCT, NOW, "forger") as transaction:
        transaction.append(said)
    assert isinstance(open_canary(controller), Held)


def test_a_tampered_ledger_moves_nothing(controller: Controller, tmp_path: Path) -> None:
    import sqlite3

    prove(controller)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("DROP TRIGGER events_no_update")
        database.execute("UPDATE events SET actor = 'nobody' WHERE sequence = 2")
    database.close()
    with pytest.raises(LedgerCorruptError, match="event 2 of assistant"):
        open_canary(make_controller(tmp_path, KEY))
