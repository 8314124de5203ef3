"""The store of what was logged: one row a response, never overwritten, with feedback and outcomes beside it."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, Table, and_, select, tuple_

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.provenance import Feedback, Outcome, ProvenanceRecord
from ml_platform.contracts.routing import Cohort
from ml_platform.errors import IntegrityError
from ml_platform.lineage.databases import explained, shown
from ml_platform.lineage.provenance.schema import (
    conflicts,
    feedback,
    open_store,
    outcomes,
    responses,
    shipped,
)
from ml_platform.lineage.provenance.writing import Progress, microseconds, write_frames

PAGE = 500


@dataclass(frozen=True)
class Answered:
    """An answer with everything that was said of it, by its id or its entity, in the order in which we heard it."""

    record: ProvenanceRecord
    feedback: tuple[Feedback, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Conflict:
    """Something that was not stored, because its name stands for something else or it could not be read."""

    kind: str
    product: str
    key: str
    kept_sha256: str | None
    refused_sha256: str
    reason: str


class ProvenanceStore:
    """The store at a SQLAlchemy URL, SQLite or PostgreSQL; opened, and its tables made, on first use.

    Raises StorageError and BusyError when the database does not answer, IntegrityError for a row that was changed.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _engine(self) -> Engine:
        return open_store(self.url)

    @property
    def name(self) -> str:
        """The store and its place, for messages; without the password."""
        return f"provenance store {shown(self.url)}"

    def close(self) -> None:
        """Lets go of the connections; a store that was never opened is not opened for that."""
        if "_engine" in self.__dict__:
            self._engine.dispose()

    def find(self, response_id: str) -> ProvenanceRecord | None:
        """The record of a response, None where the store has none (yet)."""
        with self._reading() as connection:
            row = connection.execute(
                select(responses.c.content, responses.c.sha256).where(responses.c.response_id == response_id)
            ).first()
        return None if row is None else record_of(row.content, row.sha256, response_id)

    def scan(
        self,
        product: str,
        since: datetime,
        until: datetime,
        *,
        release_id: str | None = None,
        cohort: Cohort | None = None,
    ) -> Iterator[ProvenanceRecord]:
        """The records of answers given from `since` until before `until`, by time; in pages, so of any number."""
        query = select(responses).where(responses.c.product == product, responses.c.answered_us < microseconds(until))
        if release_id is not None:
            query = query.where(responses.c.release_id == release_id)
        if cohort is not None:
            query = query.where(responses.c.cohort == cohort.value)
        query = query.order_by(responses.c.answered_us, responses.c.number).limit(PAGE)
        last = (microseconds(since), -1)
        while rows := self.rows(query.where(tuple_(responses.c.answered_us, responses.c.number) > last)):
            yield from (record_of(row.content, row.sha256, row.response_id) for row in rows)
            last = (rows[-1].answered_us, rows[-1].number)

    def scan_answered(self, product: str, since: datetime, until: datetime, **only: Any) -> Iterator[Answered]:
        """What `scan` gives, each record joined with its feedback and outcomes."""
        page: list[ProvenanceRecord] = []
        for record in self.scan(product, since, until, **only):
            page.append(record)
            if len(page) == PAGE:
                yield from self.join(page)
                page = []
        yield from self.join(page)

    def join(self, records: Sequence[ProvenanceRecord]) -> list[Answered]:
        """Records of one product with what was said of them, by response id or entity."""
        # Worked out once: the text of an entity takes as long as all the rest.
        keyed = [(record, record.entity_key) for record in records]
        with self._reading() as connection:
            thumbs = _said_of(connection, feedback, keyed, Feedback)
            ends = _said_of(connection, outcomes, keyed, Outcome)
        return [Answered(one, tuple(_of(one, key, thumbs)), tuple(_of(one, key, ends))) for one, key in keyed]

    def conflicts(self) -> tuple[Conflict, ...]:
        """Everything that was refused, in the order in which it came."""
        columns = (conflicts.c[name] for name in Conflict.__dataclass_fields__)
        with self._reading() as connection:
            return tuple(Conflict(*row) for row in connection.execute(select(*columns).order_by(conflicts.c.number)))

    def shipped_until(self, segment: str) -> int:
        """How many bytes of a segment are in the store."""
        with self._reading() as connection:
            return connection.scalar(select(shipped.c.offset).where(shipped.c.segment == segment)) or 0

    def write(self, progress: Progress) -> int:
        """Stores the frames of a segment, and how far that goes, in one transaction; returns the new conflicts.

        What is there already is left as it is. Anything else under the same name goes to the conflicts.
        """
        with self._writing() as connection:
            return write_frames(connection, progress)

    def forget(self, segment: str) -> None:
        """Forgets how far a segment was shipped, once its file is gone."""
        with self._writing() as connection:
            connection.execute(shipped.delete().where(shipped.c.segment == segment))

    def rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        """The rows of a query of one's own over the tables of the schema."""
        with self._reading() as connection:
            return connection.execute(query).all()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._explained(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._explained(), self._engine.connect() as connection:
            writer = connection.execution_options(writes=True)
            with writer.begin():
                yield writer

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self.name, "The log keeps what is not stored.")


def record_of(content: str, sha256: str, response_id: str) -> ProvenanceRecord:
    """The record in a row. Raises IntegrityError when it is not the one that was stored."""
    if bytes_sha256(content.encode()) != sha256:
        raise IntegrityError(f"response {response_id}: its record was changed in the store. Restore it from a backup.")
    return ProvenanceRecord.from_log(content)


def _said_of(
    connection: Connection, table: Table, keyed: Sequence[tuple[ProvenanceRecord, str | None]], contract: type[Any]
) -> dict[tuple[str, str, str], list[Any]]:
    """What a table says of records, by product and the response or entity that it names."""
    found: dict[tuple[str, str, str], list[Any]] = {}
    for product in {record.product for record, _ in keyed}:
        ids = [record.response_id for record, _ in keyed if record.product == product]
        entities = {key for record, key in keyed if record.product == product} - {None}
        by_entity = and_(table.c.product == product, table.c.entity.in_(entities), table.c.response_id.is_(None))
        # Two queries, for each has its index; OR would leave it to the planner.
        for wanted in (table.c.response_id.in_(ids), by_entity):
            rows = connection.execute(select(table).where(wanted)).all()
            # Sorted here: asked to, SQLite would walk through everything ever received in that order.
            for row in sorted(rows, key=lambda row: (row.received_us, row.number)):
                kind, name = ("entity", row.entity) if row.response_id is None else ("id", row.response_id)
                # What a product says of another's response counts for neither.
                found.setdefault((row.product, kind, name), []).append(contract.from_log(row.content))
    return found


def _of(record: ProvenanceRecord, key: str | None, said: dict[tuple[str, str, str], list[Any]]) -> list[Any]:
    """By response and by entity together, in the order in which they came."""
    named = said.get((record.product, "id", record.response_id), [])
    about = said.get((record.product, "entity", key or ""), [])
    return sorted([*named, *about], key=lambda item: item.received_at)
