"""The shadow slot: who may enter it, what empties it, and that nobody's answer ever comes from it."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.events import EventKind, Payload, ReleaseHeld
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.contracts.slot_moves import ShadowClosed, ShadowOpened
from ml_platform.errors import EpochConflictError, NotEligibleError, RefusedError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.story import tell
from ml_platform.release.controller import Controller, Held, Move
from tests.samples.releases import (
    NOW,
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
OLDER, SERVING, NEXT, LAST = (make_release(date(2013, 3, 24) + timedelta(days=7 * week)) for week in range(4))
LATER = NOW + timedelta(hours=1)
EXPIRED = NOW + timedelta(days=31)


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    """One release in production."""
    made = make_controller(tmp_path, KEY)
    pin(made, POLICY)
    prove(made, SERVING)
    made.open_canary(PRODUCT, SERVING.release_id, NOW, "run")
    assert isinstance(made.promote(PRODUCT, SERVING.release_id, NOW, "run"), Move)
    return made


def prove(controller: Controller, release: Release, at: datetime = NOW, **verdicts: Verdict) -> None:
    controller.register_release(release, POLICY, at, "run")
    inputs = inputs_of(release, controller.state(PRODUCT).slots.get(SlotName.PRODUCTION, "base"))
    controller.record_verdicts(release, make_results(POLICY, **verdicts), inputs, KEY, at, "run")


def shadow(controller: Controller, release: Release, at: datetime = LATER, epoch: int | None = None) -> Move | Held:
    return controller.open_shadow(PRODUCT, release.release_id, "to compare", at, "ops", epoch)


def slots(controller: Controller) -> dict[SlotName, str]:
    return controller.state(PRODUCT).slots


def kinds(controller: Controller) -> list[EventKind]:
    return [event.kind for event in controller.ledger.events()]


def because(done: Move | Held) -> str:
    assert isinstance(done, Held), done
    return done.sentence


def test_a_proven_release_becomes_the_shadow_and_leaves_it_again(controller: Controller) -> None:
    prove(controller, NEXT)
    done = shadow(controller, NEXT, epoch=2)
    assert done == Move(PRODUCT, NEXT.release_id, SlotName.SHADOW, 0.0, 3, changed=True, did="became the shadow")
    assert slots(controller) == {SlotName.PRODUCTION: SERVING.release_id, SlotName.SHADOW: NEXT.release_id}
    assert controller.state(PRODUCT).releases[NEXT.release_id] is ReleaseState.ELIGIBLE
    assert controller.state(PRODUCT).exposure == 0.0
    again = shadow(controller, NEXT)
    assert again.sentence == "already the shadow"
    closed = controller.close_shadow(PRODUCT, NEXT.release_id, "seen enough", LATER, "ops", 3)
    assert (closed.slot, closed.exposure, closed.epoch, closed.sentence) == (None, 0.0, 4, "is the shadow no more")
    assert slots(controller) == {SlotName.PRODUCTION: SERVING.release_id}
    assert controller.state(PRODUCT).releases[NEXT.release_id] is ReleaseState.ELIGIBLE
    assert not controller.ledger.replay(PRODUCT).falls
    told = [tell(event) for event in controller.ledger.events()[-2:]]
    name = NEXT.release_id[:12]
    assert told == [f"release {name} became the shadow: to compare", f"shadow {name} left its slot: seen enough"]


def test_a_release_that_is_older_than_what_serves_may_be_its_shadow(controller: Controller) -> None:
    """Also one that was compared with what is in production no more: nobody sees its answers."""
    prove(controller, OLDER)
    prove(controller, NEXT)
    prove(controller, LAST)
    controller.open_canary(PRODUCT, NEXT.release_id, NOW, "run")
    controller.promote(PRODUCT, NEXT.release_id, NOW, "run")
    assert because(controller.open_canary(PRODUCT, OLDER.release_id, LATER, "run")).startswith("held: older than")
    assert because(controller.open_canary(PRODUCT, LAST.release_id, LATER, "run")) == "held: not_worse_than_production"
    for release in (OLDER, LAST):
        assert isinstance(shadow(controller, release), Move)
        assert slots(controller)[SlotName.SHADOW] == release.release_id


def test_another_shadow_makes_room_in_one_transaction(controller: Controller) -> None:
    prove(controller, NEXT)
    prove(controller, LAST)
    shadow(controller, NEXT)
    shadow(controller, LAST)
    assert kinds(controller)[-3:] == [EventKind.SHADOW_OPENED, EventKind.SHADOW_CLOSED, EventKind.SHADOW_OPENED]
    assert slots(controller)[SlotName.SHADOW] == LAST.release_id


def test_a_shadow_that_becomes_the_canary_leaves_its_slot_in_the_same_event(controller: Controller) -> None:
    prove(controller, NEXT)
    shadow(controller, NEXT)
    move = controller.open_canary(PRODUCT, NEXT.release_id, LATER, "run")
    assert isinstance(move, Move)
    assert kinds(controller)[-2:] == [EventKind.SHADOW_OPENED, EventKind.CANARY_OPENED]
    assert slots(controller) == {SlotName.PRODUCTION: SERVING.release_id, SlotName.CANARY: NEXT.release_id}
    assert controller.ledger.replay(PRODUCT).shadowed is None
    with pytest.raises(RefusedError, match="is not in the shadow slot"):
        controller.close_shadow(PRODUCT, NEXT.release_id, "r", LATER, "ops")


def test_the_shadow_stays_while_canaries_come_and_go_and_production_changes(controller: Controller) -> None:
    prove(controller, NEXT)
    shadow(controller, NEXT)
    prove(controller, LAST)
    controller.open_canary(PRODUCT, LAST.release_id, LATER, "run")
    controller.promote(PRODUCT, LAST.release_id, LATER, "run")
    controller.roll_back(PRODUCT, "r", LATER, "ops")
    assert slots(controller) == {SlotName.PRODUCTION: SERVING.release_id, SlotName.SHADOW: NEXT.release_id}


def test_a_shadow_that_is_judged_held_leaves_its_slot_before(controller: Controller) -> None:
    prove(controller, NEXT)
    shadow(controller, NEXT)
    prove(controller, NEXT, LATER, late_recall=Verdict.FAIL)
    assert kinds(controller)[-2:] == [EventKind.SHADOW_CLOSED, EventKind.RELEASE_HELD]
    assert controller.ledger.events()[-2].payload["reason"] == "held: late_recall"
    assert slots(controller) == {SlotName.PRODUCTION: SERVING.release_id}
    assert because(shadow(controller, NEXT)) == "held: late_recall"


def test_what_is_not_proven_never_enters(controller: Controller) -> None:
    """The same door as the canary's: evidence, its age, whose key signed it, and whose policy counts."""
    prove(controller, NEXT)
    prove(controller, LAST, late_recall=Verdict.FAIL)
    revoked = {KEY.key_id: KEY.public.model_copy(update={"revoked": True})}
    before = controller.ledger.events()
    assert because(shadow(controller, LAST)) == "held: late_recall"
    assert because(shadow(controller, NEXT, EXPIRED)) == f"held: {', '.join(POLICY.gate_names)}"
    assert isinstance(shadow(replace(controller, trusted=revoked), NEXT), Held)
    assert because(shadow(replace(controller, operators=trusting()), NEXT)) == "held: policy_pinned"
    with pytest.raises(NotEligibleError, match="is not in the ledger"):
        shadow(controller, OLDER)
    with pytest.raises(EpochConflictError):
        shadow(controller, NEXT, epoch=1)
    assert controller.ledger.events() == before


def test_what_serves_elsewhere_or_fell_or_served_before_never_enters(controller: Controller) -> None:
    prove(controller, NEXT)
    controller.open_canary(PRODUCT, NEXT.release_id, LATER, "run")
    assert because(shadow(controller, SERVING)).startswith("held: it is in the slot production, where users see")
    assert because(shadow(controller, NEXT)).startswith("held: it is in the slot canary, where users see")
    controller.abort_canary(PRODUCT, NEXT.release_id, "errors", LATER, "ops")
    assert because(shadow(controller, NEXT, EXPIRED)) == "held: this release was aborted before"
    prove(controller, LAST)
    controller.open_canary(PRODUCT, LAST.release_id, LATER, "run")
    controller.promote(PRODUCT, LAST.release_id, LATER, "run")
    assert because(shadow(controller, SERVING)) == "held: this release was superseded before"
    controller.roll_back(PRODUCT, "r", LATER, "ops")
    assert because(shadow(controller, LAST)) == "held: this release was rolled_back before"


def test_a_release_in_quarantine_is_held_whatever_somebody_wrote_of_it(controller: Controller) -> None:
    from ml_platform.contracts.events import ReleaseEligible

    prove(controller, NEXT)
    controller.open_canary(PRODUCT, NEXT.release_id, LATER, "run")
    controller.abort_canary(PRODUCT, NEXT.release_id, "errors", LATER, "ops")
    said = ReleaseEligible(release_id=NEXT.release_id, policy_sha256=POLICY.sha256, expires_at=EXPIRED)
    with controller.ledger.write(PRODUCT, LATER, "forger") as transaction:
        transaction.append(said)
    assert because(shadow(controller, NEXT)) == "held: quarantine"


def test_without_production_there_are_no_questions_to_copy(tmp_path: Path) -> None:
    made = make_controller(tmp_path, KEY)
    pin(made, POLICY)
    prove(made, NEXT)
    with pytest.raises(RefusedError, match="nothing of assistant is in production"):
        shadow(made, NEXT)


HELD = ReleaseHeld(release_id=NEXT.release_id, policy_sha256=POLICY.sha256, gates={"late_recall": "r"})
FORBIDDEN: dict[str, tuple[Payload, str]] = {
    "an occupied slot": (ShadowOpened(release_id=LAST.release_id, reason="r"), "is already in the shadow slot"),
    "the same again": (ShadowOpened(release_id=NEXT.release_id, reason="r"), "is already in the shadow slot"),
    "what is in production": (ShadowOpened(release_id=SERVING.release_id, reason="r"), "is production, expected"),
    "what is held": (ShadowOpened(release_id=OLDER.release_id, reason="r"), "is held, expected eligible"),
    "what nobody knows": (ShadowOpened(release_id="f" * 64, reason="r"), "is not registered, expected eligible"),
    "closing another": (ShadowClosed(release_id=LAST.release_id, reason="r"), "is not in the shadow slot"),
    "holding what is in the slot": (HELD, "is in the shadow slot, which is closed before"),
}


@pytest.mark.parametrize(("payload", "words"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_the_rules_of_the_ledger_let_nobody_else_move_it(controller: Controller, payload: Payload, words: str) -> None:
    prove(controller, OLDER, late_recall=Verdict.FAIL)
    prove(controller, LAST)
    prove(controller, NEXT)
    shadow(controller, NEXT)
    before = controller.ledger.events()
    with (
        pytest.raises(RefusedError, match=words),
        controller.ledger.write(PRODUCT, LATER, "forger") as transaction,
    ):
        transaction.append(payload)
    assert controller.ledger.events() == before


def test_a_shadow_of_nothing_is_refused_by_the_rules_too(tmp_path: Path) -> None:
    made = make_controller(tmp_path, KEY)
    pin(made, POLICY)
    prove(made, NEXT)
    with (
        pytest.raises(RefusedError, match="nothing is in production"),
        made.ledger.write(PRODUCT, LATER, "forger") as transaction,
    ):
        transaction.append(ShadowOpened(release_id=NEXT.release_id, reason="r"))
