"""What time it is for a product: ours, or that of its data where history is replayed."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.contracts.serving import ServingTime


class ProductClock:
    """The time of one product; it never goes back.

    A product that lives in its data's time is as late as the newest features that an answer has read. An answer that
    read none was given when the one before it was.
    """

    def __init__(self, time: ServingTime, *, wall: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.time, self._wall = time, wall
        self._newest: datetime | None = None
        self._latest: datetime | None = None
        self._earlier: datetime | None = None

    @property
    def is_lost(self) -> bool:
        """Whether it lives in its data's time and has been shown none."""
        return self.time is ServingTime.FEATURES and (self._newest or self._earlier) is None

    def tell_earlier(self, records: Iterable[ProvenanceRecord]) -> None:
        """What answers tell that are not among those to come: better than nothing, until one of these has told."""
        self._earlier = max((at for record in records if (at := _read_at(record)) is not None), default=None)

    def now(self) -> datetime:
        """The product's time; ours as long as its data has shown none."""
        if self.time is ServingTime.CLOCK:
            return self._wall()
        return self._newest or self._earlier or self._wall()

    def tell(self, records: list[ProvenanceRecord]) -> list[datetime]:
        """When each of these answers was given, in their order; the newest is what time it is from now on."""
        return self.place([(_read_at(record), record.answered_at) for record in records])

    def place(self, moments: Sequence[tuple[datetime | None, datetime]]) -> list[datetime]:
        """The same for what is known of answers: what they read was published at, and our time of the answer."""
        if self.time is ServingTime.CLOCK:
            return [answered_at for _, answered_at in moments]
        # Before the first that read something, it was as late as for that one.
        self._latest = self._latest or next((at for at, _ in moments if at is not None), None) or self._earlier
        found = []
        for at, answered_at in moments:
            if at is not None:
                self._newest, self._latest = max(self._newest or at, at), at
            found.append(self._latest or answered_at)
        return found


def _read_at(record: ProvenanceRecord) -> datetime | None:
    return record.features.published_at if record.features else None
