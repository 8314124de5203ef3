"""What users asked and were answered in a window of the product's time: a bounded draw, the same every time."""

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ml_platform.contracts.canonical import digest
from ml_platform.contracts.home import Home
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.contracts.routing import Cohort
from ml_platform.contracts.serving import ServingTime
from ml_platform.errors import IntegrityError
from ml_platform.lineage.databases import read_url
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.monitoring.clock import ProductClock
from ml_platform.monitoring.drift.tables import Window

USERS = (Cohort.PRODUCTION, Cohort.CANARY)
"""Whose answers count: copies for a shadow and trials of operators are nobody's questions."""
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
AT_ONCE = 500


@dataclass(frozen=True)
class Traffic:
    """Answers to users by the product's time, each side drawn: those in the window, and those of a release before it.

    `asked` and `before` count all of them, drawn or not. `damaged` says what in the store could not be believed: then
    there is nothing to compare.
    """

    window: tuple[ProvenanceRecord, ...] = ()
    earlier: tuple[ProvenanceRecord, ...] = ()
    asked: int = 0
    before: int = 0
    damaged: str = ""

    @property
    def sha256(self) -> str:
        """The digest of which answers these are."""
        names = [[one.response_id for one in side] for side in (self.window, self.earlier)]
        return digest([names, self.asked, self.before, self.damaged])


def read_traffic(
    home: Home, product: str, time: ServingTime, window: Window, release_id: str | None, most: int
) -> Traffic:
    """At most `most` answers of either side, drawn by a hash of their names. Raises StorageError, BusyError.

    Where nothing was ever recorded there is no traffic, and asking makes no store.
    """
    url = read_url(home.provenance_url, "store")
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return Traffic()
    store = ProvenanceStore(home.provenance_url)
    try:
        within, before = _Draw(most), _Draw(most)
        for record, at in _timed(store, product, time, window):
            if at >= window.until or record.cohort not in USERS:
                continue
            if window.since is None or at >= window.since:
                within.add(record)
            elif record.release_id == release_id is not None:
                before.add(record)
    except IntegrityError as error:
        return Traffic(damaged=str(error))
    finally:
        store.close()
    return Traffic(within.drawn(), before.drawn(), within.seen, before.seen)


class _Draw:
    """The records with the smallest hashes of those that were added, so that no order of arrival matters."""

    def __init__(self, most: int) -> None:
        self._most, self.seen = most, 0
        self._kept: list[tuple[int, str, ProvenanceRecord]] = []

    def add(self, record: ProvenanceRecord) -> None:
        self.seen += 1
        place = -int(hashlib.sha256(record.response_id.encode()).hexdigest()[:15], 16)
        if len(self._kept) < self._most:
            heapq.heappush(self._kept, (place, record.response_id, record))
        elif (place, record.response_id) > self._kept[0][:2]:
            heapq.heapreplace(self._kept, (place, record.response_id, record))

    def drawn(self) -> tuple[ProvenanceRecord, ...]:
        """In the order of their names."""
        return tuple(record for _, _, record in sorted(self._kept, key=lambda one: one[1]))


def _timed(
    store: ProvenanceStore, product: str, time: ServingTime, window: Window
) -> Iterator[tuple[ProvenanceRecord, datetime]]:
    """Every record with the product's time of it; all of them, for the database knows only ours."""
    clock = ProductClock(time)
    last = window.until if time is ServingTime.CLOCK else _LAST
    page: list[ProvenanceRecord] = []
    for record in store.scan(product, _FIRST, last):
        page.append(record)
        if len(page) == AT_ONCE:
            yield from _told(clock, page)
            page = []
    yield from _told(clock, page)


def _told(clock: ProductClock, page: Sequence[ProvenanceRecord]) -> Iterator[tuple[ProvenanceRecord, datetime]]:
    return iter(list(zip(page, clock.tell(list(page)), strict=True)))
