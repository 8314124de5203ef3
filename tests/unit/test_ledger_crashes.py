"""A writer that is killed at any moment leaves the ledger whole."""

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from tests.samples.releases import PRODUCT, trusting

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from datetime import date, timedelta
from pathlib import Path
from ml_platform.lineage.keys import SigningKey
from tests.samples.releases import NOW, PRODUCT, inputs_of, make_controller, make_policy, make_release, make_results
from tests.samples.releases import pin

folder = Path(sys.argv[1])
key = SigningKey.from_pem((folder / "key.pem").read_bytes(), "key.pem")
controller, policy = make_controller(folder, key), make_policy()
pin(controller, policy)
print("ready", flush=True)
for number in range(int(sys.argv[2]), 100_000):
    release = make_release(date(2013, 1, 1) + timedelta(days=number))
    controller.register_release(release, policy, NOW, "writer")
    controller.record_verdicts(release, make_results(policy), inputs_of(release), key, NOW, "writer")
    print(controller.open_canary(PRODUCT, release.release_id, NOW, "writer").epoch, flush=True)
"""


def write_until_killed(folder: Path, first: int, seconds: float) -> int:
    """Runs a writer, kills it after it has been ready for so long, and returns the last epoch that it told of."""
    command = [sys.executable, "-c", WRITER, str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        killer = threading.Timer(seconds, writer.send_signal, [signal.SIGKILL])
        killer.start()
        told = [int(line) for line in writer.stdout if line.endswith("\n")]
        killer.join()
    assert writer.returncode == -signal.SIGKILL
    return max(told, default=0)


def survive(folder: Path, kills: int) -> None:
    key = SigningKey.generate()
    (folder / "key.pem").write_bytes(key.signer.private_bytes)
    chance = random.Random(7)  # noqa: S311 - moments to kill at, no secret
    first = 0
    for _ in range(kills):
        told = write_until_killed(folder, first, chance.uniform(0.0, 0.3))
        ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
        chains = ledger.verify(trusting(key))
        state = ledger.state(PRODUCT)
        assert state.epoch >= told, "a move that was reported is there"
        assert len(chains) <= 1
        assert len(state.slots) == (1 if state.epoch else 0), "no canary was closed without the next being open"
        first = len(state.releases)


def test_a_writer_killed_at_any_moment_loses_and_halves_nothing(tmp_path: Path) -> None:
    survive(tmp_path, kills=5)


@pytest.mark.long
def test_two_hundred_kills_lose_and_halve_nothing(tmp_path: Path) -> None:
    survive(tmp_path, kills=200)
