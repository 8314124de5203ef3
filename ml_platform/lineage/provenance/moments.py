"""When answers were given, without reading them: by our clock, and by that of the features that they read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, case, func, select, tuple_

from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.errors import IntegrityError
from ml_platform.lineage.provenance.schema import responses
from ml_platform.lineage.provenance.store import PAGE, ProvenanceStore, record_of
from ml_platform.lineage.provenance.writing import EPOCH, microseconds

ROWS_AT_ONCE = 20_000
KEY = '"published_at":"'
"""Quotes inside of texts are escaped, so only the key itself looks like this."""
LONGEST_MOMENT = 32


@dataclass(frozen=True, slots=True)
class Moment:
    """One answer: the number of its row, its name, and when it was given; `published_at` is of the features it read."""

    number: int
    response_id: str
    answered_at: datetime
    published_at: datetime | None


def moments(
    store: ProvenanceStore, product: str, since: datetime | None = None, until: datetime | None = None
) -> Iterator[list[Moment]]:
    """The answers given, by our clock, from `since` until before `until`, in the order in which they were given; pages.

    None is no limit. Raises what the store raises, and IntegrityError for a record whose time cannot be read.
    """
    query = select(responses.c.number, responses.c.response_id, responses.c.answered_us, _published(store))
    query = query.where(responses.c.product == product)
    if until is not None:
        query = query.where(responses.c.answered_us < microseconds(until))
    query = query.order_by(responses.c.answered_us, responses.c.number).limit(ROWS_AT_ONCE)
    after = (microseconds(since or EPOCH), -1)
    while rows := store.rows(query.where(_behind(after))):
        yield [_moment(row) for row in rows]
        after = (rows[-1].answered_us, rows[-1].number)


def records_at(
    store: ProvenanceStore, numbers: Sequence[int], damaged: list[str]
) -> Iterator[dict[int, ProvenanceRecord]]:
    """The records in these rows by number, in pages; what cannot be read is left out and goes to `damaged`."""
    for first in range(0, len(numbers), PAGE):
        wanted = responses.c.number.in_(numbers[first : first + PAGE])
        query = select(responses.c.number, responses.c.content, responses.c.sha256, responses.c.response_id)
        rows = {row.number: row for row in store.rows(query.where(wanted))}
        page = {}
        for number in numbers[first : first + PAGE]:
            row = rows[number]
            try:
                page[number] = record_of(row.content, row.sha256, row.response_id)
            except IntegrityError as error:
                damaged.append(str(error))
        yield page


def _behind(after: tuple[int, int]) -> Any:
    return tuple_(responses.c.answered_us, responses.c.number) > after


def _published(store: ProvenanceStore) -> Any:
    """The text of the moment, found by the database: to read whole records for it would take ten times as long."""
    find = func.strpos if store.url.startswith("postgresql") else func.instr
    place = find(responses.c.content, KEY)
    told = func.substr(responses.c.content, place + len(KEY), LONGEST_MOMENT)
    return case((place > 0, told), else_=None).label("published")


def _moment(row: Row[Any]) -> Moment:
    answered_at = EPOCH + timedelta(microseconds=row.answered_us)
    if row.published is None:
        return Moment(row.number, row.response_id, answered_at, None)
    try:
        published_at = datetime.fromisoformat(row.published.partition('"')[0])
    except ValueError:
        raise IntegrityError(
            f"response {row.response_id}: the time of its features cannot be read: {row.published!r}. Its record was "
            "changed in the store. Restore it from a backup."
        ) from None
    return Moment(row.number, row.response_id, answered_at, published_at)
