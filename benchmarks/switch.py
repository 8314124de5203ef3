"""How long after a move an answer of the old release still comes, and whether any question fails meanwhile.

    python -m benchmarks.switch --moves 100 --out results/switch.json

A gateway with four workers is under a steady load while the controller promotes a release and rolls it back, another
one each time, since what was rolled back is in quarantine. A move counts from the moment at which its ledger
transaction is committed; answers count when their last byte has arrived. Everything of the gateway is on; the engine
answers at once.
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.gateway import CHAT, Server, engine, our_gateway
from benchmarks.load import Answer, Connection, Plan, connect, quantiles
from benchmarks.served_home import ACTOR, Served, make_served_home
from benchmarks.trace import machine

RELEASE = re.compile(rb"\r\nx-release-id: *(\S+)", re.IGNORECASE)
CODE = re.compile(rb'"code": ?"(\w+)"')
STATUS = re.compile(rb"\r\nx-status: *(\S+)", re.IGNORECASE)
PATIENCE_S = 30.0


@dataclass
class Seen:
    """What the load has seen: when each answer came and whose it was."""

    answers: list[tuple[float, str]] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    moving: bool = False

    def first_of(self, release_id: str, since: float) -> float | None:
        """When the first answer of a release came after a moment."""
        return next((at for at, whose in self.answers if whose == release_id and at >= since), None)


@dataclass(frozen=True)
class Moved:
    """A move of production: what it was, when it was committed, from which release to which."""

    kind: str
    committed: float
    old: str
    new: str
    move_s: float


async def ask_steadily(server: Server, bodies: list[str], rate: float, connections: int, seen: Seen) -> None:
    """Questions at a steady rate until cancelled, each over a free connection."""
    plan = Plan(server.port, CHAT, server.headers, bodies, 0.0)
    requests, free = plan.requests(), [await connect(server.port) for _ in range(connections)]
    tasks: set[asyncio.Task[None]] = set()

    async def ask(number: int, connection: Connection, due: float) -> None:
        try:
            answer = await connection.ask(requests[number % len(requests)])
        except (ConnectionError, TimeoutError) as error:
            seen.failed[type(error).__name__] += 1
            free.append(await connect(server.port))
            return
        free.append(connection)
        note(seen, answer)
        seen.latencies.append(answer.last_byte - due)

    begin, number = time.perf_counter(), 0
    while True:
        due = begin + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        # Taken from the front, so that all connections, and with them all workers, have their turn.
        connection = free.pop(0) if free else await connect(server.port)
        task = asyncio.create_task(ask(number, connection, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1


def note(seen: Seen, answer: Answer) -> None:
    """Takes one answer down; what failed by its code, and whether that was before the first move."""
    release, reply = RELEASE.search(answer.head), STATUS.search(answer.head)
    if answer.status != 200 or release is None:
        code = CODE.search(answer.body)
        when = "" if seen.moving else " before the first move"
        seen.failed[f"{answer.status} {code[1].decode() if code else ''}{when}"] += 1
        return
    seen.answers.append((answer.last_byte, release[1].decode()))
    seen.replies[reply[1].decode() if reply else "?"] += 1


async def wait_until(true: Callable[[], bool], what: str) -> None:
    """Returns once it is so."""
    end = time.perf_counter() + PATIENCE_S
    while not true():
        if time.perf_counter() > end:
            raise SystemExit(f"after {PATIENCE_S:.0f} s still not: {what}")
        await asyncio.sleep(0.02)


async def move_back_and_forth(served: Served, moves: int, pause_s: float, seen: Seen) -> list[Moved]:
    """Promotes a release and rolls it back, again and again, each after it has been seen to serve."""
    product, good, made = served.product.name, served.releases[0], []

    async def moved(kind: str, old: str, new: str, move: Callable[[], object]) -> None:
        begin = time.perf_counter()
        served.move(await asyncio.to_thread(move))
        made.append(Moved(kind, time.perf_counter(), old, new, time.perf_counter() - begin))
        await asyncio.sleep(pause_s)

    def now() -> datetime:
        return datetime.now(UTC)

    controller = served.controller
    for release_id in served.releases[1 : 1 + moves // 2]:
        opened = time.perf_counter()
        served.move(await asyncio.to_thread(controller.open_canary, product, release_id, now(), ACTOR))

        def is_loaded(one: str = release_id, since: float = opened) -> bool:
            return seen.first_of(one, since) is not None

        await wait_until(is_loaded, f"the canary {release_id[:12]} answers its share of the users")
        promote = partial(controller.promote, product, release_id, now(), ACTOR)
        await moved("promotion", good, release_id, promote)
        back = partial(controller.roll_back, product, "a benchmark", now(), ACTOR)
        await moved("rollback", release_id, good, back)
        print(f"\r{len(made)} of {moves} moves", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return made


async def measure(served: Served, server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Moves under load, and what was seen of them."""
    seen = Seen()
    bodies = served.bodies(2_000)
    load = asyncio.create_task(ask_steadily(server, bodies, options.rate, options.connections, seen))
    await wait_until(lambda: len(seen.answers) > options.rate, "the gateway answers")
    begin, seen.moving = time.perf_counter(), True
    moves = await move_back_and_forth(served, options.moves, options.pause, seen)
    seconds = time.perf_counter() - begin
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)
    return told(moves, seen, seconds)


def told(moves: list[Moved], seen: Seen, seconds: float) -> dict[str, Any]:
    """The figures: from commit to the last answer of the old release, by kind of move."""
    ends = [move.committed for move in moves[1:]] + [float("inf")]
    lags: dict[str, list[float]] = {"promotion": [], "rollback": []}
    for move, end in zip(moves, ends, strict=True):
        late = [at for at, whose in seen.answers if whose == move.old and move.committed <= at < end]
        lags[move.kind].append(max(late) - move.committed if late else 0.0)
    return {
        "moves": len(moves),
        "seconds": seconds,
        "answers": len(seen.answers),
        "per_s": len(seen.answers) / seconds,
        "failed": dict(seen.failed),
        "replies": dict(seen.replies),
        "latency_ms": quantiles(seen.latencies),
        "commit_to_last_old_answer_ms": {
            **{kind: quantiles(found) for kind, found in lags.items()},
            "all": quantiles([lag for found in lags.values() for lag in found]),
        },
        "transaction_ms": quantiles([move.move_s for move in moves]),
    }


def main() -> None:
    """Measures, prints the figures, and writes them when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=200.0, help="questions a second")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two moves")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        served = make_served_home(folder / "home", 1 + options.moves // 2)
        with (
            engine(folder) as engine_port,
            our_gateway(served, folder, engine_port, workers=options.workers, core=None) as server,
        ):
            found = uvloop.run(measure(served, server, options))
    results = {"machine": machine(), "workers": options.workers, "rate": options.rate, **found}
    print(json.dumps(results, indent=2))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
