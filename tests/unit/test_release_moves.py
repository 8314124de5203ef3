"""Moves after the first: advance, pause, resume, abort, promote, roll back, and the quarantine that follows a fall."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.events import EventKind
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.policy import QuarantineRule, SlotName
from ml_platform.contracts.release import Release
from ml_platform.contracts.slot_moves import CanaryAborted
from ml_platform.errors import EpochConflictError, NotEligibleError, RefusedError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.quarantine import quarantine_of
from ml_platform.release.controller import Controller, Held, Move
from tests.samples.releases import (
    NOW,
    OPERATOR,
    PRODUCT,
    inputs_of,
    make_controller,
    make_policy,
    make_release,
    make_results,
    pin,
    trusting,
)

KEY = SigningKey.generate()
POLICY = make_policy()
RELEASE, SECOND, THIRD = (make_release(date(2013, 3, 31) + timedelta(days=7 * week)) for week in range(3))
LATER = NOW + timedelta(hours=1)
EXPIRED = NOW + timedelta(days=31)


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    made = make_controller(tmp_path, KEY)
    pin(made, POLICY)
    return made


def judge(controller: Controller, release: Release, at: datetime, **verdicts: Verdict) -> None:
    inputs = inputs_of(release, controller.state(PRODUCT).slots.get(SlotName.PRODUCTION, "base"))
    controller.record_verdicts(release, make_results(POLICY, **verdicts), inputs, KEY, at, "run")


def serve(controller: Controller, release: Release, at: datetime = NOW, *, promoted: bool = False) -> Move:
    """Carries a release into the canary slot, or on into production."""
    controller.register_release(release, POLICY, at, "run")
    judge(controller, release, at)
    done = controller.open_canary(PRODUCT, release.release_id, at, "run")
    if promoted:
        done = controller.promote(PRODUCT, release.release_id, at, "run")
    assert isinstance(done, Move), done
    return done


def held(done: Move | Held) -> Held:
    assert isinstance(done, Held), done
    return done


def state_of(controller: Controller, release: Release) -> ReleaseState:
    return controller.state(PRODUCT).releases[release.release_id]


def test_a_canary_goes_step_by_step_into_production(controller: Controller) -> None:
    name = RELEASE.release_id
    serve(controller, RELEASE)
    assert controller.advance_canary(PRODUCT, name, LATER, "c", 1) == Move(
        PRODUCT, name, SlotName.CANARY, 0.2, 2, changed=True, did="canary went on to step 2, 20%"
    )
    with pytest.raises(RefusedError, match=r"last of its 2 steps\. Promote it"):
        controller.advance_canary(PRODUCT, name, LATER, "c")
    assert controller.pause_canary(PRODUCT, name, "look", LATER, "c").sentence == "canary paused"
    for move in (controller.advance_canary, controller.promote):
        with pytest.raises(RefusedError):
            move(PRODUCT, name, LATER, "c")
    assert isinstance(controller.resume_canary(PRODUCT, name, "fine", LATER, "c"), Move)
    done = controller.promote(PRODUCT, name, LATER, "c", 4)
    assert isinstance(done, Move)
    assert (done.slot, done.exposure, done.epoch) == (SlotName.PRODUCTION, 1.0, 5)
    state = controller.state(PRODUCT)
    assert state.slots == {SlotName.PRODUCTION: name}
    assert state.exposure == 0.0


MOVES: dict[str, Callable[[Controller, str, int | None], Any]] = {
    "advance": lambda c, name, epoch: c.advance_canary(PRODUCT, name, LATER, "c", epoch),
    "pause": lambda c, name, epoch: c.pause_canary(PRODUCT, name, "r", LATER, "c", epoch),
    "resume": lambda c, name, epoch: c.resume_canary(PRODUCT, name, "r", LATER, "c", epoch),
    "abort": lambda c, name, epoch: c.abort_canary(PRODUCT, name, "r", LATER, "c", epoch),
    "promote": lambda c, name, epoch: c.promote(PRODUCT, name, LATER, "c", epoch),
    "roll back": lambda c, name, epoch: c.roll_back(PRODUCT, "r", LATER, "c", name, epoch),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_every_move_is_refused_when_a_slot_was_moved_meanwhile(controller: Controller, move: Any) -> None:
    serve(controller, RELEASE)
    before = controller.ledger.events()
    with pytest.raises(EpochConflictError):
        move(controller, RELEASE.release_id, 0)
    assert controller.ledger.events() == before


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_every_move_of_what_is_in_no_slot_is_refused(controller: Controller, move: Any) -> None:
    with pytest.raises((NotEligibleError, RefusedError)):
        move(controller, RELEASE.release_id, None)
    controller.register_release(RELEASE, POLICY, NOW, "run")
    judge(controller, RELEASE, NOW)
    before = controller.ledger.events()
    with pytest.raises(RefusedError):
        move(controller, RELEASE.release_id, None)
    assert controller.ledger.events() == before


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR])
def test_a_canary_whose_newest_evidence_is_no_pass_goes_no_further(controller: Controller, verdict: Verdict) -> None:
    serve(controller, RELEASE)
    judge(controller, RELEASE, LATER, late_recall=verdict)
    for move in (controller.advance_canary, controller.promote):
        assert held(move(PRODUCT, RELEASE.release_id, LATER, "c")).gates == ("late_recall",)
    assert state_of(controller, RELEASE) is ReleaseState.CANARY


def test_a_canary_whose_evidence_expired_or_whose_key_was_revoked_goes_no_further(controller: Controller) -> None:
    serve(controller, RELEASE)
    revoked = replace(controller, trusted={KEY.key_id: KEY.public.model_copy(update={"revoked": True})})
    for door, at in ((controller, EXPIRED), (revoked, LATER)):
        assert held(door.promote(PRODUCT, RELEASE.release_id, at, "c")).gates == POLICY.gate_names
        assert held(door.advance_canary(PRODUCT, RELEASE.release_id, at, "c")).gates == POLICY.gate_names
    assert controller.pause_canary(PRODUCT, RELEASE.release_id, "expired", EXPIRED, "c").changed
    assert isinstance(controller.resume_canary(PRODUCT, RELEASE.release_id, "go on", EXPIRED, "c"), Held)
    assert controller.abort_canary(PRODUCT, RELEASE.release_id, "expired", EXPIRED, "c").slot is None


def test_an_aborted_release_waits_longer_each_time_and_in_the_end_for_good(controller: Controller) -> None:
    serve(controller, RELEASE)
    at, name = LATER, RELEASE.release_id
    for hours in (24, 48):
        done = controller.abort_canary(PRODUCT, name, "too many errors", at, "c")
        until = at + timedelta(hours=hours)
        assert f"quarantined until {until:%Y-%m-%d %H:%M} UTC" in done.sentence
        just_before = until - timedelta(microseconds=1)
        assert held(controller.open_canary(PRODUCT, name, just_before, "run")).gates == ("quarantine",)
        assert isinstance(controller.open_canary(PRODUCT, name, until, "run"), Move)
        at = until + timedelta(hours=1)
    done = controller.abort_canary(PRODUCT, name, "again", at, "c")
    assert "aborted or rolled back 3 times and is quarantined for good" in done.sentence
    judge(controller, RELEASE, at + timedelta(days=300))
    again = controller.open_canary(PRODUCT, name, at + timedelta(days=301), "run")
    assert held(again).gates == ("quarantine",)
    assert state_of(controller, RELEASE) is ReleaseState.ABORTED


def test_after_its_quarantine_a_release_still_needs_its_evidence(controller: Controller) -> None:
    serve(controller, RELEASE)
    controller.abort_canary(PRODUCT, RELEASE.release_id, "errors", NOW, "c")
    assert held(controller.open_canary(PRODUCT, RELEASE.release_id, EXPIRED, "run")).gates == POLICY.gate_names


def test_a_quarantined_release_that_somebody_wrote_into_a_slot_is_not_promoted(controller: Controller) -> None:
    from ml_platform.contracts.events import ReleaseEligible
    from ml_platform.contracts.slot_moves import CanaryOpened

    serve(controller, RELEASE)
    controller.abort_canary(PRODUCT, RELEASE.release_id, "errors", LATER, "c")
    with controller.ledger.write(PRODUCT, LATER, "forger") as transaction:
        said = ReleaseEligible(release_id=RELEASE.release_id, policy_sha256=POLICY.sha256, expires_at=EXPIRED)
        transaction.append(said)
        transaction.append(CanaryOpened(release_id=RELEASE.release_id, step=1, exposure=0.05))
    for move in (controller.advance_canary, controller.promote):
        assert held(move(PRODUCT, RELEASE.release_id, LATER, "c")).gates == ("quarantine",)


def test_a_replaced_canary_did_nothing_wrong(controller: Controller) -> None:
    serve(controller, RELEASE)
    serve(controller, SECOND)
    assert state_of(controller, RELEASE) is ReleaseState.ELIGIBLE
    assert not controller.ledger.replay(PRODUCT).falls


def test_a_rollback_takes_the_release_that_served_last_even_when_its_evidence_expired(controller: Controller) -> None:
    for week, release in enumerate((RELEASE, SECOND, THIRD)):
        serve(controller, release, NOW + timedelta(days=7 * week), promoted=True)
    at = NOW + timedelta(days=365)
    done = controller.roll_back(PRODUCT, "wrong answers", at, "operator", expected_epoch=6)
    assert done.sentence == f"rolled back from {THIRD.release_id[:12]}"
    assert controller.state(PRODUCT).slots == {SlotName.PRODUCTION: SECOND.release_id}
    assert state_of(controller, THIRD) is ReleaseState.ROLLED_BACK
    assert held(controller.open_canary(PRODUCT, THIRD.release_id, at, "run")).gates == ("quarantine",)
    assert isinstance(controller.roll_back(PRODUCT, "that one too", at, "operator"), Move)
    assert controller.state(PRODUCT).slots == {SlotName.PRODUCTION: RELEASE.release_id}
    none = held(controller.roll_back(PRODUCT, "and that", at, "operator"))
    assert none.sentence.startswith("held: no earlier release may serve again")
    back = held(controller.roll_back(PRODUCT, "back", at, "operator", SECOND.release_id))
    assert back.reasons == {SECOND.release_id[:12]: "It is rolled_back, expected superseded."}


def test_what_served_last_is_not_what_was_promoted_last(controller: Controller) -> None:
    for week, release in enumerate((RELEASE, SECOND)):
        serve(controller, release, NOW + timedelta(days=7 * week), promoted=True)
    at = NOW + timedelta(days=8)
    controller.roll_back(PRODUCT, "r", at, "operator")
    serve(controller, THIRD, at, promoted=True)
    controller.roll_back(PRODUCT, "r", at, "operator")
    assert controller.state(PRODUCT).slots == {SlotName.PRODUCTION: RELEASE.release_id}


def test_a_release_that_failed_since_or_whose_key_or_pin_was_revoked_is_not_rolled_back_to(
    controller: Controller,
) -> None:
    serve(controller, RELEASE, promoted=True)
    serve(controller, SECOND, LATER, promoted=True)
    before = controller.ledger.events()
    revoked = {KEY.key_id: KEY.public.model_copy(update={"revoked": True})}
    unpinned = {OPERATOR.key_id: OPERATOR.public.model_copy(update={"revoked": True})}
    for door in (
        replace(controller, trusted=revoked),
        replace(controller, operators=unpinned),
        replace(controller, trusted=trusting(SigningKey.generate())),
    ):
        assert isinstance(door.roll_back(PRODUCT, "r", LATER, "operator"), Held)
    assert controller.ledger.events() == before
    judge(controller, RELEASE, LATER, late_recall=Verdict.FAIL)
    reason = held(controller.roll_back(PRODUCT, "r", LATER, "operator")).reasons[RELEASE.release_id[:12]]
    assert reason == "late_recall: FAIL: late_recall was looked at."


def test_a_promotion_that_was_written_past_the_controller_is_not_rolled_back_to(controller: Controller) -> None:
    """It had no evidence when it was promoted, whatever was proven later."""
    from ml_platform.contracts.events import ReleaseEligible
    from ml_platform.contracts.slot_moves import CanaryOpened, ReleasePromoted

    name = RELEASE.release_id
    controller.register_release(RELEASE, POLICY, NOW, "run")
    with controller.ledger.write(PRODUCT, NOW, "forger") as transaction:
        transaction.append(ReleaseEligible(release_id=name, policy_sha256=POLICY.sha256, expires_at=EXPIRED))
        transaction.append(CanaryOpened(release_id=name, step=1, exposure=0.05))
        transaction.append(ReleasePromoted(release_id=name))
    judge(controller, RELEASE, LATER)
    serve(controller, SECOND, LATER, promoted=True)
    found = held(controller.roll_back(PRODUCT, "r", LATER, "operator")).reasons[name[:12]]
    assert "There is no evidence." in found


def test_a_quarantined_release_is_not_rolled_back_to_whatever_was_written_past_the_controller(
    controller: Controller,
) -> None:
    from ml_platform.contracts.events import ReleaseEligible
    from ml_platform.contracts.slot_moves import CanaryOpened, ReleasePromoted

    serve(controller, RELEASE, promoted=True)
    serve(controller, SECOND, promoted=True)
    controller.roll_back(PRODUCT, "r", LATER, "operator")
    name = SECOND.release_id
    with controller.ledger.write(PRODUCT, LATER, "forger") as transaction:
        transaction.append(ReleaseEligible(release_id=name, policy_sha256=POLICY.sha256, expires_at=EXPIRED))
        transaction.append(CanaryOpened(release_id=name, step=1, exposure=0.05))
        transaction.append(ReleasePromoted(release_id=name))
    serve(controller, THIRD, LATER, promoted=True)
    assert "is quarantined" in held(controller.roll_back(PRODUCT, "r", LATER, "operator", name)).sentence
    assert isinstance(controller.roll_back(PRODUCT, "r", LATER, "operator"), Move)
    assert controller.state(PRODUCT).slots == {SlotName.PRODUCTION: RELEASE.release_id}


def test_a_rollback_outdates_the_canary_that_was_compared_with_what_is_gone(controller: Controller) -> None:
    serve(controller, RELEASE, promoted=True)
    serve(controller, SECOND, promoted=True)
    serve(controller, THIRD)
    controller.roll_back(PRODUCT, "r", LATER, "operator")
    assert held(controller.promote(PRODUCT, THIRD.release_id, LATER, "c")).gates == ("not_worse_than_production",)


def test_a_new_controller_sees_the_same_falls(controller: Controller, tmp_path: Path) -> None:
    serve(controller, RELEASE)
    controller.abort_canary(PRODUCT, RELEASE.release_id, "errors", LATER, "c")
    other = make_controller(tmp_path, KEY)
    assert held(other.open_canary(PRODUCT, RELEASE.release_id, LATER, "run")).gates == ("quarantine",)
    assert other.ledger.events()[-1].kind is EventKind.CANARY_ABORTED


@pytest.mark.parametrize("rule", [QuarantineRule(first_hours=8760, for_good_after=10)])
def test_the_longest_quarantine_is_still_a_date(rule: QuarantineRule) -> None:
    for falls in range(1, 10):
        found = quarantine_of([LATER] * falls, rule)
        assert found.until == LATER + timedelta(hours=8760 * 2 ** (falls - 1))
    assert quarantine_of([LATER] * 10, rule).for_good
    assert not quarantine_of([], rule).holds(LATER)


def test_an_abort_of_another_release_than_the_canary_is_refused(controller: Controller) -> None:
    serve(controller, RELEASE)
    controller.register_release(SECOND, POLICY, NOW, "run")
    with pytest.raises(RefusedError, match="is registered, expected canary or paused"):
        controller.abort_canary(PRODUCT, SECOND.release_id, "r", LATER, "c")
    with (
        pytest.raises(RefusedError),
        controller.ledger.write(PRODUCT, LATER, "forger") as transaction,
    ):
        transaction.append(CanaryAborted(release_id=SECOND.release_id, reason="r"))
    assert state_of(controller, RELEASE) is ReleaseState.CANARY
