"""A writer that is killed at any moment leaves the ledger whole, on SQLite and on a real PostgreSQL."""

import random
import signal
from collections.abc import Iterator
from itertools import pairwise
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from ml_platform.contracts.events import Event, EventKind
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.replay import Replay
from tests.samples.ledger_writers import FORKS, POLICY, write_until_killed
from tests.samples.postgres import make_database
from tests.samples.releases import OPERATOR, PRODUCT, trusting

pytestmark = pytest.mark.early

KILLS_A_LEDGER = 10
STEPS_A_RELEASE = 100
LONGEST_LIFE_S = 0.1


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """New ledgers without end: a long one would take long to verify after every kill."""
    if request.param == "sqlite":
        return (f"sqlite:///{tmp_path / f'{number}.sqlite'}" for number in range(1000))
    server = request.getfixturevalue("postgres")
    return iter(lambda: make_database(server), None)


def run_and_kill(url: str, key: SigningKey, first: int, life_s: float | None, fatal_step: int | None) -> list[str]:
    """What a writer told before it was killed: by us after `life_s`, or by itself at a step of a transaction."""
    here, there = FORKS.Pipe(duplex=False)
    writer = FORKS.Process(target=write_until_killed, args=(url, key.signer.private_bytes, first, fatal_step, there))
    writer.start()
    there.close()
    told: list[str] = []
    with here:
        if life_s is not None:
            assert here.recv_bytes() == b"ready"
            told.append("ready")
            wait([writer.sentinel], timeout=life_s)
            writer.kill()
        try:
            while True:
                told.append(here.recv_bytes().decode())
        except EOFError:
            writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert told.pop(0) == "ready"
    return told


def check_whole(url: str, key: SigningKey, told: list[str]) -> int:
    """Nothing that was told is lost, nothing is doubled, nothing is half done; returns how many releases there are."""
    ledger = Ledger(url)
    assert len(ledger.verify(trusting(key), trusting(OPERATOR))) <= 1
    events = ledger.events(PRODUCT)
    assert [event.kind for event in events[:2]] in ([], [EventKind.POLICY_RECORDED, EventKind.POLICY_PINNED])
    opened = {event.epoch: event.payload["release_id"] for event in events if event.kind is EventKind.CANARY_OPENED}
    assert {int(epoch): release_id for epoch, release_id in map(str.split, told)}.items() <= opened.items()
    assert len(set(opened.values())) == len(opened), "no release was opened twice"
    state = Replay(PRODUCT).add_all(events).state()
    assert list(state.slots.values()) == list(opened.values())[-1:], "the canary is the last that was opened"
    assert all(said_in_one_piece(events, release_id) for release_id in state.releases)
    replaced = [(one, other) for one, other in pairwise(events) if one.kind is EventKind.CANARY_REPLACED]
    assert all(one.payload["by"] == other.payload["release_id"] for one, other in replaced)
    assert len(replaced) == max(len(opened) - 1, 0)
    return len(state.releases)


def said_in_one_piece(events: tuple[Event, ...], release_id: str) -> bool:
    """All verdicts of a release and what follows from them, once and in one piece, or none of it."""
    said = [event for event in events if event.payload.get("release_id") == release_id and not event.kind.moves]
    whole = [EventKind.EVIDENCE_RECORDED] * len(POLICY.gate_names) + [EventKind.RELEASE_ELIGIBLE]
    return not said or (
        [event.kind for event in said] == whole and len(said) - 1 == said[-1].sequence - said[0].sequence
    )


def survive(urls: Iterator[str], kills: int) -> None:
    """Every other writer dies inside a transaction at a step that we choose, the rest when we kill them."""
    key, chance = SigningKey.generate(), random.Random(7)  # noqa: S311 - moments to kill at, no secret
    opened, releases = 0, 0
    for number in range(kills):
        if number % KILLS_A_LEDGER == 0:
            url, releases = next(urls), 0
        # The last release again: it may be registered, judged, or open already.
        first = max(releases - 1, 0)
        if number % 2:
            told = run_and_kill(url, key, first, life_s=chance.uniform(0.0, LONGEST_LIFE_S), fatal_step=None)
        else:
            told = run_and_kill(url, key, first, life_s=None, fatal_step=chance.randint(10, 2 * STEPS_A_RELEASE))
        releases = check_whole(url, key, told)
        opened += len(told)
    assert opened > kills / 10, "writers got somewhere"


@pytest.mark.parametrize("kills", [40, pytest.param(200, marks=pytest.mark.full_size)])
def test_kills_lose_double_and_halve_nothing(urls: Iterator[str], kills: int) -> None:
    survive(urls, kills)
