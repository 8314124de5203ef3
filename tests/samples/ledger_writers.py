"""Processes that write to a ledger, forked from one that has imported everything: killed ones, and ones that race."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from datetime import date, timedelta
from itertools import count
from multiprocessing.connection import Connection
from threading import BrokenBarrierError
from typing import Any, Protocol

from sqlalchemy import event

from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.slot_moves import CanaryPaused, CanaryResumed
from ml_platform.errors import BusyError, EpochConflictError, StorageError
from ml_platform.lineage import databases
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.release.controller import Controller, Move
from tests.samples.releases import (
    NOW,
    OPERATOR,
    PRODUCER,
    PRODUCT,
    inputs_of,
    make_policy,
    make_release,
    make_results,
    pin,
    trusting,
)

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])

POLICY = make_policy()


class Barrier(Protocol):
    """What multiprocessing's barrier offers here."""

    def wait(self) -> int: ...
    def abort(self) -> None: ...


def write_until_killed(url: str, pem: bytes, first: int, fatal_step: int | None, tell: Connection) -> None:
    """Carries one release after the other into the canary slot and tells of each; never returns.

    With `fatal_step` it kills itself at that moment: before or after a statement, before a commit.
    """
    key = SigningKey.from_pem(pem, "key.pem")
    controller = Controller(Ledger(url), trusting(key), PRODUCER, trusting(OPERATOR))
    if fatal_step is not None:
        die_at(controller.ledger, fatal_step)
    tell.send_bytes(b"ready")
    pin(controller, POLICY)
    for number in count(first):
        release = make_release(date(2013, 1, 1) + timedelta(days=number), policy=POLICY)
        controller.register_release(release, POLICY, NOW, "writer")
        controller.record_verdicts(release, make_results(POLICY), inputs_of(release), key, NOW, "writer")
        move = controller.open_canary(PRODUCT, release.release_id, NOW, "writer")
        assert isinstance(move, Move)
        tell.send_bytes(f"{move.epoch} {release.release_id}".encode())


def stop_in_the_middle(url: str, tell: Connection) -> None:
    """Stops itself before the end of a transaction; once it goes on, tells what became of it."""
    databases.HELD_BY_SILENCE_MS = 300
    try:
        with Ledger(url).write(PRODUCT, NOW, "stopped") as transaction:
            transaction.append(CanaryPaused(release_id=transaction.state.slots[SlotName.CANARY], reason="never said"))
            tell.send("inside")
            os.kill(os.getpid(), signal.SIGSTOP)
    except StorageError as error:
        tell.send(str(error))
    else:
        tell.send("recorded")


def die_at(ledger: Ledger, fatal_step: int) -> None:
    """SIGKILL to this very process at a step of its work on the database: nothing of it gets to clean up."""
    steps = count(1)

    def step(*_: Any) -> None:
        if next(steps) == fatal_step:
            os.kill(os.getpid(), signal.SIGKILL)

    for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(ledger._engine, moment, step)


def race(url: str, release_id: str, rounds: int, barrier: Barrier, tell: Connection, actor: str) -> None:
    """In each round moves the canary, paused or resumed, if the epoch is still the round's; tells who won which.

    Tells a list: "won", "late", or what else happened, which ends the race for everybody.
    """
    ledger, outcomes = Ledger(url), []
    first = ledger.state(PRODUCT).epoch
    try:
        for number in range(rounds):
            moves = CanaryPaused if number % 2 == 0 else CanaryResumed
            payload = moves(release_id=release_id, reason="a race")

            def attempt(epoch: int = first + number, payload: CanaryPaused | CanaryResumed = payload) -> None:
                with ledger.write(PRODUCT, NOW, actor) as transaction:
                    transaction.expect_epoch(epoch)
                    transaction.append(payload)

            barrier.wait()
            outcomes.append(_outcome_of(attempt))
    except BrokenBarrierError:
        outcomes.append("somebody else gave up")
    except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
        barrier.abort()
        outcomes.append(repr(error))
    tell.send(outcomes)


def _outcome_of(attempt: Callable[[], None]) -> str:
    while True:
        try:
            attempt()
        except EpochConflictError:
            return "late"
        except BusyError:
            continue
        return "won"
