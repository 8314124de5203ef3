"""What came into the store since the last time, of one product: read by the numbers of its rows."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Table, and_, case, func, or_, select

from ml_platform.contracts.provenance import Feedback, Outcome, ProvenanceRecord
from ml_platform.errors import IntegrityError
from ml_platform.lineage.provenance.schema import feedback, outcomes, responses
from ml_platform.lineage.provenance.store import ProvenanceStore, record_of
from ml_platform.lineage.provenance.writing import microseconds

logger = logging.getLogger(__name__)

PAGE = 2_000
GAP_SECONDS = 600.0
"""How long a number may be missing before it is given up: longer than any shipper takes to commit."""
MOST_GAPS = 200


@dataclass(frozen=True)
class News:
    """What came: records, feedback and outcomes, each in the order of their numbers; `damaged` could not be read.

    With `more`, this is not all: read again.
    """

    records: tuple[ProvenanceRecord, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    damaged: tuple[str, ...] = ()
    more: bool = False


@dataclass
class _Gap:
    first: int
    last: int
    since: float


@dataclass
class _Place:
    """How far a table is read. PostgreSQL gives a number before it commits the row: gaps may still be filled."""

    table: Table
    last: int
    gaps: list[_Gap] = field(default_factory=list)

    def note(self, rows: Sequence[Row[Any]], now: float) -> None:
        """Takes note of rows behind the last one, by number, and of the numbers that are missing among them."""
        for row in rows:
            if row.number > self.last + 1:
                self.gaps.append(_Gap(self.last + 1, row.number - 1, now))
            self.last = row.number

    def fill(self, rows: Sequence[Row[Any]], now: float) -> None:
        """Takes note of rows that filled gaps, and gives up what has been missing for too long."""
        for row in rows:
            found = next(gap for gap in self.gaps if gap.first <= row.number <= gap.last)
            self.gaps.remove(found)
            left, right = _Gap(found.first, row.number - 1, found.since), _Gap(row.number + 1, found.last, found.since)
            self.gaps += [gap for gap in (left, right) if gap.first <= gap.last]
        self.gaps = [gap for gap in self.gaps if now - gap.since < GAP_SECONDS][-MOST_GAPS:]


class Tail:
    """The new rows of one product, each once; it begins with the answers given `since` then, or with the first one.

    What comes after the first of these is read whatever its time: the clock of its gateway may be wrong.
    A store that was put back to an earlier state, e.g. from a backup, is read anew from there: then rows come twice.
    What was said before it began is found by `ProvenanceStore.join`. Nothing is marked as read when the store fails:
    StorageError and BusyError leave the place where it was.
    """

    def __init__(
        self,
        store: ProvenanceStore,
        product: str,
        since: datetime | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._product, self._since, self._monotonic = store, product, since, monotonic
        self._places: tuple[_Place, _Place, _Place] | None = None

    def read(self) -> News:
        """What came since the last call, a page of each table at most."""
        if self._places is None or self._was_put_back(self._places):
            self._places = self._begin()
        now = self._monotonic()
        # Answers last: what was said of an answer that is not here yet is found with it by the join.
        answers, said, ended = self._places
        thumbs, ends, given = (list(self._rows(place)) for place in (said, ended, answers))
        for place, rows in ((said, thumbs), (ended, ends), (answers, given)):
            place.fill([row for row in rows if row.number <= place.last], now)
            place.note([row for row in rows if row.number > place.last], now)
        damaged: list[str] = []
        return News(
            records=tuple(self._parsed(given, _record, damaged)),
            feedback=tuple(self._parsed(thumbs, lambda row: Feedback.from_log(row.content), damaged)),
            outcomes=tuple(self._parsed(ends, lambda row: Outcome.from_log(row.content), damaged)),
            damaged=tuple(damaged),
            more=any(len(rows) >= PAGE for rows in (given, thumbs, ends)),
        )

    def newest(self, most: int = 50) -> tuple[ProvenanceRecord, ...]:
        """The last records of the product, the newest first: what was there before the tail began, or is just now."""
        query = (
            select(responses.c.content, responses.c.sha256, responses.c.response_id)
            .where(responses.c.product == self._product)
            .order_by(responses.c.answered_us.desc())
            .limit(most)
        )
        return tuple(self._parsed(self._store.rows(query), _record, []))

    def _begin(self) -> tuple[_Place, _Place, _Place]:
        # What was said goes first: of what comes between these queries, nothing is missed and some is read twice.
        ends = [self._number(func.max(table.c.number), table) for table in (feedback, outcomes)]
        first = 0
        if self._since is not None:
            query = select(func.min(responses.c.number)).where(
                responses.c.product == self._product, responses.c.answered_us >= microseconds(self._since)
            )
            found = self._store.rows(query)[0][0]
            first = self._number(func.max(responses.c.number), responses) if found is None else found - 1
        return _Place(responses, first), _Place(feedback, ends[0]), _Place(outcomes, ends[1])

    def _was_put_back(self, places: Iterable[_Place]) -> bool:
        lost = [
            place.table.name
            for place in places
            if self._number(func.max(place.table.c.number), place.table) < place.last
        ]
        if lost:
            logger.error("%s: has lost rows of %s that were read; it is read anew", self._store.name, ", ".join(lost))
        return bool(lost)

    def _number(self, asked: Any, table: Table) -> int:
        return self._store.rows(select(asked).select_from(table))[0][0] or 0

    def _rows(self, place: _Place) -> Iterator[Row[Any]]:
        """Rows that are new, of all products: the others fill gaps, and their content is not fetched."""
        table = place.table
        content = case((table.c.product == self._product, table.c.content), else_=None).label("content")
        query = select(table.c.number, table.c.response_id, table.c.sha256, content).order_by(table.c.number)
        if place.gaps:
            gaps = or_(*(and_(table.c.number >= gap.first, table.c.number <= gap.last) for gap in place.gaps))
            yield from self._store.rows(query.where(gaps))
        yield from self._store.rows(query.where(table.c.number > place.last).limit(PAGE))

    def _parsed(self, rows: Sequence[Row[Any]], read: Callable[[Row[Any]], Any], damaged: list[str]) -> Iterator[Any]:
        for row in rows:
            if row.content is not None:
                try:
                    yield read(row)
                except IntegrityError as error:
                    damaged.append(str(error))


def _record(row: Row[Any]) -> ProvenanceRecord:
    return record_of(row.content, row.sha256, row.response_id)
