"""What candidates are compared with must itself be proven: "no worse" than what nobody measured says nothing."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.contracts.events import ReleaseEligible
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.contracts.slot_moves import CanaryOpened, ReleasePromoted
from ml_platform.errors import EvidenceError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.standing import Trust
from ml_platform.lineage.statements import sign_evidence
from ml_platform.release.controller import Controller, Held, Move
from ml_platform.release.reference import find_reference
from tests.samples.releases import (
    NOW,
    OPERATOR,
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

KEY, NEXT_KEY, POLICY = SigningKey.generate(), SigningKey.generate(), make_policy()
GOOD, BAD, NEW = (make_release(date(2013, 3, day)) for day in (1, 2, 3))
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    """GOOD is in production, as it should be."""
    made = make_controller(tmp_path, KEY)
    pin(made, POLICY)
    judge(made, GOOD)
    assert isinstance(made.open_canary(PRODUCT, GOOD.release_id, NOW, "run"), Move)
    assert isinstance(made.promote(PRODUCT, GOOD.release_id, NOW, "run"), Move)
    return made


def judge(
    controller: Controller, release: Release, at: datetime = NOW, key: SigningKey = KEY, **verdicts: Verdict
) -> None:
    policy = controller.ledger.replay(PRODUCT).policies.get(release.promotion_policy.content_sha256, POLICY)
    controller.register_release(release, policy, at, "run")
    reference = controller.state(PRODUCT).slots.get(SlotName.PRODUCTION, "base")
    controller.record_verdicts(release, make_results(policy, **verdicts), inputs_of(release, reference), key, at, "run")


def written_into_production(controller: Controller, release: Release) -> None:
    """By somebody who may append to the ledger, and has no key."""
    policy_sha256, name = release.promotion_policy.content_sha256, release.release_id
    with controller.ledger.write(PRODUCT, NOW, "mallory") as transaction:
        expires = NOW + timedelta(days=9)
        transaction.append(ReleaseEligible(release_id=name, policy_sha256=policy_sha256, expires_at=expires))
        transaction.append(CanaryOpened(release_id=name, step=1, exposure=0.05))
        transaction.append(ReleasePromoted(release_id=name, reason=None))


def reference(controller: Controller, at: datetime = LATER) -> Release | None:
    with controller.ledger.read(PRODUCT) as view:
        return find_reference(view, Trust(controller.trusted, controller.operators), at)


def unmeasured(controller: Controller) -> Release:
    controller.register_release(BAD, POLICY, NOW, "run")
    return BAD


def failed(controller: Controller) -> Release:
    judge(controller, BAD, late_recall=Verdict.FAIL)
    return BAD


def under_a_policy_that_nobody_pinned(controller: Controller) -> Release:
    loose = make_policy(evidence_valid_days=300)
    release = make_release(date(2013, 3, 2), policy=loose)
    controller.register_release(release, loose, NOW, "run")
    judge(controller, release)
    return release


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (unmeasured, "late_recall: There is no evidence."),
        (failed, "late_recall: FAIL: late_recall was looked at."),
        (under_a_policy_that_nobody_pinned, "The release was judged under promotion policy"),
    ],
)
def test_nothing_is_compared_with_what_somebody_wrote_into_production(
    controller: Controller, make: Callable[[Controller], Release], why: str
) -> None:
    bad = make(controller)
    written_into_production(controller, bad)
    with pytest.raises(EvidenceError) as caught:
        reference(controller)
    assert f"production {bad.release_id[:12]} was never proven" in str(caught.value)
    assert why in str(caught.value)
    judge(controller, NEW)
    said = controller.open_canary(PRODUCT, NEW.release_id, NOW, "run")
    assert isinstance(said, Held)
    assert "Roll back first: `mlp rollback assistant --reason …`" in said.sentence

    assert isinstance(controller.roll_back(PRODUCT, "it was never proven", NOW, "operator"), Move)
    assert reference(controller) == GOOD
    judge(controller, NEW, LATER)
    assert isinstance(controller.open_canary(PRODUCT, NEW.release_id, LATER, "run"), Move)


def test_what_was_written_into_production_counts_once_it_is_proven(controller: Controller) -> None:
    """As a gateway then serves it, too."""
    controller.register_release(BAD, POLICY, NOW, "run")
    written_into_production(controller, BAD)
    judge(controller, BAD, LATER)
    assert reference(controller) == BAD
    judge(controller, NEW, LATER)
    assert isinstance(controller.open_canary(PRODUCT, NEW.release_id, LATER, "run"), Move)


def with_a_revoked_key(controller: Controller) -> Controller:
    keys = {KEY.key_id: KEY.public.model_copy(update={"revoked": True}), **trusting(NEXT_KEY)}
    return replace(controller, trusted=keys)


def with_an_operator_who_left(controller: Controller) -> Controller:
    successor = SigningKey.generate()
    left = {OPERATOR.key_id: OPERATOR.public.model_copy(update={"revoked": True}), **trusting(successor)}
    after = replace(controller, operators=left, trusted=trusting(KEY, NEXT_KEY))
    after.pin_policy(PRODUCT, POLICY, successor, "a successor", LATER, "operator")
    return after


def with_an_envelope_that_a_stranger_signed(controller: Controller) -> Controller:
    forged = make_evidence(GOOD, POLICY, "late_recall", Verdict.FAIL)
    with controller.ledger.write(PRODUCT, NOW, "mallory") as transaction:
        transaction.append_evidence(forged, sign_evidence(forged, SigningKey.generate()))
    return replace(controller, trusted=trusting(KEY, NEXT_KEY))


def with_a_fail_that_was_found_since(controller: Controller) -> Controller:
    judge(controller, GOOD, LATER, late_recall=Verdict.FAIL)
    return replace(controller, trusted=trusting(KEY, NEXT_KEY))


@pytest.mark.parametrize(
    "after",
    [
        with_a_revoked_key,
        with_an_operator_who_left,
        with_an_envelope_that_a_stranger_signed,
        with_a_fail_that_was_found_since,
    ],
)
def test_a_better_release_may_come_after_production_whatever_was_found_out_since(
    controller: Controller, after: Callable[[Controller], Controller]
) -> None:
    """Otherwise nothing could ever take its place."""
    changed, at = after(controller), LATER + timedelta(hours=1)
    assert reference(changed) == GOOD
    judge(changed, NEW, at, NEXT_KEY)
    assert isinstance(changed.open_canary(PRODUCT, NEW.release_id, at, "run"), Move)
