"""Gateways and shippers that are killed at any moment: every acknowledged record is in the store exactly once."""

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ml_platform.lineage.provenance.segments import segments_in
from ml_platform.lineage.provenance.shipping import Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from tests.samples.provenance import NOW, PRODUCT, response_id_of

ROOT = Path(__file__).resolve().parents[2]

GATEWAY = """
import asyncio, sys
from pathlib import Path
from ml_platform.lineage.provenance.wal import WriteAheadLog
from tests.samples.provenance import make_record

folder, first = Path(sys.argv[1]), int(sys.argv[2])
# Small segments: a kill may come while one is sealed and the next is made.
log = WriteAheadLog(folder, segment_bytes=200_000)

async def answer(user):
    for turn in range(1_000_000):
        number = first + turn * 2 + user
        await log.append(make_record(number).log_bytes())
        # The answer leaves here, and only here: one write, so that no line is halved.
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()

async def serve():
    # Two users only: the shipper is to keep up, so that it meets segments which are being written.
    await asyncio.gather(*(answer(user) for user in range(2)))

print("ready", flush=True)
asyncio.run(serve())
"""

SHIPPER = """
import sys
from pathlib import Path
from ml_platform.lineage.provenance import shipping
from ml_platform.lineage.provenance.store import ProvenanceStore

shipping.FRAMES_AT_ONCE = 100
shipper = shipping.Shipper(Path(sys.argv[1]), ProvenanceStore(sys.argv[2]))
shipper.ship()
print("ready", flush=True)
while True:
    shipper.ship()
"""


class Process:
    """A process of ours that is killed after it has been ready for so long, and what it told until then."""

    def __init__(self, program: str, *arguments: str) -> None:
        command = [sys.executable, "-c", program, *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self.told: list[int] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.told = [int(line) for line in self._process.stdout if line.endswith("\n")]

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._reader.join()
        assert self._process.wait() == -signal.SIGKILL, "it died of the kill, of nothing else"
        assert self._process.stdout is not None
        self._process.stdout.close()


def survive(tmp_path: Path, rounds: int, seconds: float) -> int:
    """Two gateways and a shipper, killed at random moments and started again; returns how many answers left."""
    chance = random.Random(11)  # noqa: S311 - moments to kill at, no secret
    folder, url = tmp_path / "log", f"sqlite:///{tmp_path / 'provenance.sqlite'}"
    running: dict[str, Process] = {}
    started = 0
    answered: list[int] = []

    def start(name: str) -> None:
        nonlocal started
        started += 1
        if name == "shipper":
            running[name] = Process(SHIPPER, str(folder), url)
        else:
            running[name] = Process(GATEWAY, str(folder), str(started * 10_000_000))

    names = ("gateway 1", "gateway 2", "shipper")
    for name in names:
        start(name)
    for _ in range(rounds):
        for name in chance.sample(names, len(names)):
            time.sleep(chance.uniform(0.0, seconds))  # the moment of the kill is what is drawn
            running[name].kill()
            answered += running[name].told
            start(name)
    for process in running.values():
        process.kill()
        answered += process.told
    store = ProvenanceStore(url)
    shipper = Shipper(folder, store)
    shipper.ship()
    assert segments_in(folder) == (), "everybody is dead: nothing is left in the log"
    assert store.conflicts() == ()
    stored = [record.response_id for record in store.scan(PRODUCT, NOW, NOW.replace(year=NOW.year + 99))]
    assert len(stored) == len(set(stored))
    assert {response_id_of(number) for number in answered} - set(stored) == set(), "every answer that left is there"
    store.close()
    return len(answered)


def test_whoever_is_killed_every_answer_that_left_has_exactly_one_record(tmp_path: Path) -> None:
    assert survive(tmp_path, rounds=1, seconds=0.5) > 50


@pytest.mark.long
def test_a_hundred_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    assert survive(tmp_path, rounds=34, seconds=0.3) > 1000
