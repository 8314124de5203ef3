"""The past: the answers of a stretch of the product's time, with all that is known of them."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ml_platform.contracts.monitoring import Seen
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.contracts.serving import ServingTime
from ml_platform.lineage.provenance.moments import Moment, moments, records_at
from ml_platform.lineage.provenance.store import Answered, ProvenanceStore
from ml_platform.monitoring.assigned import Releases
from ml_platform.monitoring.clock import ProductClock
from ml_platform.monitoring.labels import Label
from ml_platform.monitoring.seeing import judge, read_by, see, tell
from ml_platform.monitoring.signals import said_positive

MOST_ANSWERS = 100_000
"""More answers of one stretch are drawn from by the hash of their names: the same ones each time."""


@dataclass(frozen=True, slots=True)
class Observed:
    """An answer with what was said of it, as decisions see it, and its label."""

    answered: Answered
    seen: Seen
    label: Label

    @property
    def record(self) -> ProvenanceRecord:
        """The record of the answer."""
        return self.answered.record


@dataclass
class Stretch:
    """The answers given in a stretch of the product's time: where their rows are, and the time of each."""

    begin: datetime
    end: datetime
    places: list[tuple[int, datetime]] = field(default_factory=list)
    sampled: bool = False


class Past:
    """What the store holds of one product. Raises what the store and the ledger raise; `damaged` could not be read."""

    def __init__(
        self,
        store: ProvenanceStore,
        product: str,
        releases: Releases,
        label_age: timedelta,
        *,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        published: datetime | None = None,
        most: int = MOST_ANSWERS,
    ) -> None:
        """`published` is the moment that the newest features are of: it is that late, though nobody has asked since."""
        self.store, self.product, self.releases, self.label_age = store, product, releases, label_age
        self._wall, self._published, self._most = wall, published, most
        self.now = wall()
        self.damaged: list[str] = []

    @property
    def time(self) -> ServingTime:
        """The time that the product lives in."""
        return self.releases.time

    def stretches(self, *bounds: tuple[datetime, datetime]) -> list[Stretch]:
        """The stretches of the product's time with these beginnings and ends; one look at the store for all of them.

        Tells `now`, too: the newest time that is known, or ours for a product that lives by the clock.
        """
        found = [Stretch(begin, end) for begin, end in bounds]
        drawn: list[list[tuple[int, int, datetime]]] = [[] for _ in found]
        clock = ProductClock(self.time, wall=self._wall)
        since = until = None
        if self.time is ServingTime.CLOCK:
            since, until = min(begin for begin, _ in bounds), max(end for _, end in bounds)
        for page in moments(self.store, self.product, since, until):
            times = clock.place([(moment.published_at, moment.answered_at) for moment in page])
            for stretch, draws in zip(found, drawn, strict=True):
                draws += [
                    (_draw(moment), moment.number, at)
                    for moment, at in zip(page, times, strict=True)
                    if stretch.begin <= at < stretch.end
                ]
        for stretch, draws in zip(found, drawn, strict=True):
            stretch.sampled = len(draws) > self._most
            kept = sorted(draws)[: self._most] if stretch.sampled else draws
            stretch.places = sorted((number, at) for _, number, at in kept)
        self.now = clock.now()
        if self.time is ServingTime.FEATURES and self._published is not None:
            self.now = self._published if clock.is_lost else max(self.now, self._published)
        return found

    def time_at(self, moment: datetime) -> datetime | None:
        """How late it was for the product at a moment of ours: what the next answer tells, None where there is none."""
        if self.time is ServingTime.CLOCK:
            return moment
        told = (one.published_at for page in moments(self.store, self.product, moment) for one in page)
        return next((at for at in told if at is not None), None)

    def answers(self, stretch: Stretch, known: datetime) -> Iterator[Observed]:
        """The answers of a stretch; labels are mature that reached their age by `known`."""
        times = dict(stretch.places)
        for page in records_at(self.store, [number for number, _ in stretch.places], self.damaged):
            for number, answered in zip(page, self.store.join([*page.values()]), strict=True):
                yield self._observed(answered, times[number], known)

    def _observed(self, answered: Answered, at: datetime, known: datetime) -> Observed:
        seen = see(answered, at, self.releases)
        if at + self.label_age > known:
            return Observed(answered, seen, Label(None))
        evaluation = read_by(answered.record, seen.release_id, self.releases)
        said = said_positive(answered.record, evaluation)
        outcomes = tell(answered.outcomes, evaluation, self.time).values()
        return Observed(answered, *judge(seen, said, outcomes, evaluation, self.label_age, self.time))


def _draw(moment: Moment) -> int:
    return zlib.crc32(moment.response_id.encode())
