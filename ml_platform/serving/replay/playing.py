"""Plays traffic: features are published, questions asked and outcomes sent in the order in which all of it happened."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import merge

from ml_platform.serving.replay.tally import Tally
from ml_platform.serving.replay.traffic import Asked, Happened, Traffic
from ml_platform.serving.replay.travellers import GatewayClient

Publish = Callable[[datetime], Awaitable[None]]
"""Puts online what was known at a moment, and returns once the gateway can read it."""


@dataclass(frozen=True)
class Pace:
    """How fast time goes by, and how much may be under way.

    `speed` is in seconds of the past for each second of ours; None goes as fast as answers come. With `at_once`
    questions under way the past waits: a gateway that is too slow delays the replay and is not drowned by it.
    `step` is how much of the past lies between two publications.
    """

    speed: float | None
    at_once: int
    step: timedelta


@dataclass(frozen=True, slots=True)
class _Published:
    at: datetime


_Event = _Published | Asked | Happened


@dataclass
class Player:
    """Plays once; `tally` tells at any moment how far it is."""

    traffic: Traffic
    gateway: GatewayClient
    publish: Publish | None
    pace: Pace
    tally: Tally
    show: Callable[[Tally], None] = lambda _: None
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    async def play(self) -> Tally:
        """Everything, and what came of it. Outcomes from after the last day are sent at the end, without waiting.

        Raises OperationError for outcomes that the gateway does not take; what `publish` raises ends it too.
        """
        began, behind = time.monotonic(), 0.0
        places = asyncio.Semaphore(self.pace.at_once)
        try:
            for event in self._events():
                behind += await self._wait_until(event.at, began + behind)
                self.tally.event_time = max(self.tally.event_time, event.at)
                if isinstance(event, _Published):
                    before = time.monotonic()
                    await self._publish(event.at)
                    behind += time.monotonic() - before
                elif isinstance(event, Happened):
                    await self.gateway.tell(self.traffic.product, [event])
                    self.tally.outcomes_sent += 1
                else:
                    await places.acquire()
                    self._start(event, places)
                self.show(self.tally)
            await asyncio.gather(*self._under_way)
            await self._tell_the_rest()
        finally:
            for task in self._under_way:
                task.cancel()
        self.tally.event_time = self.traffic.until
        self.show(self.tally)
        return self.tally

    def _events(self) -> Iterator["_Event"]:
        """What is published at a moment comes before what happens then, and that before what is asked."""
        published: Iterator[_Event] = (_Published(at) for at in self._moments())
        happened: Iterator[_Event] = (one for one in self.traffic.outcomes if one.at < self.traffic.until)
        asked: Iterator[_Event] = iter(self.traffic.questions)
        # Stable: of one moment, the stream that is named first comes first.
        return merge(published, happened, asked, key=lambda event: event.at)

    def _moments(self) -> Iterator[datetime]:
        moment = self.traffic.first
        while self.publish is not None and moment < self.traffic.until:
            yield moment
            moment += self.pace.step

    async def _wait_until(self, at: datetime, began: float) -> float:
        """Waits for a moment of the past; returns by how many seconds it was over already."""
        if self.pace.speed is None:
            return 0.0
        ahead = began + (at - self.traffic.first).total_seconds() / self.pace.speed - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        return max(0.0, -ahead)

    async def _publish(self, at: datetime) -> None:
        # Questions of the past that are still under way are to be answered with what was known when they were asked.
        await asyncio.gather(*self._under_way)
        if self.publish is not None:
            await self.publish(at)
            self.tally.publications += 1

    def _start(self, asked: Asked, places: asyncio.Semaphore) -> None:
        async def ask() -> None:
            try:
                self.tally.add(await self.gateway.ask(self.traffic.product, asked))
            finally:
                places.release()
            self.show(self.tally)

        self.tally.asked += 1
        task = asyncio.create_task(ask())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _tell_the_rest(self) -> None:
        rest = [one for one in self.traffic.outcomes if one.at >= self.traffic.until]
        await self.gateway.tell(self.traffic.product, rest)
        self.tally.outcomes_sent += len(rest)
