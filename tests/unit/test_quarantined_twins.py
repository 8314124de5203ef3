"""The same bytes under another id, for a run has another trigger or commit: a fall of the one is a fall of both."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.events import ReleaseEligible
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.contracts.slot_moves import CanaryOpened, ReleasePromoted
from ml_platform.contracts.triggers import Trigger, TriggerKind
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.standing import Trust
from ml_platform.release.controller import Controller, Held, Move
from ml_platform.release.history import find_release
from ml_platform.serving.reading import LedgerReader
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

KEY, POLICY = SigningKey.generate(), make_policy()
TRIGGER = Trigger(
    kind=TriggerKind.DRIFT,
    reason="the season changed",
    evidence_sha256="a" * 64,
    strength=2.0,
    attempt=1,
    at=datetime(2013, 4, 1, tzinfo=UTC),
)
BY_PERSON = make_release()
BY_SENSOR = BY_PERSON.model_copy(update={"trigger": TRIGGER})
REBASED = BY_PERSON.model_copy(update={"code": BY_PERSON.code.model_copy(update={"git_commit": "b" * 40})})
OLDER = make_release(date(2013, 3, 1))
AFTER = NOW + timedelta(minutes=5)


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    made = make_controller(tmp_path, KEY)
    pin(made, POLICY)
    return made


def open_it(controller: Controller, release: Release, at: datetime = NOW) -> Move | Held:
    controller.register_release(release, POLICY, at, "run")
    reference = controller.state(PRODUCT).slots.get(SlotName.PRODUCTION, "base")
    controller.record_verdicts(release, make_results(POLICY), inputs_of(release, reference), KEY, at, "run")
    return controller.open_canary(PRODUCT, release.release_id, at, "run")


def promote(controller: Controller, release: Release) -> None:
    assert isinstance(open_it(controller, release), Move)
    assert isinstance(controller.promote(PRODUCT, release.release_id, NOW, "run"), Move)


def abort(controller: Controller, release: Release, at: datetime = AFTER) -> Move:
    return controller.abort_canary(PRODUCT, release.release_id, "harm", at, "controller")


def refused(controller: Controller, at: datetime) -> dict[Any, str]:
    """What a gateway that starts now refuses, by place."""
    trust = Trust(controller.trusted, controller.operators)
    return dict(LedgerReader(controller.ledger).read(PRODUCT, trust, at).refused)


@pytest.mark.parametrize("again", [BY_PERSON, REBASED], ids=["a person runs it again", "from another commit"])
def test_what_fell_does_not_come_back_at_once_under_another_id(controller: Controller, again: Release) -> None:
    open_it(controller, BY_SENSOR)
    abort(controller, BY_SENSOR)
    said = open_it(controller, again, AFTER)
    assert isinstance(said, Held)
    assert said.reasons == {
        "quarantine": f"It was aborted or rolled back once, as release {BY_SENSOR.release_id[:12]} with another "
        "trigger or commit, and is quarantined until 2013-04-02 06:05 UTC."
    }
    assert find_release(controller.ledger, again.release_id).quarantine.holds(AFTER)


def test_falls_under_several_ids_add_up_until_it_is_for_good(controller: Controller) -> None:
    at = NOW
    for release, days in ((BY_SENSOR, 1), (BY_PERSON, 2), (REBASED, 400)):
        assert isinstance(open_it(controller, release, at), Move), "its quarantine is over, so it may be tried again"
        said = abort(controller, release, at).sentence
        at += timedelta(days=days)
    assert "It was aborted or rolled back 3 times and is quarantined for good." in said
    assert isinstance(open_it(controller, BY_SENSOR, at), Held)


@pytest.mark.parametrize(
    "changed",
    [
        make_release(seed=2),
        BY_PERSON.model_copy(update={"data": BY_PERSON.data.model_copy(update={"snapshot_sha256": "9" * 64})}),
        BY_PERSON.model_copy(
            update={"monitor_policy": BY_PERSON.monitor_policy.model_copy(update={"content_sha256": "8" * 64})}
        ),
    ],
    ids=["another seed", "corrected data", "another monitor policy"],
)
def test_what_somebody_changed_is_another_release_without_falls(controller: Controller, changed: Release) -> None:
    open_it(controller, BY_SENSOR)
    abort(controller, BY_SENSOR)
    assert isinstance(open_it(controller, changed, AFTER), Move)


def test_production_stays_where_a_canary_that_does_the_same_is_aborted(controller: Controller) -> None:
    promote(controller, OLDER)
    promote(controller, BY_PERSON)
    open_it(controller, BY_SENSOR)
    abort(controller, BY_SENSOR)
    assert refused(controller, AFTER) == {}
    assert not find_release(controller.ledger, BY_PERSON.release_id).quarantine.holds(AFTER)


def test_a_gateway_refuses_what_fell_under_another_id_whoever_wrote_it_into_production(controller: Controller) -> None:
    open_it(controller, BY_SENSOR)
    abort(controller, BY_SENSOR)
    open_it(controller, BY_PERSON, AFTER)
    with controller.ledger.write(PRODUCT, AFTER, "forger") as transaction:
        name = BY_PERSON.release_id
        transaction.append(
            ReleaseEligible(release_id=name, policy_sha256=POLICY.sha256, expires_at=NOW + timedelta(days=9))
        )
        transaction.append(CanaryOpened(release_id=name, step=1, exposure=0.05))
        transaction.append(ReleasePromoted(release_id=name, reason=None))
    assert "with another trigger or commit, and is quarantined" in refused(controller, AFTER)[SlotName.PRODUCTION]


def test_what_production_goes_back_to_is_let_in_though_it_does_the_same_as_what_fell(controller: Controller) -> None:
    """It is no better, but nothing else may be there: the next fall freezes the product."""
    promote(controller, BY_PERSON)
    promote(controller, BY_SENSOR)
    assert isinstance(controller.roll_back(PRODUCT, "harm", AFTER, "controller"), Move)
    assert controller.state(PRODUCT).slots == {SlotName.PRODUCTION: BY_PERSON.release_id}
    assert refused(controller, AFTER) == {}
