"""Sixteen processes race for the same epoch: exactly one wins each. One that is stopped stops no other."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from ml_platform.contracts.events import Event
from ml_platform.contracts.slot_moves import CanaryPaused
from ml_platform.errors import BusyError
from ml_platform.lineage import databases
from ml_platform.lineage.ledger import Ledger
from tests.samples.ledger_writers import FORKS, race, stop_in_the_middle
from tests.samples.postgres import make_database
from tests.samples.releases import NOW, PRODUCT, trusting
from tests.unit.test_ledger import KEY, RELEASE, fill

pytestmark = pytest.mark.early

RACERS = 16


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    return make_database(request.getfixturevalue("postgres"))


def run_race(url: str, rounds: int) -> list[list[str]]:
    """What each racer tells of each round."""
    barrier, racers, ends = FORKS.Barrier(RACERS), [], []
    for number in range(RACERS):
        here, there = FORKS.Pipe(duplex=False)
        racers.append(
            FORKS.Process(target=race, args=(url, RELEASE.release_id, rounds, barrier, there, f"racer {number}"))
        )
        racers[-1].start()
        there.close()
        ends.append(here)
    told = [end.recv() for end in ends]
    for racer in racers:
        racer.join()
    return told


def check_race(url: str, rounds: int) -> None:
    first = fill(url).state(PRODUCT)
    told = run_race(url, rounds)
    assert {outcome for outcomes in told for outcome in outcomes} <= {"won", "late"}
    for number, outcomes in enumerate(zip(*told, strict=True)):
        assert Counter(outcomes) == {"won": 1, "late": RACERS - 1}, f"round {number}"
    ledger = Ledger(url)
    assert ledger.verify(trusting(KEY))
    assert ledger.state(PRODUCT).epoch == first.epoch + rounds
    raced: tuple[Event, ...] = ledger.events(PRODUCT)[first.sequence :]
    winners = [f"racer {outcomes.index('won')}" for outcomes in zip(*told, strict=True)]
    assert [event.actor for event in raced] == winners, "who was told to have won is who is on record"


@pytest.mark.parametrize("rounds", [80, pytest.param(1_000, marks=pytest.mark.full_size)])
def test_one_of_sixteen_processes_wins_each_epoch(url: str, rounds: int) -> None:
    check_race(url, rounds)


def pause(url: str) -> None:
    with Ledger(url).write(PRODUCT, NOW, "other") as transaction:
        transaction.append(CanaryPaused(release_id=RELEASE.release_id, reason="harm"))


def test_a_writer_waits_for_another_for_a_limited_time_only(
    postgres: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_database(postgres)
    with fill(url).write(PRODUCT, NOW, "slow"):
        monkeypatch.setattr(databases, "LOCK_WAIT_MS", 200)
        with pytest.raises(BusyError, match="another process has been writing for long"):
            pause(url)
    pause(url)


def test_a_stopped_writer_is_dismissed_and_the_next_one_goes_on(postgres: str | None) -> None:
    url = make_database(postgres)
    before = fill(url).state(PRODUCT)
    here, there = FORKS.Pipe(duplex=False)
    stopped = FORKS.Process(target=stop_in_the_middle, args=(url, there))
    stopped.start()
    try:
        assert here.recv() == "inside"
        pause(url)
        os.kill(stopped.pid or 0, signal.SIGCONT)
        assert here.recv().endswith("Nothing was recorded.")
    finally:
        stopped.kill()
        stopped.join()
    ledger = Ledger(url)
    assert ledger.verify(trusting(KEY))
    assert [event.actor for event in ledger.events(PRODUCT)[before.sequence :]] == ["other"]
