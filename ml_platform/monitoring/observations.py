"""The feed: answers as decisions see them, as they come, as more is learnt of them, and as their labels mature."""

import heapq
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from ml_platform.contracts.home import Home
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import Seen
from ml_platform.contracts.provenance import Feedback, Outcome, ProvenanceRecord
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.provenance.named import find_answers
from ml_platform.lineage.provenance.store import Answered, ProvenanceStore
from ml_platform.lineage.provenance.tailing import News, Tail
from ml_platform.monitoring.assigned import Releases, known_releases
from ml_platform.monitoring.clock import ProductClock
from ml_platform.monitoring.labels import SKEW
from ml_platform.monitoring.seeing import dislike, judge, read_by, see, tell
from ml_platform.monitoring.settling import Settling
from ml_platform.monitoring.signals import DISLIKES, said_positive

logger = logging.getLogger(__name__)

AT_ONCE = 500


class Feed:
    """The answers of one product since a time, each as often as something new is known of it.

    A label that matured without an outcome may still get one that was in time and came late to the store; a label that
    counted is never taken back. Raises StorageError and BusyError when the store does not answer: nothing is lost, the
    next read has it. What the store holds and cannot be read is left out, logged and counted in `damaged`. Until it
    is mature, an answer takes a few hundred bytes here; then it is read again. For one thread.
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
        self._clock = ProductClock(releases.time, wall=wall)
        # The clocks of gateways differ: what is too old is known by its epoch.
        self._tail = Tail(store, product, None if since is None else since - SKEW)
        self._unread: News | None = None
        self._young: dict[str, datetime] = {}
        self._due: list[tuple[datetime, str]] = []
        self._disliked: set[str] = set()
        self._settling = Settling(wall)
        self._found: dict[str, Seen] = {}
        self.damaged = 0

    def now(self) -> datetime:
        """The product's time, as the answers that were read tell it."""
        return self._clock.now()

    @property
    def is_in_time(self) -> bool:
        """Whether the product still lives in the time that answers are read by here: a release may bring another."""
        now = self._releases.time_now
        return now is None or now() is self._releases.time

    def read(self) -> tuple[Seen, ...]:
        """What is new or has changed since the last read, the oldest first; each answer once, as it is known now."""
        more = True
        while more:
            left, self._unread = self._unread is not None, self._unread or self._tail.read()
            self._take_in(self._unread)
            more, self._unread = left or self._unread.more, None
        self._mature()
        self._settling.let_go()
        found, self._found = self._found.values(), {}
        return tuple(sorted(found, key=lambda seen: (seen.answered_at, seen.response_id)))

    def _take_in(self, news: News) -> None:
        """One page of what came. All that may fail is asked first, so that nothing is taken in by half."""
        answers = self._joined(news.records)
        changed = [*self._disliked_by(news.feedback), *self._labelled_by(news.outcomes)]
        if self._clock.is_lost:
            self._clock.tell_earlier(self._tail.newest())
        for seen in changed:
            self._found[seen.response_id] = seen
            self._settling.update(seen)
            self._note_dislike(seen)
        times = self._clock.tell([answered.record for answered in answers])
        for answered, at in zip(answers, times, strict=True):
            self._begin(see(answered, at, self._releases))
        for problem in news.damaged:
            logger.error("%s: left out of what is decided on: %s", self._product, problem)
        self.damaged += len(news.damaged)

    def _joined(self, records: Iterable[ProvenanceRecord]) -> list[Answered]:
        """New answers with all that was said of them; their releases are looked up, too."""
        # Batches are stored in the order of names; time goes by in the order of answers.
        new = sorted(
            (one for one in records if one.response_id not in self._young and one.response_id not in self._settling),
            key=lambda record: (record.answered_at, record.response_id),
        )
        for record in new:
            self._releases.evaluation(self._releases.assigned(record))
            self._releases.evaluation(record.release_id)
        pages = range(0, len(new), AT_ONCE)
        return [one for first in pages for one in self._store.join(new[first : first + AT_ONCE])]

    def _begin(self, seen: Seen) -> None:
        self._found[seen.response_id] = seen
        self._young[seen.response_id] = seen.at
        heapq.heappush(self._due, (seen.at + self._age, seen.response_id))
        self._note_dislike(seen)

    def _disliked_by(self, feedback: Iterable[Feedback]) -> Iterator[Seen]:
        """The answers of which it is news that somebody disliked them."""
        said = {one.response_id for one in feedback if one.response_id is not None and one.kind in DISLIKES}
        names = {name for name in said - self._disliked if name in self._young or name in self._settling}
        for answered in find_answers(self._store, self._product, names) if names else ():
            name = answered.record.response_id
            if name in self._settling:
                before = self._settling[name]
                if (after := dislike(before, answered.feedback)) is not before:
                    yield after
            elif name in self._young and name not in self._disliked:
                yield see(answered, self._young[name], self._releases)

    def _labelled_by(self, outcomes: Iterable[Outcome]) -> Iterator[Seen]:
        """Mature answers that had no label, and whose outcome was in time and came late to the store."""
        names = self._settling.waiting_for(outcomes)
        for answered in find_answers(self._store, self._product, names) if names else ():
            seen = self._judged(answered, self._settling[answered.record.response_id])
            if seen.labelled:
                yield seen

    def _mature(self) -> None:
        """The answers whose label age is over by now; they are read again, with all that was said of them."""
        now = self.now()
        while self._due and self._due[0][0] <= now:
            page: list[tuple[datetime, str]] = []
            while self._due and self._due[0][0] <= now and len(page) < AT_ONCE:
                page.append(heapq.heappop(self._due))
            try:
                self._settle([name for _, name in page])
            except BaseException:
                for due in page:
                    heapq.heappush(self._due, due)
                raise

    def _settle(self, names: Sequence[str]) -> None:
        judged = []
        for one in find_answers(self._store, self._product, names):
            seen = see(one, self._young[one.record.response_id], self._releases)
            judged.append((one.record, self._judged(one, seen)))
        for record, seen in judged:
            self._found[record.response_id] = seen
            self._settling.add(record, seen)
        for name in names:
            self._young.pop(name)
            self._disliked.discard(name)

    def _judged(self, answered: Answered, seen: Seen) -> Seen:
        evaluation = read_by(answered.record, seen.release_id, self._releases)
        outcomes = tell(answered.outcomes, evaluation, self._releases.time).values()
        said = said_positive(answered.record, evaluation)
        return judge(seen, said, outcomes, evaluation, self._age, self._releases.time)[0]

    def _note_dislike(self, seen: Seen) -> None:
        if seen.signals.get(Signal.DISLIKED) == 1.0:
            self._disliked.add(seen.response_id)


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
