"""A controller in trouble: policies that cannot be read, doors that hold, stores that fail; decisions made again."""

import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.decided import DecisionRecorded
from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import VersionedPart
from ml_platform.errors import BusyError, StorageError
from ml_platform.lineage.contents import keep_content
from ml_platform.lineage.ledger import Ledger
from ml_platform.monitoring import keeping
from ml_platform.release import controlling, post_mortem, retention, traffic, watching
from ml_platform.release.controller import Controller
from ml_platform.release.decide import decide
from ml_platform.release.situation import Past, Plan
from ml_platform.release.traffic import Traffic
from tests.samples.releases import OPERATOR, make_policy
from tests.samples.rollouts import Rollout, go_on, make_rollout, slots


@pytest.fixture
def world(tmp_path: Path) -> Rollout:
    return make_rollout(tmp_path / "home")


def test_a_policy_of_the_older_form_holds_and_says_so_once(tmp_path: Path) -> None:
    class Older(Rollout):
        def release(self, seed: int, **files: bytes) -> Any:
            made = super().release(seed, **files)
            part = VersionedPart(version="1.0.0", content_sha256=self.older())
            return made.model_copy(update={"monitor_policy": part})

        def older(self) -> str:
            from ml_platform.contracts.base import Contract

            class Form(Contract):
                version: str = "1.0.0"
                alerts: bool = True

            from ml_platform.lineage import contents

            contents.KINDS.setdefault(Form, contents.KINDS[MonitorPolicy])
            try:
                keep_content(self.store, Form())
            finally:
                contents.KINDS.pop(Form)
            return Form().sha256

    from ml_platform.contracts.home import Home

    home = Home(tmp_path / "home")
    world = Older(home, home.ledger_url)
    world.serve(1)
    world.try_out(2)
    loop = world.loop()
    for _ in range(3):
        world.answer(100, canary_errors=1.0)
        decision = world.look(loop).decision
        assert decision.action is Action.HOLD
        assert "of an older form" in decision.reason
    world.look(world.successor(loop))
    assert world.kinds().count("decision_recorded") == 1


def test_a_move_that_the_door_holds_leaves_no_word_and_says_why(tmp_path: Path) -> None:
    world = make_rollout(tmp_path / "home")
    loop = world.loop()
    canary = slots(world)[SlotName.CANARY]
    world.controller.pin_policy(
        world.product, make_policy(version="9.9.9"), OPERATOR, "stricter", datetime.now(UTC), "operator"
    )
    before = world.kinds()
    done = go_on(world, loop, rounds=4)
    decision = world.look(loop).decision
    assert done == []
    assert decision.action is Action.HOLD
    assert "Step up was decided" in decision.reason
    assert world.kinds() == before
    assert slots(world)[SlotName.CANARY] == canary


def test_nothing_goes_forward_that_cannot_be_kept_and_what_stops_still_stops(world: Rollout, monkeypatch: Any) -> None:
    def broken(*_: Any, **__: Any) -> str:
        raise StorageError("the disk is full")

    monkeypatch.setattr(retention, "keep_decision", broken)
    loop = world.loop()
    assert go_on(world, loop, rounds=4) == []
    assert "the disk is full" in world.look(loop).decision.reason
    (decision,) = go_on(world, loop, canary_errors=0.9)
    assert decision.action is Action.ABORT
    assert world.events("decision_recorded")[-1]["kept_sha256"] is None


def test_what_stops_is_done_whatever_a_store_raises(world: Rollout, monkeypatch: Any) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise ConnectionAbortedError("what the client of an object store raises, which is none of our errors")

    monkeypatch.setattr(retention, "keep_decision", unreachable)
    (decision,) = go_on(world, world.loop(), canary_errors=0.9)
    assert decision.action is Action.ABORT
    assert world.events("decision_recorded")[-1]["kept_sha256"] is None


def test_what_stops_does_not_wait_for_a_store_that_hangs_nor_begins_to_keep_there_again(
    world: Rollout, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    asked, back = [], threading.Event()

    def hang(*given: Any, **named: Any) -> str:
        asked.append(threading.current_thread())
        back.wait()
        return keeping.keep_decision(*given, **named)

    loop = world.loop()
    go_on(world, loop)
    monkeypatch.setattr(retention, "keep_decision", hang)
    monkeypatch.setattr(retention, "KEPT_WITHIN_S", 0.05)
    try:
        world.try_out(3)
        assert [one.action for one in go_on(world, loop, canary_errors=0.9)] == [Action.ABORT]
        assert [one.action for one in go_on(world, loop, errors=0.9, rounds=4)][:1] == [Action.ROLL_BACK]
        assert [one["kept_sha256"] for one in world.events("decision_recorded")][-2:] == [None, None]
        assert len(asked) == 1
        assert "still hangs" in caplog.text
    finally:
        back.set()
    asked[0].join()


def test_the_records_of_answers_being_down_moves_nothing(world: Rollout, monkeypatch: Any) -> None:
    loop = world.loop()
    world.answer(150)
    world.pass_minutes(60)
    world.answer(150, canary_errors=0.0)
    monkeypatch.setattr(watching, "BLIND_S", -1.0)

    def down(_: Any) -> Any:
        raise StorageError("the store is down")

    with monkeypatch.context() as patch:
        patch.setattr("ml_platform.monitoring.observations.Feed.read", down)
        for _ in range(3):
            decision = world.look(loop).decision
            assert decision.action is Action.HOLD
            assert "the store is down" in decision.reason
    assert world.kinds().count("decision_recorded") == 1
    assert world.look(loop).decision.action is Action.STEP_UP


def test_a_kept_decision_is_made_again_from_what_was_kept(world: Rollout) -> None:
    """Replay gives the same decision: same answers in any order, same policy, same readings."""
    go_on(world, world.loop(), canary_errors=0.4)
    said = DecisionRecorded.model_validate(world.events("decision_recorded")[-1])
    decision, seen = keeping.load_kept(world.store, said.kept_sha256 or "")
    assert decision == said.decision
    events = world.controller.ledger.events(world.product)
    place = next(n for n, event in enumerate(events) if event.kind == "decision_recorded")
    from ml_platform.lineage.replay import Replay

    replay = Replay(world.product).add_all(events[:place])
    assert replay.opened
    traffic = Traffic(replay.opened.epoch, world.watched, world.watched)
    traffic.add(reversed(seen))
    at = max(one.answered_at for one in seen)
    found = traffic.findings(replay.slots[SlotName.CANARY], replay.slots[SlotName.PRODUCTION], at)
    again = decide(Plan(None, world.watched), replay.state(), found, Past(), decision.at)
    assert (again.action, again.readings, again.monitor_policy_sha256) == (
        decision.action,
        decision.readings,
        decision.monitor_policy_sha256,
    )


def test_what_nobody_thought_of_at_one_product_leaves_the_others_watched(world: Rollout, monkeypatch: Any) -> None:
    """It is told with its kind, and the next round tries again."""
    loop = world.loop()
    world.answer(300, canary_errors=0.9)
    seen: list[str] = []

    class Both(Ledger):
        def products(self) -> tuple[str, ...]:
            return ("another", world.product)

    def look_at(product: str) -> None:
        seen.append(product)
        if product == "another":
            raise ZeroDivisionError("of zero")
        original(product)

    object.__setattr__(loop.controller, "ledger", Both(world.url))
    original = loop._look
    monkeypatch.setattr(loop, "_look", look_at)
    assert loop.round()
    assert seen == ["another", world.product]
    assert SlotName.CANARY not in slots(world)
    assert "ZeroDivisionError: of zero" in loop._complaints["another"]


def test_what_stops_does_not_wait_until_all_is_read_again_and_the_page_says_what_was_kept(
    world: Rollout, monkeypatch: Any
) -> None:
    loop, feeds, feed = world.loop(), [], controlling.Feed
    monkeypatch.setattr(controlling, "Feed", lambda *given, **named: feeds.append(1) or feed(*given, **named))
    for module in (traffic, post_mortem):
        monkeypatch.setattr(module, "MOST_SEEN", 100)
    world.answer(300, canary_errors=0.9)
    assert world.look(loop).decision.action is Action.ABORT
    _, seen = keeping.load_kept(world.store, world.events("decision_recorded")[-1]["kept_sha256"])
    assert len(seen) == 100
    assert len(feeds) == 1
    (path,) = world.home.incidents.rglob("*.md")
    assert "The newest 100 answers that the decision used" in path.read_text("utf-8")


def test_what_goes_forward_is_kept_whole_though_not_all_of_it_was_held(world: Rollout, monkeypatch: Any) -> None:
    monkeypatch.setattr(traffic, "MOST_SEEN", 100)
    monkeypatch.setattr(retention, "READ_WITHIN_S", None)
    (decision, *_) = go_on(world, world.loop())
    assert decision.action is Action.STEP_UP
    _, seen = keeping.load_kept(world.store, world.events("decision_recorded")[0]["kept_sha256"])
    assert len(seen) == 600


def test_harm_that_the_door_lets_nobody_stop_is_on_record_once_with_a_page(world: Rollout) -> None:
    """No earlier release may serve again, since nobody trusts the key any more that its evidence is signed by."""
    go_on(world, world.loop())
    before, loop = slots(world), world.successor(world.loop())
    loop.controller = replace(loop.controller, trusted={})
    world.answer(30, errors=1.0)
    decisions = [world.look(loop).decision for _ in range(3)]
    assert {one.action for one in decisions} == {Action.HOLD}
    assert all("no earlier release may serve again" in one.reason for one in decisions)
    assert slots(world) == before
    (recorded,) = (one["decision"] for one in world.events("decision_recorded")[2:])
    assert (recorded["action"], recorded["reason"]) == ("hold", decisions[0].reason)
    assert "did harm" in recorded["incident"]
    (path,) = world.home.incidents.rglob("*.md")
    assert "no earlier release may serve again" in path.read_text("utf-8")


def test_an_incident_that_could_not_be_recorded_is_recorded_at_the_next_look(world: Rollout, monkeypatch: Any) -> None:
    def busy(*_: Any) -> None:
        raise BusyError("somebody else writes")

    loop = world.loop()
    world.answer(100, canary_errors=0.9, errors=0.9)
    with monkeypatch.context() as patch:
        patch.setattr(Controller, "apply", busy)
        loop.round()
    assert "somebody else writes" in loop._complaints[world.product]
    assert world.look(loop).decision.incident == "both arms are degraded"
    world.look(loop)
    assert [one["decision"]["incident"] for one in world.events("decision_recorded")] == ["both arms are degraded"]
