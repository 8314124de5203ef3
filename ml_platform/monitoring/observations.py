"""The feed: answers as decisions see them, as they come, as more is learnt of them, and as their labels mature."""

import heapq
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ml_platform.contracts.home import Home
from ml_platform.contracts.monitoring import Seen
from ml_platform.contracts.product import EvaluationSpec
from ml_platform.contracts.provenance import Feedback, Outcome
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.provenance.store import Answered, ProvenanceStore
from ml_platform.lineage.provenance.tailing import News, Tail
from ml_platform.monitoring.assigned import Releases, known_releases
from ml_platform.monitoring.clock import ProductClock
from ml_platform.monitoring.labels import SKEW, Label, Told
from ml_platform.monitoring.seeing import dislike, judge, read_by, see, tell
from ml_platform.monitoring.signals import said_positive

logger = logging.getLogger(__name__)

JOINED_AT_ONCE = 500
SETTLES = timedelta(minutes=10)
"""An outcome that was there in time may take so long, by our clock, from the gateway to the store."""


@dataclass(slots=True)
class _Open:
    """An answer of which more may be learnt; `closes` is when its mature label is final, None before it is mature."""

    seen: Seen
    said: tuple[bool, ...]
    entity: str | None
    evaluation: EvaluationSpec | None
    outcomes: dict[str, Told] = field(default_factory=dict)
    closes: datetime | None = None


class Feed:
    """The answers of one product since a time, each as often as something new is known of it.

    A label that matured without an outcome may still get one that was in time and came late to the store; a label that
    counted is never taken back. Raises StorageError and BusyError when the store does not answer: nothing is lost, the
    next read has it. What the store holds and cannot be read is left out, logged and counted in `damaged`.
    """

    def __init__(
        self,
        store: ProvenanceStore,
        product: str,
        releases: Releases,
        label_age: timedelta,
        *,
        since: datetime | None = None,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`since` is a time of ours: answers given from about then on are read, None for all that there are."""
        self._store, self._product, self._releases, self._age = store, product, releases, label_age
        self._wall = wall
        self._clock = ProductClock(releases.time, wall=wall)
        # The clocks of gateways differ: what is too old is known by its epoch.
        self._tail = Tail(store, product, None if since is None else since - SKEW)
        self._unread: list[News] = []
        self._open: dict[str, _Open] = {}
        self._about: defaultdict[str, set[str]] = defaultdict(set)
        self._due: list[tuple[datetime, str]] = []
        self._closing: list[tuple[datetime, str]] = []
        self.damaged = 0

    def now(self) -> datetime:
        """The product's time, as the answers that were read tell it."""
        return self._clock.now()

    def read(self) -> tuple[Seen, ...]:
        """What is new or has changed since the last read, the oldest first; each answer once, as it is known now."""
        self._unread.append(self._tail.read())
        joined = [self._prepared(news) for news in self._unread]
        if self._clock.is_lost:
            self._clock.tell_earlier(self._tail.newest())
        # From here on nothing is asked of a database, so that nothing is taken in by half.
        changed: dict[str, None] = {}
        for news, answers in zip(self._unread, joined, strict=True):
            changed |= dict.fromkeys(self._begin(answers))
            changed |= dict.fromkeys(self._hear(news.feedback, news.outcomes))
            self.damaged += len(news.damaged)
        self._unread = []
        changed |= dict.fromkeys(self._mature())
        found = tuple(self._open[response_id].seen for response_id in changed)
        self._close()
        return found

    def _prepared(self, news: News) -> list[Answered]:
        """New answers with all that was said of them; their releases are looked up, too."""
        for problem in news.damaged:
            logger.error("%s: left out of what is decided on: %s", self._product, problem)
        # Batches are stored in the order of names; time goes by in the order of answers.
        records = sorted(news.records, key=lambda record: (record.answered_at, record.response_id))
        for record in records:
            self._releases.evaluation(self._releases.assigned(record))
            self._releases.evaluation(record.release_id)
        pages = range(0, len(records), JOINED_AT_ONCE)
        return [one for first in pages for one in self._store.join(records[first : first + JOINED_AT_ONCE])]

    def _begin(self, answers: list[Answered]) -> list[str]:
        """Takes in new answers; returns their names."""
        times = self._clock.tell([answered.record for answered in answers])
        for answered, at in zip(answers, times, strict=True):
            self._open_one(answered, at)
        return [answered.record.response_id for answered in answers]

    def _open_one(self, answered: Answered, at: datetime) -> None:
        record, seen = answered.record, see(answered, at, self._releases)
        evaluation = read_by(record, seen.release_id, self._releases)
        opened = _Open(seen, said_positive(record, evaluation), record.entity_key, evaluation)
        self._open[record.response_id] = opened
        if opened.entity is not None:
            self._about[opened.entity].add(record.response_id)
        heapq.heappush(self._due, (at + self._age, record.response_id))
        self._keep(opened, answered.outcomes)

    def _hear(self, feedback: Iterable[Feedback], outcomes: Iterable[Outcome]) -> list[str]:
        """Joins what was said to the answers that it is about; returns those of which more is known now."""
        changed = []
        for thumb in feedback:
            changed += [one for one in self._meant(thumb) if self._dislike(self._open[one], thumb)]
        for outcome in outcomes:
            for response_id in self._meant(outcome):
                opened = self._open[response_id]
                self._keep(opened, [outcome])
                # A label that is there is final: what contradicts it now would have to unmake a decision.
                if opened.closes is not None and not opened.seen.labelled and self._judge(opened).happened is not None:
                    changed.append(response_id)
        return changed

    def _meant(self, said: Feedback | Outcome) -> list[str]:
        if said.response_id is not None:
            return [said.response_id] if said.response_id in self._open else []
        return sorted(self._about.get(said.entity_key or "", ()))

    def _dislike(self, opened: _Open, feedback: Feedback) -> bool:
        """Whether that is news."""
        before, opened.seen = opened.seen, dislike(opened.seen, [feedback])
        return opened.seen is not before

    def _keep(self, opened: _Open, outcomes: Iterable[Outcome]) -> None:
        opened.outcomes = tell(outcomes, opened.evaluation, self._releases.time) | opened.outcomes

    def _mature(self) -> list[str]:
        """The answers whose label age is over by now."""
        now, matured = self.now(), []
        while self._due and self._due[0][0] <= now:
            _, response_id = heapq.heappop(self._due)
            opened = self._open[response_id]
            opened.closes = self._wall() + SETTLES
            heapq.heappush(self._closing, (opened.closes, response_id))
            self._judge(opened)
            matured.append(response_id)
        return matured

    def _judge(self, opened: _Open) -> Label:
        """Gives a mature answer its label, if there is one."""
        opened.seen, label = judge(
            opened.seen, opened.said, opened.outcomes.values(), opened.evaluation, self._age, self._releases.time
        )
        return label

    def _close(self) -> None:
        """Lets go of the answers of which nothing more can be learnt."""
        now = self._wall()
        while self._closing and self._closing[0][0] <= now:
            _, response_id = heapq.heappop(self._closing)
            opened = self._open.pop(response_id)
            if opened.entity is not None:
                self._about[opened.entity].discard(response_id)
                if not self._about[opened.entity]:
                    del self._about[opened.entity]


def open_feed(
    home: Home,
    ledger: Ledger,
    artifacts: ArtifactStore,
    product: str,
    label_age: timedelta,
    *,
    since: datetime | None = None,
) -> Feed:
    """The feed of a product of this home, on its provenance store. Raises what the ledger raises."""
    store = ProvenanceStore(home.provenance_url)
    return Feed(store, product, known_releases(ledger, artifacts, product), label_age, since=since)
