"""Labels that people gave, beside the records that they are about; kept for good, the newest of a labeller counts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cached_property

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    inspect,
    select,
)
from sqlalchemy.exc import IntegrityError

from ml_platform.contracts.labelling import GivenLabel
from ml_platform.errors import BusyError
from ml_platform.lineage.databases import explained, lock_until_commit, shown
from ml_platform.lineage.provenance.schema import open_store
from ml_platform.lineage.provenance.writing import microseconds

SCHEMA_LOCK = 7_410_220_134
"""The PostgreSQL advisory lock under which the table is created."""

AT_ONCE = 500

metadata = MetaData()
labels = Table(
    "labels",
    metadata,
    Column("number", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("product", String(63), nullable=False),
    Column("response_id", String(64), nullable=False),
    Column("labeller", String(63), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("labelled_us", BigInteger, nullable=False),
    Column("content", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Index("labels_once", "product", "response_id", "labeller", "revision", unique=True),
)


class Kept(StrEnum):
    """What became of a label that was put: it is the labeller's first, the same again, or in the place of another."""

    NEW = "new"
    SAME = "same"
    CHANGED = "changed"


class LabelStore:
    """Labels in the database of the records, SQLite or PostgreSQL; the first label makes the table.

    Raises StorageError and BusyError when the database does not answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _engine(self) -> Engine:
        return open_store(self.url)

    def close(self) -> None:
        """Lets go of the connections."""
        if "_engine" in self.__dict__:
            self._engine.dispose()

    def put(self, label: GivenLabel) -> Kept:
        """Keeps a label once: said again it changes nothing, another answer takes the place of the one before.

        What was said before is kept too, for a snapshot of a day on which it was known.
        """
        mine = (
            (labels.c.product == label.product)
            & (labels.c.response_id == label.response_id)
            & (labels.c.labeller == label.labeller)
        )
        with self._explained(), self._engine.connect() as connection:
            writer = connection.execution_options(writes=True)
            with writer.begin():
                _make_table(writer)
                query = select(labels.c.revision, labels.c.sha256).where(mine).order_by(labels.c.revision.desc())
                last = writer.execute(query.limit(1)).first()
                if last is not None and last.sha256 == label.said_sha256:
                    return Kept.SAME
                row = {
                    **label.model_dump(include={"product", "response_id", "labeller"}),
                    "revision": 1 if last is None else last.revision + 1,
                    "labelled_us": microseconds(label.labelled_at),
                    "content": label.log_bytes().decode(),
                    "sha256": label.said_sha256,
                }
                writer.execute(labels.insert().values(row))
        return Kept.NEW if last is None else Kept.CHANGED

    def of(self, product: str, response_ids: Sequence[str]) -> dict[str, list[GivenLabel]]:
        """Every label of these responses, by response, each labeller's in the order given."""
        found: dict[str, list[GivenLabel]] = {}
        for start in range(0, len(response_ids), AT_ONCE):
            named = labels.c.response_id.in_(response_ids[start : start + AT_ONCE])
            for label in self._labels((labels.c.product == product) & named):
                found.setdefault(label.response_id, []).append(label)
        return found

    def all(self, product: str) -> list[GivenLabel]:
        """Every label of a product, those that others took the place of too, in the order given."""
        return self._labels(labels.c.product == product)

    def _labels(self, where: object) -> list[GivenLabel]:
        with self._explained(), self._engine.connect() as connection, connection.begin():
            if not inspect(connection).has_table(labels.name):
                return []
            query = select(labels.c.content).where(where).order_by(labels.c.number)  # type: ignore[arg-type]
            return [GivenLabel.from_log(content) for content in connection.scalars(query)]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        where = f"labels in {shown(self.url)}"
        with explained(where, "Nothing was kept."):
            try:
                yield
            except IntegrityError as error:
                raise BusyError(
                    f"{where}: the same labeller put another label at this moment. Put it again."
                ) from error


def _make_table(connection: Connection) -> None:
    """Makes the table for whoever writes first: reading makes none."""
    if inspect(connection).has_table(labels.name):
        return
    if connection.dialect.name == "postgresql":
        lock_until_commit(connection, SCHEMA_LOCK)
    metadata.create_all(connection)
