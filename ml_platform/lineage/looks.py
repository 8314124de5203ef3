"""What controllers saw when they last looked, for people and plots; and the lease that lets one of them work."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ml_platform.contracts.monitoring import Look
from ml_platform.lineage.databases import explained, read_url, shown
from ml_platform.lineage.looks_schema import latest_looks, leases, looks, open_looks

KEPT = 400
"""So many looks of a product are kept; of older ones ever fewer."""


class LookStore:
    """Looks and leases at a SQLAlchemy URL, SQLite or PostgreSQL; tables are made on first use.

    Nothing is decided by what lies here: the ledger is the authority, and all of this may be deleted. Raises
    StorageError or BusyError when the database does not answer.
    """

    def __init__(self, url: str, *, every_seconds: float = 5.0) -> None:
        """`every_seconds` is how far looks of the history lie apart, unless something was done or changed."""
        self.url, self._every = url, every_seconds

    @cached_property
    def _engine(self) -> Engine:
        return open_looks(self.url)

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

    def products(self) -> tuple[str, ...]:
        """The products that were looked at, by name."""
        with self._reading() as connection:
            query = select(latest_looks.c.product).order_by(latest_looks.c.product)
            return tuple(connection.scalars(query)) if connection else ()

    def latest(self, product: str) -> Look | None:
        """The last look at a product, None where nobody looked."""
        with self._reading() as connection:
            query = select(latest_looks.c.content).where(latest_looks.c.product == product)
            found = connection.scalar(query) if connection else None
        return None if found is None else Look.model_validate_json(found)

    def history(self, product: str, since: datetime | None = None, most: int = 200) -> tuple[Look, ...]:
        """Looks at a product since a moment of ours, the oldest first; evenly thinned to `most`, with the newest."""
        query = select(looks.c.content).where(looks.c.product == product)
        if since is not None:
            query = query.where(looks.c.looked_at >= since.timestamp())
        with self._reading() as connection:
            found = connection.scalars(query.order_by(looks.c.number)).all() if connection else []
        last = len(found) - 1
        places = (
            range(last + 1)
            if last < most
            else sorted({last - place * last // max(most - 1, 1) for place in range(most)})
        )
        return tuple(Look.model_validate_json(found[place]) for place in places)

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
            if connection is None:
                return None
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
    def _reading(self) -> Iterator[Connection | None]:
        """A connection, None where there is no file yet: who only reads makes none."""
        parsed = read_url(self.url, "monitoring")
        if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).is_file():
            yield None
            return
        with self._explained(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._explained(), self._engine.connect() as connection:
            writer = connection.execution_options(writes=True)
            with writer.begin():
                yield writer

    def _explained(self) -> AbstractContextManager[None]:
        return explained(f"looks in {shown(self.url)}", "Decisions are in the ledger.")


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
