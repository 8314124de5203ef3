"""Decisions at the door: the word and its move together or not at all, steps that last, signatures that count."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.decided import LONGEST_REASON, DecisionRecorded, PromotionSigned, SignOff
from ml_platform.contracts.events import EventKind
from ml_platform.contracts.monitoring import Action, Decision
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.slot_moves import CanaryAdvanced
from ml_platform.errors import ContractError, EpochConflictError, EvidenceError, LedgerCorruptError, RefusedError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.sign_offs import counting_sign_off
from ml_platform.lineage.statements import sign_promotion
from ml_platform.release.controller import Controller
from ml_platform.release.moves import Held, Move
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

KEY, POLICY, RELEASE = SigningKey.generate(), make_policy(), make_release()
NAME = RELEASE.release_id
EXPIRED = NOW + timedelta(days=31)


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    """A canary at its first step, beside nothing."""
    made = make_controller(tmp_path, KEY)
    pin(made, POLICY)
    made.register_release(RELEASE, POLICY, NOW, "run")
    made.record_verdicts(RELEASE, make_results(POLICY), inputs_of(RELEASE), KEY, NOW, "run")
    assert isinstance(made.open_canary(PRODUCT, NAME, NOW, "run"), Move)
    return made


def decision(action: Action, minutes: float = 0, epoch: int = 1, **changes: Any) -> Decision:
    at = NOW + timedelta(minutes=minutes)
    given: dict[str, Any] = {"product": PRODUCT, "action": action, "release_id": NAME, "reason": "seen"}
    return Decision(**given | {"epoch": epoch, "at": at} | changes)


def kinds(controller: Controller) -> list[EventKind]:
    return [event.kind for event in controller.ledger.events()]


def test_a_decision_stands_right_before_its_move(controller: Controller) -> None:
    before = len(kinds(controller))
    done = controller.apply(decision(Action.STEP_UP), "f" * 64, NOW, "controller")
    assert isinstance(done, Move)
    assert (done.exposure, done.epoch) == (0.2, 2)
    assert kinds(controller)[before:] == [EventKind.DECISION_RECORDED, EventKind.CANARY_ADVANCED]
    assert controller.ledger.events()[-2].payload["kept_sha256"] == "f" * 64
    assert "decided: step up of release" in controller.ledger.log()[-2][1]


@pytest.mark.parametrize("action", [Action.STEP_UP, Action.PROMOTE])
def test_what_the_door_holds_leaves_no_word(controller: Controller, action: Action) -> None:
    before = controller.ledger.events()
    held = controller.apply(decision(action), None, EXPIRED, "controller")
    assert isinstance(held, Held)
    assert held.gates == POLICY.gate_names
    assert controller.ledger.events() == before
    assert controller.state(PRODUCT).slots == {SlotName.CANARY: NAME}
    assert controller.ledger.verify()


def test_a_rollback_without_a_way_back_leaves_no_word(controller: Controller) -> None:
    controller.promote(PRODUCT, NAME, NOW, "operator")
    before = controller.ledger.events()
    held = controller.apply(decision(Action.ROLL_BACK, epoch=2), None, NOW, "controller")
    assert isinstance(held, Held)
    assert "no earlier release may serve again" in held.sentence
    assert controller.ledger.events() == before


def test_a_decision_on_an_earlier_epoch_comes_too_late(controller: Controller) -> None:
    controller.pause_canary(PRODUCT, NAME, "look", NOW, "operator")
    before = controller.ledger.events()
    for action in Action:
        with pytest.raises(EpochConflictError):
            controller.apply(decision(action), None, NOW, "controller")
    assert controller.ledger.events() == before


def test_a_hold_with_an_incident_is_recorded_and_moves_nothing(controller: Controller) -> None:
    said = decision(Action.HOLD, incident="both arms are degraded")
    assert controller.apply(said, None, NOW, "controller") is None
    assert controller.ledger.replay(PRODUCT).decisions[-1].payload["decision"]["incident"] == "both arms are degraded"
    assert controller.state(PRODUCT).epoch == 1


def test_a_freeze_is_decided_with_its_word(controller: Controller) -> None:
    assert controller.apply(decision(Action.FREEZE), None, NOW, "controller") is None
    assert kinds(controller)[-2:] == [EventKind.DECISION_RECORDED, EventKind.PRODUCT_FROZEN]
    assert controller.state(PRODUCT).frozen == "seen"


def test_a_freeze_for_more_reasons_than_a_freeze_may_name_freezes_all_the_same(controller: Controller) -> None:
    said = decision(Action.FREEZE, reason="A metric failed. " * 300)
    assert controller.apply(said, None, NOW, "controller") is None
    frozen = controller.state(PRODUCT).frozen or ""
    assert (len(frozen), frozen[:16], frozen[-1]) == (LONGEST_REASON, said.reason[:16], "…")
    assert controller.ledger.replay(PRODUCT).decisions[-1].payload["decision"]["reason"] == said.reason


def test_a_reason_that_nobody_would_read_to_its_end_is_refused_in_a_sentence(controller: Controller) -> None:
    before, long = controller.ledger.events(), "because " * 600
    with pytest.raises(ContractError, match=r"the freeze: key 'reason'.*at most 4000 characters"):
        controller.freeze(PRODUCT, long, NOW, "operator")
    with pytest.raises(ContractError, match=r"the sign-off: key 'reason'.*at most 4000 characters"):
        controller.sign_off(PRODUCT, NAME, OPERATOR, long, NOW, "operator")
    assert controller.ledger.events() == before
    assert controller.freeze(PRODUCT, "a holiday", NOW, "operator")
    with pytest.raises(ContractError, match=r"the end of the freeze: key 'reason'.*at most 4000 characters"):
        controller.unfreeze(PRODUCT, long, NOW, "operator")


def test_a_step_lasts_as_long_as_its_plan_says(controller: Controller) -> None:
    """By our clock for people; by the product's for decisions, from the second step on by what the ledger knows."""
    early = controller.advance_canary(PRODUCT, NAME, NOW + timedelta(minutes=29), "operator")
    assert early.sentence == "held: step 1 lasts until 2013-04-01 06:30 UTC, its plan says"
    before = controller.ledger.events()
    assert isinstance(controller.apply(decision(Action.STEP_UP, 5), None, NOW, "controller"), Move)
    assert len(controller.ledger.events()) == len(before) + 2


def test_a_second_step_waits_for_the_end_of_the_first_in_the_products_time(tmp_path: Path) -> None:
    policy = make_policy(canary={"steps": [0.05, 0.2, 0.5], "min_minutes_per_step": 30})
    release = make_release(policy=policy)
    made = make_controller(tmp_path, KEY)
    pin(made, policy)
    made.register_release(release, policy, NOW, "run")
    made.record_verdicts(release, make_results(policy), inputs_of(release), KEY, NOW, "run")
    made.open_canary(PRODUCT, release.release_id, NOW, "run")
    of = {"release_id": release.release_id}
    assert isinstance(made.apply(decision(Action.STEP_UP, 40, 1, **of), None, NOW, "controller"), Move)
    early = made.apply(decision(Action.STEP_UP, 69, 2, **of), None, NOW, "controller")
    assert isinstance(early, Held)
    assert "step 2 lasts until 2013-04-01 07:10 UTC" in early.sentence
    assert isinstance(made.apply(decision(Action.STEP_UP, 70, 2, **of), None, NOW, "controller"), Move)


def test_a_frozen_product_goes_nowhere_but_back(controller: Controller) -> None:
    controller.pause_canary(PRODUCT, NAME, "look", NOW, "operator")
    assert controller.freeze(PRODUCT, "a holiday", NOW, "operator")
    assert not controller.freeze(PRODUCT, "again", NOW, "operator")
    for move in (controller.promote, controller.open_shadow, controller.resume_canary):
        arguments = () if move == controller.promote else ("why",)
        held: Any = move(PRODUCT, NAME, *arguments, NOW, "operator")  # type: ignore[operator]
        assert isinstance(held, Held), move
    with controller.ledger.write(PRODUCT, NOW, "forger") as transaction, pytest.raises(RefusedError, match="is frozen"):
        transaction.append(CanaryAdvanced(release_id=NAME, step=2, exposure=0.2))
    assert isinstance(controller.abort_canary(PRODUCT, NAME, "bad", NOW, "operator"), Move)
    assert controller.unfreeze(PRODUCT, "back", NOW, "operator")
    assert not controller.unfreeze(PRODUCT, "back", NOW, "operator")
    assert controller.state(PRODUCT).frozen is None


def signed(controller: Controller) -> bool:
    with controller.ledger.read(PRODUCT) as view:
        return counting_sign_off(view.sign_offs(), controller.operators, NAME) is not None


def test_a_signature_counts_for_this_rollout_of_this_release(controller: Controller) -> None:
    assert not signed(controller)
    controller.sign_off(PRODUCT, NAME, OPERATOR, "fine", NOW, "operator")
    assert signed(controller)
    assert controller.ledger.verify(trusting(KEY), trusting(OPERATOR))
    controller.abort_canary(PRODUCT, NAME, "bad", NOW, "operator")
    assert not signed(controller)


def test_a_signature_of_nobody_counts_for_nothing(controller: Controller) -> None:
    with pytest.raises(EvidenceError, match="not trusted"):
        controller.sign_off(PRODUCT, NAME, SigningKey.generate(), "fine", NOW, "somebody")
    with pytest.raises(RefusedError, match="needs a reason"):
        controller.sign_off(PRODUCT, NAME, OPERATOR, " ", NOW, "operator")
    with pytest.raises(RefusedError, match="is not in the canary slot"):
        controller.sign_off(PRODUCT, "f" * 64, OPERATOR, "fine", NOW, "operator")
    assert not signed(controller)


def test_a_signature_from_elsewhere_in_the_chain_is_named_by_verify(controller: Controller) -> None:
    said = SignOff(
        product=PRODUCT, release_id=NAME, reason="fine", signed_at=NOW, operator="operator", after_sha256="0" * 64
    )
    with controller.ledger.write(PRODUCT, NOW, "forger") as transaction:
        transaction.append_sign_off(said, sign_promotion(said, OPERATOR))
    assert not signed(controller)
    with pytest.raises(LedgerCorruptError, match="or was copied here"):
        controller.ledger.verify()


def test_words_that_stand_for_nothing_are_refused(controller: Controller) -> None:
    wrong = [
        DecisionRecorded(decision=decision(Action.HOLD, epoch=0), kept_sha256=None),
        DecisionRecorded(decision=decision(Action.HOLD, release_id="f" * 64), kept_sha256=None),
        DecisionRecorded(decision=decision(Action.HOLD, product="another"), kept_sha256=None),
        PromotionSigned(release_id="f" * 64, envelope_sha256="f" * 64),
    ]
    for payload in wrong:
        with controller.ledger.write(PRODUCT, NOW, "forger") as transaction, pytest.raises(RefusedError):
            transaction.append(payload)
