"""What goes forward after more answers than are held: read again beside the looks, which go on meanwhile."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.decided import DecisionRecorded
from ml_platform.contracts.monitoring import Action, Decision, Seen
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import StorageError
from ml_platform.monitoring import keeping
from ml_platform.monitoring.observations import Feed
from ml_platform.release import traffic, watching
from tests.samples.rollouts import Rollout, make_rollout, slots

PATIENCE_S = 60.0
READ = Feed.read


class Slow:
    """A store of answers that is slow for whoever reads beside the looks, until it is let go; `broken`, it fails."""

    def __init__(self) -> None:
        self.gate, self.begun, self.reads, self.broken = threading.Event(), threading.Event(), 0, False

    def read(self, feed: Feed) -> tuple[Seen, ...]:
        if threading.current_thread() is not threading.main_thread():
            self.reads += 1
            self.begun.set()
            self.gate.wait()
            if self.broken:
                raise StorageError("the store went away")
        return READ(feed)


@pytest.fixture
def world(tmp_path: Path) -> Rollout:
    """A canary that may go on: 600 answers, and time has passed."""
    world = make_rollout(tmp_path / "home")
    world.answer(300)
    world.pass_minutes(40)
    world.answer(300)
    return world


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    store = Slow()

    def read(feed: Feed) -> tuple[Seen, ...]:
        return store.read(feed)

    monkeypatch.setattr(traffic, "MOST_SEEN", 100)
    monkeypatch.setattr(Feed, "read", read)
    monkeypatch.setattr(watching, "HELD_S", 0.0)
    yield store
    store.gate.set()


def go_forward(world: Rollout, loop: Any) -> Decision:
    """Looks until what was read again is kept, and the move done."""
    until = time.monotonic() + PATIENCE_S
    while (decision := world.look(loop).decision).action is Action.HOLD:
        assert "are being read again" in decision.reason
        assert time.monotonic() < until
    return decision


def test_a_step_waits_for_what_it_has_to_read_while_looks_go_on_and_is_kept_as_it_was_decided(
    world: Rollout, slow: Slow
) -> None:
    loop = world.loop()
    for _ in range(3):
        decision = world.look(loop).decision
        assert decision.action is Action.HOLD
        assert "Step up was decided" in decision.reason
        assert "are being read again" in decision.reason
    assert slow.begun.wait(PATIENCE_S)
    assert "decision_recorded" not in world.kinds()
    world.answer(50)
    world.look(loop)
    slow.gate.set()
    done = go_forward(world, loop)
    assert done.action is Action.STEP_UP
    said = DecisionRecorded.model_validate(world.events("decision_recorded")[-1])
    kept, seen = keeping.load_kept(world.store, said.kept_sha256 or "")
    assert kept == said.decision == done
    assert len(seen) == 600, "what came later was not decided on"
    assert slow.reads == 1, "the whole is read again once"


def test_harm_that_shows_meanwhile_is_stopped_at_once(world: Rollout, slow: Slow) -> None:
    loop = world.loop()
    assert world.look(loop).decision.action is Action.HOLD
    assert slow.begun.wait(PATIENCE_S)
    world.answer(100, canary_errors=1.0)
    assert world.look(loop).decision.action is Action.ABORT
    assert SlotName.CANARY not in slots(world)
    assert world.events("decision_recorded")[-1]["kept_sha256"]
    slow.gate.set()
    before = world.kinds()
    for _ in range(3):
        assert world.look(loop).decision.action is Action.HOLD
    assert world.kinds() == before


def test_what_could_not_be_read_is_read_anew(world: Rollout, slow: Slow) -> None:
    loop, slow.broken = world.loop(), True
    world.look(loop)
    slow.gate.set()
    until = time.monotonic() + PATIENCE_S
    while "the store went away" not in world.look(loop).decision.reason:
        assert time.monotonic() < until
    slow.broken = False
    until = time.monotonic() + PATIENCE_S
    while world.look(loop).decision.action is not Action.STEP_UP:
        assert time.monotonic() < until


def test_who_looks_once_waits_for_it_within_the_look(world: Rollout, slow: Slow) -> None:
    slow.gate.set()
    assert world.look(world.loop(patient=True)).decision.action is Action.STEP_UP
    assert slow.reads == 1
