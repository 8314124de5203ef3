"""Controllers that are killed at any point, and two that work at once: every move is made once, with its word."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from ml_platform.contracts.events import EventKind
from ml_platform.contracts.home import Home
from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.policy import SlotName
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.looks import LookStore
from ml_platform.release.controlling import ControllerLoop
from tests.properties.life_attacks import in_a_child, kill_oneself
from tests.samples.releases import OPERATOR
from tests.samples.rollouts import Rollout, go_on, make_rollout, slots

MLP = str(Path(sys.executable).with_name("mlp"))
PATIENCE_S = 180.0
STATEMENTS = 60


def everything_fits(world: Rollout) -> None:
    """The ledger verifies, and every automatic move stands right behind the one decision that asked for it."""
    ledger = Ledger(world.url)
    ledger.verify(world.trust.evidence, world.trust.operators)
    events = ledger.events(world.product)
    for before, after in pairwise(events):
        if after.kind.moves and after.actor.startswith("controller"):
            assert before.kind in (EventKind.DECISION_RECORDED, EventKind.CANARY_REPLACED), after.where
            assert before.actor == after.actor
    moved = [one.payload["decision"] for one in events if one.kind is EventKind.DECISION_RECORDED]
    moves = [(one["epoch"], one["action"]) for one in moved if one["action"] != "hold"]
    assert len(moves) == len(set(moves)), "a decision was carried out twice"


@pytest.fixture
def bad(tmp_path: Path) -> Rollout:
    """A world whose canary has broken its limits, and nobody has looked yet."""
    world = make_rollout(tmp_path / "home")
    world.answer(300, canary_errors=0.9)
    return world


def copied(world: Rollout, folder: Path) -> Rollout:
    """The same world somewhere else."""
    world.records.close()
    world.looks.close()
    shutil.copytree(world.home.root, folder)
    home = Home(folder)
    return Rollout(home, home.ledger_url, key=world.key, watched=world.watched)


def dies_at(loop: ControllerLoop, fatal: int) -> None:
    """SIGKILL to this very process at a statement or commit on the ledger or on the looks."""
    steps = count(1)

    def step(*_: Any) -> None:
        if next(steps) == fatal:
            kill_oneself()

    for engine in (loop.controller.ledger._engine, loop.looks._engine):
        for moment in ("before_cursor_execute", "commit"):
            event.listen(engine, moment, step)


def test_killed_at_any_statement_the_next_one_does_what_is_left_once(bad: Rollout, tmp_path: Path) -> None:
    """The lease of the dead one runs out; here it is taken away at once."""
    ends, killed = set(), 0
    for fatal in range(1, STATEMENTS):
        world = copied(bad, tmp_path / f"copy-{fatal}")

        def work(world: Rollout = world, fatal: int = fatal) -> None:
            loop = world.loop("controller-dead")
            dies_at(loop, fatal)
            loop.round()

        survived = in_a_child(work)
        killed += not survived
        world.looks.drop_lease("controller", "controller-dead")
        world.look(world.loop("controller-next"))
        everything_fits(world)
        assert SlotName.CANARY not in slots(world)
        ends.add(tuple(world.kinds()[-2:]))
        assert len(list(world.home.incidents.rglob("*.md"))) == 1
        shutil.rmtree(world.home.root)
        if survived:
            break
    assert killed > 10
    assert ends == {("decision_recorded", "canary_aborted")}


def test_two_controllers_that_both_believe_to_lead_do_no_harm(tmp_path: Path) -> None:
    """Each has a lease store of its own, as when that store was down."""
    world = make_rollout(tmp_path / "home")
    loops = [world.loop("controller-a"), world.loop("controller-b")]
    for number, loop in enumerate(loops):
        loop.looks = LookStore(f"sqlite:///{tmp_path / f'looks-{number}.sqlite'}")
    ended = threading.Event()
    threads = [threading.Thread(target=loop.run, args=(0.01, ended)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + PATIENCE_S
        while SlotName.CANARY in slots(world):
            assert time.monotonic() < end, "the canary does not get on"
            world.answer(100)
            world.pass_minutes(15)
            time.sleep(0.05)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    everything_fits(world)
    actions = [one["decision"]["action"] for one in world.events("decision_recorded")]
    assert actions == ["step_up", "promote"]


def test_a_second_controller_stands_by_until_the_first_is_gone(bad: Rollout) -> None:
    first, second = bad.loop("controller-1"), bad.loop("controller-2")
    assert first._leads()
    assert not second.round()
    assert SlotName.CANARY in slots(bad)
    bad.looks.drop_lease("controller", "controller-1")
    second._renewed = float("-inf")
    assert second.round()
    assert SlotName.CANARY not in slots(bad)


def test_a_store_of_looks_that_is_down_stops_no_decision(bad: Rollout, tmp_path: Path) -> None:
    loop = bad.loop()
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"no database" * 100)
    loop.looks = LookStore(f"sqlite:///{broken}")
    assert bad.look(loop).decision.action is Action.ABORT
    assert set(loop._complaints) == {"lease", "looks"}


class Processes:
    """`mlp controller` as processes."""

    def __init__(self, world: Rollout, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "ML_PLATFORM_HOME": str(self.world.home.root),
            "ML_PLATFORM_TRUSTED_KEYS": self.world.key.public.public_key,
            "ML_PLATFORM_TRUSTED_OPERATORS": OPERATOR.public.public_key,
        }
        with (self.folder / "controller.log").open("ab") as log:
            process = subprocess.Popen([MLP, "controller", "--every", "0.05"], env=environment, stdout=log, stderr=log)
        self.running.append(process)
        return process

    def stop(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait(PATIENCE_S)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(make_rollout(tmp_path / "home"), tmp_path)
    try:
        yield started
    finally:
        started.stop()


def test_a_controller_that_is_killed_again_and_again_brings_a_canary_into_production(processes: Processes) -> None:
    """SIGKILL at any moment; who starts next reads on, and takes over when the lease of the dead one ran out."""
    world, chance = processes.world, random.Random(3)  # noqa: S311 - when to kill
    canary, kills = slots(world)[SlotName.CANARY], 0
    process, end = processes.start(), time.monotonic() + PATIENCE_S
    while SlotName.CANARY in slots(world):
        assert time.monotonic() < end, (processes.folder / "controller.log").read_text("utf-8")[-3000:]
        world.answer(60)
        world.pass_minutes(10)
        time.sleep(chance.uniform(0.0, 0.5))
        if kills < 5 and chance.random() < 0.15 and (world.looks.lease_holder("controller") or kills == 0):
            process.kill()
            process.wait()
            world.looks.drop_lease("controller", world.looks.lease_holder("controller") or "")
            kills += 1
            process = processes.start()
    everything_fits(world)
    assert slots(world) == {SlotName.PRODUCTION: canary}
    assert kills >= 1
    while f" {process.pid}@" not in (world.looks.lease_holder("controller") or ""):  # it may have been started just now
        assert time.monotonic() < end, "the last controller does not get on"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    assert world.looks.lease_holder("controller") is None


def test_a_step_is_not_taken_twice_after_a_restart(tmp_path: Path) -> None:
    """What a restarted controller knows of time and users at this step, it has from the records."""
    world = make_rollout(tmp_path / "home")
    loop = world.loop()
    world.answer(150)
    world.pass_minutes(40)
    world.answer(150)
    assert world.look(loop).decision.action is Action.STEP_UP
    for _ in range(3):
        loop = world.successor(loop, f"controller-{_}")
        assert world.look(loop).decision.action is Action.HOLD
    assert [one.action for one in go_on(world, loop)] == [Action.PROMOTE]
