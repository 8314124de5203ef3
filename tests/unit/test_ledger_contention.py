"""Sixteen processes race for the same epoch: exactly one wins each."""

from collections import Counter
from pathlib import Path

import pytest

from ml_platform.contracts.events import Event
from ml_platform.lineage.ledger import Ledger
from tests.samples.ledger_writers import FORKS, race
from tests.samples.postgres import make_database
from tests.samples.releases import PRODUCT, trusting
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
