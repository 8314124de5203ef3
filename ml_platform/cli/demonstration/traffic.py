"""The travellers of a demonstration: questions of past days, as fast as answers come, and what became of flights."""

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

from ml_platform.cli.demonstration.board import Board
from ml_platform.cli.demonstration.plan import Form, Stretch
from ml_platform.contracts.provenance import entity_key
from ml_platform.serving.replay.traffic import Asked, Happened, Traffic
from ml_platform.serving.replay.travellers import GatewayClient

Publish = Callable[[datetime], Awaitable[None]]
MakeTraffic = Callable[[datetime, datetime, int], Traffic]
NOBODY = "none"


@dataclass
class Travellers:
    """Asks about the flights of some days, in the order of time, and tells outcomes when they were known.

    Before the questions of a while, features are published as they were known at its beginning. Outcomes that came
    later than the last question wait for the next stretch, as in life.
    """

    board: Board
    client: GatewayClient
    form: Form
    entity: tuple[str, ...]
    publish: Publish
    make_traffic: MakeTraffic
    _later: list[tuple[datetime, str, Happened]] = field(default_factory=list)

    async def play(self, stretch: Stretch, *, until: Callable[[], bool] = lambda: False, at_once: int) -> int:
        """Plays days until their questions are asked, or `until` holds; returns how many were asked.

        Raises OperationError for outcomes that the gateway does not take.
        """
        begin, end = midnight(stretch.first), midnight(stretch.last + timedelta(days=1))
        traffic = await asyncio.to_thread(self.make_traffic, begin, end, stretch.questions)
        outcomes: dict[str | None, list[Happened]] = defaultdict(list)
        for one in traffic.outcomes:
            outcomes[entity_key(one.entity)].append(one)
        before = self.board.asked
        for moment, questions in whiles(traffic.questions, begin, end, self.form.hours):
            if until():
                break
            await self.reach(moment)
            for asked in await self._ask(traffic.product, questions, until, at_once):
                about = {key: value for key in self.entity if isinstance(value := asked.metadata.get(key), int | str)}
                for happened in outcomes[entity_key(about)]:
                    heapq.heappush(self._later, (happened.at, happened.name, happened))
        return self.board.asked - before

    async def reach(self, moment: datetime) -> None:
        """Lets time go by until a moment: what happened is told, what is known then is published."""
        known = []
        while self._later and self._later[0][0] <= moment:
            known.append(heapq.heappop(self._later)[2])
        await self.client.tell(self.board.product, known)
        self.board.outcomes += len(known)
        await self.publish(moment)
        self.board.product_time = moment

    async def _ask(
        self, product: str, questions: Sequence[Asked], until: Callable[[], bool], at_once: int
    ) -> list[Asked]:
        """Asks, so many at a time, until it is over; returns what was asked."""
        places, asked, under_way = asyncio.Semaphore(at_once), [], set[asyncio.Task[None]]()

        async def ask(question: Asked) -> None:
            try:
                answer = await self.client.ask(product, question)
            finally:
                places.release()
            if answer.code == 200:
                key = (answer.release_id or NOBODY, answer.cohort or NOBODY, answer.status or NOBODY)
                self.board.answers[key] += 1
            else:
                self.board.failed[answer.error or str(answer.code)] += 1

        for question in questions:
            await places.acquire()
            if until():
                break
            self.board.asked += 1
            asked.append(question)
            task = asyncio.create_task(ask(question))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
        return asked


def whiles(
    questions: Sequence[Asked], begin: datetime, end: datetime, hours: Sequence[int]
) -> Iterator[tuple[datetime, list[Asked]]]:
    """The moments of publication with the questions until the next one; moments without a question are passed over.

    What is asked before the first moment of the first day is asked at that moment.
    """
    marks = [*moments(begin.date(), end.date(), hours), end]
    for number, (moment, later) in enumerate(pairwise(marks)):
        since = begin if number == 0 else moment
        if found := [one for one in questions if since <= one.at < later]:
            yield moment, found


def moments(first: date, until: date, hours: Sequence[int]) -> Iterator[datetime]:
    """The hours of each day from the first until before the last, in order."""
    for number in range((until - first).days):
        for hour in sorted(hours):
            yield midnight(first + timedelta(days=number)) + timedelta(hours=hour)


def midnight(day: date) -> datetime:
    """The beginning of a day, UTC."""
    return datetime.combine(day, time(), UTC)
