"""Load on an HTTP server over raw sockets: cheap enough that the server is what is measured.

    python -m benchmarks.load --plan plan.json

The plan names the address, headers and bodies (taken in turn), and either `connections` that each ask as soon as they
are answered, or a `rate` at which questions come whatever happens to the ones before: then latency counts from the
moment at which a question was due, so that a server that stalls cannot hide it. Prints one JSON document.
"""

import argparse
import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, cast

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
IN_CHUNKS = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
LAST_CHUNK = b"0\r\n\r\n"
EVENT = b"data: "
STATUS = re.compile(rb"\r\nx-status: *(\S+)", re.IGNORECASE)
GIVE_UP_SECONDS = 30.0


@dataclass
class Answer:
    """One answer as it came: when its first and its last byte did, on the clock `time.perf_counter`."""

    status: int
    head: bytes
    body: bytes
    first_byte: float
    last_byte: float


@dataclass
class Plan:
    """What to ask, where and how fast."""

    port: int
    path: str
    headers: dict[str, str]
    bodies: list[str]
    seconds: float
    connections: int = 16
    rate: float | None = None
    warm_up_seconds: float = 1.0
    core: int | None = None

    def requests(self) -> list[bytes]:
        """The bytes of each request."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{lines}"
        bodies = [body.encode() for body in self.bodies]
        return [head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body for body in bodies]


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one question under way."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiting: asyncio.Future[Answer] | None = None
        self._first_byte = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Protocol."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See Protocol."""
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError(f"the server hung up: {exc}"))

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Answer:
        """The answer to one request. Raises ConnectionError and TimeoutError."""
        if self._transport is None:
            raise ConnectionResetError("the server hung up before")
        self._buffer.clear()
        self._first_byte = 0.0
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await asyncio.wait_for(self._waiting, GIVE_UP_SECONDS)

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See Protocol."""
        now = time.perf_counter()
        self._first_byte = self._first_byte or now
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._waiting is None or self._waiting.done():
            return
        head = bytes(self._buffer[: end + 2])
        if IN_CHUNKS.search(head):
            complete = self._buffer.endswith(LAST_CHUNK)
        else:
            found = LENGTH.search(head)
            complete = len(self._buffer) >= end + 4 + (int(found[1]) if found else 0)
        if complete:
            body = bytes(self._buffer[end + 4 :])
            self._waiting.set_result(Answer(int(head[9:12]), head, body, self._first_byte, now))


async def connect(port: int) -> Connection:
    """A connection to a port of this machine."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


@dataclass
class Tally:
    """What came of the questions after the warm-up."""

    latencies: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)
    events: int = 0
    late_sends: list[float] = field(default_factory=list)
    example: str = ""

    def add(self, due: float, answer: Answer) -> None:
        """Counts one answer to the question that was due then."""
        self.latencies.append(answer.last_byte - due)
        self.first_bytes.append(answer.first_byte - due)
        self.statuses[answer.status] += 1
        self.events += answer.body.count(EVENT)
        if found := STATUS.search(answer.head):
            self.replies[found[1].decode()] += 1
        if not self.example or answer.status != 200:
            self.example = (answer.head + b"\r\n" + answer.body[:400]).decode("utf-8", "replace")

    def told(self, seconds: float, cpu_seconds: float) -> dict[str, Any]:
        """The figures, in milliseconds and per second."""
        return {
            "answers": len(self.latencies),
            "per_s": len(self.latencies) / seconds,
            "latency_ms": quantiles(self.latencies),
            "first_byte_ms": quantiles(self.first_bytes),
            "late_sends_ms": quantiles(self.late_sends),
            "statuses": dict(self.statuses),
            "failures": dict(self.failures),
            "replies": dict(self.replies),
            "events_per_answer": self.events / max(1, len(self.latencies)),
            "load_cpu_share": cpu_seconds / seconds,
            "example": self.example,
        }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile and worst, in milliseconds."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
    found = {name: 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in at.items()}
    return {**found, "mean": 1000 * sum(ordered) / len(ordered), "worst": 1000 * ordered[-1]}


async def closed_loop(plan: Plan) -> dict[str, Any]:
    """Each connection asks again as soon as it is answered: how much the server can do."""
    requests, numbers, tally = plan.requests(), count(), Tally()
    begin = time.perf_counter()
    counted, end = begin + plan.warm_up_seconds, begin + plan.warm_up_seconds + plan.seconds

    async def go_on() -> None:
        connection = await connect(plan.port)
        while (due := time.perf_counter()) < end:
            try:
                answer = await connection.ask(requests[next(numbers) % len(requests)])
            except (ConnectionError, TimeoutError) as error:
                tally.failures[type(error).__name__] += 1
                connection.close()
                connection = await connect(plan.port)
                continue
            if counted <= due and answer.last_byte <= end:
                tally.add(due, answer)
        connection.close()

    cpu = time.process_time()
    await asyncio.gather(*(go_on() for _ in range(plan.connections)))
    return tally.told(plan.seconds, (time.process_time() - cpu) * plan.seconds / (time.perf_counter() - begin))


async def open_loop(plan: Plan) -> dict[str, Any]:
    """Questions come at a steady rate, each over a free connection: how long people wait."""
    assert plan.rate is not None
    requests, tally = plan.requests(), Tally()
    free = [await connect(plan.port) for _ in range(plan.connections)]
    begin = time.perf_counter()
    total = int(plan.rate * (plan.warm_up_seconds + plan.seconds))
    tasks: set[asyncio.Task[None]] = set()

    async def ask(number: int, due: float) -> None:
        connection = free.pop() if free else await connect(plan.port)
        sent = time.perf_counter()
        try:
            answer = await connection.ask(requests[number % len(requests)])
        except (ConnectionError, TimeoutError) as error:
            tally.failures[type(error).__name__] += 1
            connection.close()
            return
        free.append(connection)
        if due >= begin + plan.warm_up_seconds:
            tally.add(due, answer)
            tally.late_sends.append(sent - due)

    cpu = time.process_time()
    for number in range(total):
        due = begin + number / plan.rate
        while (ahead := due - time.perf_counter()) > 0:
            # The last stretch is not slept: a timer's millisecond would be counted as the server's.
            await asyncio.sleep(ahead - 0.0015 if ahead > 0.0015 else 0)
        task = asyncio.create_task(ask(number, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return tally.told(plan.seconds, (time.process_time() - cpu) * plan.seconds / (time.perf_counter() - begin))


def main() -> None:
    """Runs one plan."""
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True)
    plan = Plan(**json.loads(parser.parse_args().plan.read_text(encoding="utf-8")))
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    print(json.dumps(uvloop.run(closed_loop(plan) if plan.rate is None else open_loop(plan))))


if __name__ == "__main__":
    main()
