"""How fast the ledger is: moves, replay, verification of a release, hashing of artifacts.

    python -m benchmarks.ledger --out results/ledger.json

SQLite and a real PostgreSQL with fsync on, both on the local disk. A move goes through the controller: pausing only
compares epochs, resuming verifies the evidence of all 12 gates again. A replay reads and checks a chain of releases
with 12 verdicts each from nothing. Hashing is what an artifact store does before every use, beside `sha256sum` on
the same files, which are in the page cache. Contenders take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from benchmarks.chain_overhead import machine
from ml_platform.contracts.canonical import digest
from ml_platform.contracts.events import (
    EvidenceRecorded,
    Payload,
    PolicyRecorded,
    ReleaseEligible,
    ReleaseRegistered,
)
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.policy import PromotionPolicy
from ml_platform.contracts.slot_moves import CanaryOpened, CanaryReplaced
from ml_platform.lineage.artifact_files import describe, verify_files
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.ledger_rows import row_of
from ml_platform.lineage.ledger_schema import events
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.verification import assess_evidence
from ml_platform.release.controller import Controller
from tests.samples.postgres import make_database, running_postgres
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

ROOT = Path(__file__).resolve().parent.parent
REPLAY = """
import sys
from ml_platform.lineage.ledger import Ledger
Ledger(sys.argv[1]).replay(sys.argv[2])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""Not getrusage: a child's begins with what its parent used."""

GATES = 12
TARGET_REPLAY_SECONDS = 5.0
TARGET_EVENTS = 100_000
TARGET_VERIFY_MS = 20.0
KEY = SigningKey.generate()
STORES = ("SQLite", "PostgreSQL")
LATER = NOW + timedelta(days=30)


@dataclass(frozen=True)
class Figures:
    """What was measured, by store where it depends on one."""

    moves_per_s: dict[str, float]
    replay_s: dict[str, float]
    replay_cpu_s: dict[str, float]
    replay_events: int
    replay_peak_mb: float
    verify_ms: float
    read_and_verify_ms: dict[str, float]
    hash_mb_per_s: float
    sha256sum_mb_per_s: float


def twelve_gates() -> PromotionPolicy:
    """The sample policy with checks added until it has 12 gates."""
    gates = [gate.model_dump(mode="json") for gate in make_policy().gates]
    names = [f"further_check_{number}" for number in range(GATES - len(gates))]
    return make_policy(gates=gates + [{"kind": "check", "gate": name, "claim": "c", "check": name} for name in names])


def open_release(url: str, policy: PromotionPolicy) -> Controller:
    """A controller on a new ledger whose canary is a proven release."""
    controller, release = (
        Controller(Ledger(url), trusting(KEY), PRODUCER, trusting(OPERATOR)),
        make_release(policy=policy),
    )
    pin(controller, policy)
    controller.register_release(release, policy, NOW, "bench")
    controller.record_verdicts(release, make_results(policy), inputs_of(release), KEY, NOW, "bench")
    controller.open_canary(PRODUCT, release.release_id, NOW, "bench")
    return controller


def moves_per_second(url: str, policy: PromotionPolicy, moves: int) -> float:
    """Pauses and resumes a canary, one after the other, each expecting the epoch of the one before."""
    controller, release_id = open_release(url, policy), make_release(policy=policy).release_id
    epoch, began = controller.state(PRODUCT).epoch, time.perf_counter()
    for number in range(moves):
        move = controller.resume_canary if number % 2 else controller.pause_canary
        epoch = move(PRODUCT, release_id, "bench", NOW, "bench", epoch).epoch
    return moves / (time.perf_counter() - began)


def make_chain(policy: PromotionPolicy, length: int) -> list[dict[str, Any]]:
    """Rows of a legal chain: release after release, each with 12 verdicts, through the canary slot."""
    replay, rows = Replay(PRODUCT), []
    for payload in _payloads(policy):
        if len(rows) == length:
            break
        event = replay.next_event(payload, recorded_at=NOW, actor="bench")
        replay.add(event)
        rows.append(row_of(event))
    return rows


def _payloads(policy: PromotionPolicy) -> Iterator[Payload]:
    yield PolicyRecorded(policy=policy)
    policy_sha256, canary, day = policy.sha256, "", date(2013, 1, 1)
    while True:
        release, day = make_release(day, policy=policy), day + timedelta(days=1)
        release_id = release.release_id
        yield ReleaseRegistered(release=release)
        for gate in policy.gate_names:
            yield EvidenceRecorded(
                release_id=release_id,
                gate=gate,
                verdict=Verdict.PASS,
                policy_sha256=policy_sha256,
                envelope_sha256=digest([release_id, gate]),
                expires_at=LATER,
            )
        yield ReleaseEligible(release_id=release_id, policy_sha256=policy_sha256, expires_at=LATER)
        if canary:
            yield CanaryReplaced(release_id=canary, by=release_id)
        yield CanaryOpened(release_id=release_id, step=1, exposure=0.05)
        canary = release_id


def store_chain(url: str, rows: list[dict[str, Any]]) -> None:
    """Writes the rows past the controller: this measures reading them."""
    engine = Ledger(url)._engine
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        for first in range(0, len(rows), 1000):
            connection.execute(insert(events), rows[first : first + 1000])


def replay_seconds(url: str, length: int, clock: Callable[[], float]) -> float:
    """A replay of the whole chain, by a reader that knows nothing of it."""
    ledger, began = Ledger(url), clock()
    assert ledger.replay(PRODUCT).sequence == length
    return clock() - began


def peak_memory_mb(url: str) -> float:
    """The most memory that a fresh process needs for a replay, its imports included."""
    return int(subprocess.check_output([sys.executable, "-c", REPLAY, url, PRODUCT], cwd=ROOT, text=True)) / 1024


def verify_ms(controller: Controller, policy: PromotionPolicy, repeats: int, *, read: bool) -> float:
    """Median time to verify one release's envelopes; with `read`, also to read its chain and them from the ledger."""
    release, times = make_release(policy=policy), []
    envelopes = controller.ledger.envelopes(PRODUCT, release.release_id)
    assert len(envelopes) == GATES
    for _ in range(repeats):
        began = time.perf_counter()
        held = controller.ledger.envelopes(PRODUCT, release.release_id) if read else envelopes
        assert assess_evidence(held, controller.trusted, policy, release, NOW).eligible
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def hashing_rates(folder: Path, megabytes: int, turns: int) -> tuple[float, float]:
    """MB/s of an artifact's verification and of `sha256sum`: one large file and a hundred of 64 KiB."""
    (folder / "model.safetensors").write_bytes(os.urandom(1 << 20) * megabytes)
    for number in range(100):
        (folder / f"part-{number:03}.parquet").write_bytes(os.urandom(1 << 16))
    manifest = describe("candidate", {}, folder, {})
    size = sum(file.size_bytes for file in manifest.files.values()) / 1e6
    command = ["sha256sum", *(str(folder / name) for name in manifest.files)]
    ours, theirs = [], []
    for _ in range(turns):
        ours.append(_seconds(lambda: verify_files(folder, manifest, manifest.sha256)))
        theirs.append(_seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)))
    return size / statistics.median(ours), size / statistics.median(theirs)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def stores(folder: Path) -> Iterator[dict[str, Callable[[], str]]]:
    """What makes the URL of a new ledger, by store; PostgreSQL only where it is installed."""
    numbers = iter(range(1000))
    made: dict[str, Callable[[], str]] = {"SQLite": lambda: f"sqlite:///{folder / f'{next(numbers)}.sqlite'}"}
    with running_postgres(fsync=True) as server:
        if server is not None:
            made["PostgreSQL"] = lambda: make_database(server)
        yield made


def measure(folder: Path, length: int, moves: int, megabytes: int) -> Figures:
    """All of it; stores take turns, three times, and the median counts."""
    policy = twelve_gates()
    artifact = folder / "artifact"
    artifact.mkdir()
    hashing, sha256sum = hashing_rates(artifact, megabytes, turns=5)
    with stores(folder) as made:
        controllers = {name: open_release(url(), policy) for name, url in made.items()}
        verified = verify_ms(next(iter(controllers.values())), policy, 200, read=False)
        read = {name: verify_ms(one, policy, 50, read=True) for name, one in controllers.items()}
        moved = [{name: moves_per_second(url(), policy, moves) for name, url in made.items()} for _ in range(3)]
        rows = make_chain(policy, length)
        chains = {name: url() for name, url in made.items()}
        for url in chains.values():
            store_chain(url, rows)
        del rows
        peak_mb = peak_memory_mb(chains["SQLite"])
        replayed, busy = (
            _medians([{name: replay_seconds(url, length, clock) for name, url in chains.items()} for _ in range(3)])
            for clock in (time.perf_counter, time.process_time)
        )
    return Figures(
        moves_per_s=_medians(moved),
        replay_s=replayed,
        replay_cpu_s=busy,
        replay_events=length,
        replay_peak_mb=peak_mb,
        verify_ms=verified,
        read_and_verify_ms=read,
        hash_mb_per_s=hashing,
        sha256sum_mb_per_s=sha256sum,
    )


def _medians(turns: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def markdown(found: Figures) -> str:
    """The results as the tables of docs/benchmarks.md."""
    lines = ["| what | SQLite | PostgreSQL | target |", "| --- | ---: | ---: | --- |"]
    replay_target = TARGET_REPLAY_SECONDS * found.replay_events / TARGET_EVENTS
    rows: list[tuple[str, dict[str, float], str, float | None]] = [
        ("moves/s", found.moves_per_s, ",.0f", None),
        (f"replay of {found.replay_events:,} events, s", found.replay_s, ".2f", replay_target),
        ("… of which this process computes, s", found.replay_cpu_s, ".2f", None),
        (f"reading and verifying a release with {GATES} gates, ms", found.read_and_verify_ms, ".1f", TARGET_VERIFY_MS),
    ]
    for what, by_store, form, target in rows:
        told = [format(by_store[name], form) if name in by_store else "not installed" for name in STORES]
        lines.append(f"| {what} | {' | '.join(told)} | {_verdict(max(by_store.values()), target)} |")
    lines += ["", "| what | measured |", "| --- | ---: |"]
    lines.append(f"| verifying its {GATES} envelopes alone, ms | {found.verify_ms:.1f} |")
    lines.append(f"| peak memory of a process that replays, MB | {found.replay_peak_mb:,.0f} |")
    lines.append(f"| hashing an artifact, MB/s | {found.hash_mb_per_s:,.0f} |")
    lines.append(f"| `sha256sum` on the same files, MB/s | {found.sha256sum_mb_per_s:,.0f} |")
    return "\n".join(lines)


def _verdict(worst: float, target: float | None) -> str:
    return "" if target is None else f"at most {target:g}: {'met' if worst <= target else '**missed**'}"


def main() -> None:
    """Measures, prints Markdown, and writes JSON when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=TARGET_EVENTS, help="length of the chain that is replayed")
    parser.add_argument("--moves", type=int, default=200, help="moves by store and turn")
    parser.add_argument("--megabytes", type=int, default=512, help="size of the artifact that is hashed")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ledger-") as scratch:
        found = measure(Path(scratch), options.events, options.moves, options.megabytes)
    print(f"\non {machine()}\n\n{markdown(found)}\n")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"machine": machine(), **vars(found)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
