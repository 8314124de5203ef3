"""How long users get bad answers: from an injected breach to the last answer of the release that gives them.

    python -m benchmarks.rollback --trials 100 --out results/rollback.json

A gateway with four workers is under a steady load. In each trial a new release goes into production; then the engine is
told to answer for its adapter with what a guardrail takes for unsafe. From then on everybody is on his own: the records
of the answers are shipped, `mlp controller` finds that the hard limit broke and takes production back to the release
before, whole, and the workers swap. Answers count when their last byte has arrived. The limits are those of
flight_assistant: unsafe in more than 10 of 100 answers within a minute, of 10 at least; the healthy answers that the
release gave before (`--healthy` seconds of them) are in that minute, too. Moves are not rationed, since in life there
are not a hundred incidents in a few minutes.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.gateway import Server, engine, our_gateway, process
from benchmarks.load import quantiles
from benchmarks.served_home import ACTOR, PRODUCT, Served, make_served_home
from benchmarks.switch import Seen, ask_steadily, wait_until
from benchmarks.trace import machine
from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.products import load_product
from ml_platform.lineage.ledger import Ledger

MLP = str(Path(sys.executable).with_name("mlp"))
QUIET_S = 0.6
"""So long no answer of the bad release must have come before a trial is over."""

SETTLED_S = 3.0


@dataclass(frozen=True)
class Trial:
    """One breach, in seconds of `time.perf_counter`."""

    release_id: str
    injected: float
    decided: float
    last: float


def rash(policy: MonitorPolicy) -> MonitorPolicy:
    """The product's policy, with as many moves as a benchmark makes."""
    moves = policy.moves.model_copy(update={"cool_down_minutes": 0.0, "max_per_day": 1_000_000})
    return policy.model_copy(update={"moves": moves})


def poison(engine_port: int) -> None:
    """From now on the adapter that was loaded last answers what is unsafe."""
    request = urllib.request.Request(f"http://127.0.0.1:{engine_port}/poison", data=b"{}")
    with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 - likewise
        assert response.status == 200


async def one_trial(served: Served, engine_port: int, release_id: str, healthy_s: float, seen: Seen) -> Trial:
    """A release goes into production, turns bad, and is taken back."""
    product, good = served.product.name, served.releases[0]
    opened = time.perf_counter()
    served.move(await asyncio.to_thread(served.controller.open_canary, product, release_id, datetime.now(UTC), ACTOR))
    await wait_until(lambda: seen.first_of(release_id, opened) is not None, "the canary answers")
    served.move(await asyncio.to_thread(served.controller.promote, product, release_id, datetime.now(UTC), ACTOR))
    await asyncio.sleep(healthy_s)
    injected = time.perf_counter()
    await asyncio.to_thread(poison, engine_port)

    def is_over() -> bool:
        last = next((at for at, whose in reversed(seen.answers) if whose == release_id), injected)
        return time.perf_counter() - last > QUIET_S

    await wait_until(is_over, f"release {release_id[:12]} is gone")
    state = Ledger(served.home.ledger_url).state(product)
    assert state.slots[SlotName.PRODUCTION] == good, "the controller took production back"
    last = max(at for at, whose in seen.answers if whose == release_id)
    return Trial(release_id, injected, decided_at(served, release_id), last)


async def every_worker_answers(seen: Seen) -> None:
    """Returns once nothing failed for a while: workers that just began have no release loaded yet."""
    failed, since = sum(seen.failed.values()), time.perf_counter()
    while time.perf_counter() - since < SETTLED_S:
        await asyncio.sleep(0.1)
        if sum(seen.failed.values()) != failed:
            failed, since = sum(seen.failed.values()), time.perf_counter()


def decided_at(served: Served, release_id: str) -> float:
    """When the rollback was committed, on the clock of the load."""
    events = Ledger(served.home.ledger_url).events(served.product.name, newest=4)
    said = next(one for one in events if one.kind == "decision_recorded" and release_id in str(one.payload))
    assert said.payload["decision"]["action"] == Action.ROLL_BACK
    return time.perf_counter() - (datetime.now(UTC) - said.recorded_at).total_seconds()


async def measure(served: Served, server: Server, engine_port: int, options: argparse.Namespace) -> dict[str, Any]:
    """Trials under load, one after the other."""
    seen, trials = Seen(), []
    load = asyncio.create_task(ask_steadily(server, served.bodies(2_000), options.rate, options.connections, seen))
    await wait_until(lambda: len(seen.answers) > options.rate, "the gateway answers")
    await every_worker_answers(seen)
    begin, seen.moving = time.perf_counter(), True
    for release_id in served.releases[1:]:
        trials.append(await one_trial(served, engine_port, release_id, options.healthy, seen))
        print(
            f"\r{len(trials)} of {options.trials}: {trials[-1].last - trials[-1].injected:.2f} s",
            end="",
            file=sys.stderr,
        )
        sys.stderr.flush()
    print(file=sys.stderr)
    seconds = time.perf_counter() - begin
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)
    return {
        "trials": len(trials),
        "seconds": seconds,
        "answers": len(seen.answers),
        "failed": dict(seen.failed),
        "replies": dict(seen.replies),
        "latency_ms": quantiles(seen.latencies),
        "each_ms": [round(1000 * (one.last - one.injected)) for one in trials],
        "breach_to_last_bad_answer_ms": quantiles([one.last - one.injected for one in trials]),
        "breach_to_decision_ms": quantiles([one.decided - one.injected for one in trials]),
        "decision_to_last_bad_answer_ms": quantiles([max(0.0, one.last - one.decided) for one in trials]),
    }


def main() -> None:
    """Measures, prints the figures, and writes them when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=100.0, help="questions a second")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--healthy", type=float, default=0.5, help="seconds for which a release is good in production")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        watched = rash(load_product(PRODUCT).monitor_policy)
        served = make_served_home(folder / "home", 1 + options.trials, watched)
        home = {"ML_PLATFORM_HOME": str(served.home.root)}
        with (
            engine(folder) as engine_port,
            our_gateway(served, folder, engine_port, workers=options.workers, core=None) as server,
            process([MLP, "ship"], folder / "ship.log", **home),
            process([MLP, "controller"], folder / "controller.log", **home),
        ):
            try:
                found = uvloop.run(measure(served, server, engine_port, options))
            except BaseException:
                print((folder / "controller.log").read_text("utf-8")[-3000:], file=sys.stderr)
                raise
    results = {"machine": machine(), "workers": options.workers, "rate": options.rate, **found}
    print(json.dumps(results, indent=2))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
