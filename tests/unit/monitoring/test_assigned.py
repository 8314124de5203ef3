"""The release that a user was assigned to is the ledger's, whoever answered, at every epoch."""

from pathlib import Path

import pytest

from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.routing import Cohort, RouteReason
from ml_platform.contracts.serving import ServingTime
from ml_platform.lineage.ledger import Ledger
from ml_platform.monitoring import assigned
from ml_platform.monitoring.assigned import Releases, known_releases
from tests.samples.followed import World
from tests.samples.observed import make_answer, serving_content


@pytest.fixture
def world(tmp_path: Path) -> World:
    home = Home(tmp_path / "home")
    return World(home, home.ledger_url, serving=serving_content("features"))


def known(world: World) -> Releases:
    return known_releases(Ledger(world.url), world.store, world.product)


def test_a_failing_canary_keeps_its_users_though_production_answered(world: World) -> None:
    first = world.prove(world.release(1))
    world.open(first)
    world.promote(first)
    second = world.prove(world.release(2))
    epoch = world.open(second)
    releases = known(world)
    failed = make_answer(10, epoch=epoch, release_id=first, route_reason=RouteReason.FELL_BACK)
    nobody = make_answer(10, epoch=epoch, release_id=None, route_reason=RouteReason.NOTHING_SERVES)
    assert releases.assigned(failed) == releases.assigned(nobody) == second
    beside = make_answer(10, epoch=epoch, release_id=None, route_reason=RouteReason.NOTHING_SERVES)
    assert releases.assigned(beside.model_copy(update={"cohort": Cohort.PRODUCTION})) == first
    chosen = make_answer(1, epoch=epoch, cohort=Cohort.OPERATOR, release_id=second, route_reason=RouteReason.OVERRIDE)
    assert releases.assigned(chosen) == second


def test_epochs_that_come_later_are_read_when_an_answer_names_them(world: World) -> None:
    first = world.prove(world.release(1))
    before = world.open(first)
    releases = known(world)
    after = world.promote(first)
    assert releases.slots(before) == {SlotName.CANARY: first}
    assert releases.slots(after) == {SlotName.PRODUCTION: first}
    # An epoch that no ledger knows: what the record says is all that there is.
    assert releases.assigned(make_answer(10, epoch=after + 5, release_id="d" * 64)) == "d" * 64


def test_answers_are_read_as_their_release_was_judged(world: World) -> None:
    release = world.prove(world.release(1))
    world.open(release)
    releases = known(world)
    assert releases.evaluation(release) == serving_content().evaluation
    assert releases.evaluation(None) is None
    assert releases.evaluation("e" * 64) is None
    assert releases.time is ServingTime.FEATURES


def test_a_product_without_releases_lives_by_the_clock(world: World) -> None:
    assert known(world).time is ServingTime.CLOCK


def test_what_the_store_misses_for_a_moment_is_read_when_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = world.prove(world.release(1))
    world.open(release)
    with monkeypatch.context() as away:
        away.setattr(assigned, "find_content", lambda *_: None)
        away.setattr(assigned, "ASK_AGAIN_SECONDS", 0.0)
        releases = known(world)
        assert releases.evaluation(release) is None
    assert f"how release {release[:12]} serves is not in the store" in caplog.text
    assert releases.evaluation(release) == serving_content().evaluation
