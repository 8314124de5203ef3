"""What controllers saw when they last looked, for people and plots; and the lease that lets one of them work."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.pool import NullPool

from ml_platform.contracts.monitoring import Look
from ml_platform.errors import ContractError, StorageError
from ml_platform.lineage.ledger_schema import shown

BUSY_TIMEOUT_S = 5.0
SCHEMA_LOCK = 7_410_220_133
KEPT = 400
"""So many looks of a product are kept; of older ones ever fewer."""

metadata = MetaData()
_Number = BigInteger().with_variant(Integer(), "sqlite")

latest_looks = Table(
    "latest_looks", metadata, Column("product", String(63), primary_key=True), Column("content", Text, nullable=False)
)
looks = Table(
    "looks",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("product", String(63), nullable=False, index=True),
    Column("looked_at", Float, nullable=False),
    Column("content", Text, nullable=False),
)
leases = Table(
    "leases",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Float, nullable=False),
)


class LookStore:
    """Looks and leases at a SQLAlchemy URL, SQLite or PostgreSQL; tables are made on first use.

    Nothing is decided by what lies here: the ledger is the authority, and all of this may be deleted. Raises
    StorageError when the database does not answer.
    """

    def __init__(self, url: str, *, every_seconds: float = 5.0) -> None:
        """`every_seconds` is how far looks of the history lie apart, unless something was done or changed."""
        self.url, self._every = url, every_seconds

    @cached_property
    def _engine(self) -> Engine:
        return _open(self.url)

    def close(self) -> None:
        """Lets go of the connections."""
        if "_engine" in self.__dict__:
            self._engine.dispose()

    def put(self, look: Look) -> None:
        """Keeps the latest look of its product, and in the history unless it says what the one before said."""
        content = look.model_dump_json()
        with self._writing() as connection:
            known = connection.scalar(select(latest_looks.c.content).where(latest_looks.c.product == look.product))
            if known is None:
                connection.execute(insert(latest_looks).values(product=look.product, content=content))
            else:
                where = latest_looks.c.product == look.product
                connection.execute(update(latest_looks).where(where).values(content=content))
            if self._is_news(connection, look):
                at = look.looked_at.timestamp()
                connection.execute(insert(looks).values(product=look.product, looked_at=at, content=content))
                _thin(connection, look.product)

    def latest(self, product: str) -> Look | None:
        """The last look at a product, None where nobody looked."""
        with self._reading() as connection:
            found = connection.scalar(select(latest_looks.c.content).where(latest_looks.c.product == product))
        return None if found is None else Look.model_validate_json(found)

    def history(self, product: str, limit: int = KEPT, since: datetime | None = None) -> tuple[Look, ...]:
        """The newest looks at a product, the oldest of them first."""
        query = select(looks.c.content).where(looks.c.product == product)
        if since is not None:
            query = query.where(looks.c.looked_at >= since.timestamp())
        with self._reading() as connection:
            found = connection.scalars(query.order_by(looks.c.number.desc()).limit(limit)).all()
        return tuple(Look.model_validate_json(content) for content in reversed(found))

    def take_lease(self, name: str, holder: str, seconds: float) -> bool:
        """Whether the lease is the holder's for so many seconds from now: it was free, run out, or his already.

        Time is the database's. A lease only saves work: two that hold one do no harm, for each move names its epoch.
        """
        with self._writing() as connection:
            now = _clock(connection)
            mine = (leases.c.name == name) & ((leases.c.holder == holder) | (leases.c.until <= now))
            taken = connection.execute(update(leases).where(mine).values(holder=holder, until=now + seconds))
            if taken.rowcount:
                return True
            if connection.scalar(select(leases.c.holder).where(leases.c.name == name)) is not None:
                return False
            try:
                connection.execute(insert(leases).values(name=name, holder=holder, until=now + seconds))
            except IntegrityError:
                return False
            return True

    def drop_lease(self, name: str, holder: str) -> None:
        """Lets go of a lease, so that nobody has to wait for its end; nothing where it is another's."""
        with self._writing() as connection:
            connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))

    def lease_holder(self, name: str) -> str | None:
        """Who holds a lease now, None for nobody."""
        with self._reading() as connection:
            query = select(leases.c.holder).where(leases.c.name == name, leases.c.until > _clock(connection))
            return connection.scalar(query)

    def _is_news(self, connection: Connection, look: Look) -> bool:
        query = select(looks.c.content, looks.c.looked_at).where(looks.c.product == look.product)
        last = connection.execute(query.order_by(looks.c.number.desc()).limit(1)).first()
        if last is None or look.looked_at.timestamp() - last.looked_at >= self._every:
            return True
        before = Look.model_validate_json(last.content)
        return _subject(before) != _subject(look)

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

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StorageError(f"looks in {shown(self.url)}: {error.orig}. Decisions are in the ledger.") from error
        except OSError as error:
            raise StorageError(f"looks in {shown(self.url)}: {error}. Decisions are in the ledger.") from error


def _subject(look: Look) -> tuple[object, ...]:
    """What makes two looks different for people, but for their numbers."""
    decision = look.decision
    slots = (look.production, look.canary, look.shadow, look.step, look.frozen)
    return (*slots, decision.action, decision.epoch, decision.incident)


def _thin(connection: Connection, product: str) -> None:
    """Drops every other one of the older half when there are too many: plots keep their shape, files their size."""
    mine = looks.c.product == product
    if (connection.scalar(select(func.count()).where(mine)) or 0) <= KEPT:
        return
    numbers = connection.scalars(select(looks.c.number).where(mine).order_by(looks.c.number)).all()
    connection.execute(delete(looks).where(looks.c.number.in_(numbers[1 : len(numbers) // 2 : 2])))


def _clock(connection: Connection) -> float:
    if connection.dialect.name == "postgresql":
        return float(connection.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0.0)
    return float(connection.exec_driver_sql("SELECT (julianday('now') - 2440587.5) * 86400.0").scalar() or 0.0)


def _open(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ContractError(
            f"monitoring URL '{url}': cannot be read. Expected sqlite:///PATH or postgresql://…"
        ) from None
    if parsed.get_backend_name() == "postgresql":
        engine = create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        with engine.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(SCHEMA_LOCK)))
            metadata.create_all(connection)
        return engine
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise ContractError(f"monitoring URL '{shown(url)}': expected a file, sqlite:///PATH, or postgresql://…")
    return _open_sqlite(url, Path(str(parsed.database)))


def _open_sqlite(url: str, path: Path) -> Engine:
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def configure(connection, _record):  # type: ignore[no-untyped-def]
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    # WAL cannot be switched on while others look: one process at a time.
    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with engine.connect() as connection:
            connection.connection.dbapi_connection.execute("PRAGMA journal_mode = WAL")  # type: ignore[union-attr]
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            metadata.create_all(connection)
    return engine
