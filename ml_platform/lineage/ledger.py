"""The ledger: an append-only chain of events a product, the only authority on what serves."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from ml_platform.contracts.canonical import digest
from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.events import Event
from ml_platform.errors import EpochConflictError, LedgerCorruptError
from ml_platform.lineage.databases import explained, shown
from ml_platform.lineage.keys import TrustedKeys
from ml_platform.lineage.ledger_envelopes import envelopes_of, pins_of
from ml_platform.lineage.ledger_rows import VerifiedChain, catch_up, events_of, heads_of, require_event, verify_chain
from ml_platform.lineage.ledger_schema import events, lock_product, open_engine, ring
from ml_platform.lineage.ledger_transaction import Reading, Transaction
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.story import tell

__all__ = ["Ledger", "Reading", "Transaction"]


class Ledger:
    """The ledger at a SQLAlchemy URL, SQLite or PostgreSQL; tables are created on first use.

    Reading or writing checks every event's digest, its link and that the rules allow it:
    LedgerCorruptError names the first event that is wrong. StorageError and BusyError tell of the database.
    """

    def __init__(self, url: str, *, keep_connections: bool = False) -> None:
        """`keep_connections`: see `open_engine`; `close` it at the end."""
        self.url, self._keep = url, keep_connections
        self._replays: dict[str, Replay] = {}
        self._seen: dict[str, tuple[int, str]] = {}

    @property
    def name(self) -> str:
        """The ledger and its place, for messages; without the password."""
        return f"ledger {shown(self.url)}"

    @cached_property
    def _engine(self) -> Engine:
        return open_engine(self.url, keep_connections=self._keep)

    def close(self) -> None:
        """Lets go of kept connections."""
        if "_engine" in self.__dict__:
            self._engine.dispose()

    def products(self) -> tuple[str, ...]:
        """The products that have events, by name."""
        with self._reading() as connection:
            return _products(connection)

    def heads(self) -> dict[str, str]:
        """The digest of each product's last event, unchecked: cheap, to see whether there is anything to read."""
        with self._reading() as connection:
            return heads_of(connection)

    @contextmanager
    def read(self, product: str) -> Iterator[Reading]:
        """One view of a product for a block, read on from the last time; keep nothing of its replay that changes."""
        with self._reading() as connection:
            replay = self._caught_up(connection, product)
            try:
                yield Reading(connection, replay)
            finally:
                # Not before: another thread that wrote would add to what this block is looking at.
                self._remember(replay)

    def events(self, product: str | None = None, *, newest: int | None = None) -> tuple[Event, ...]:
        """Events in the order in which they were recorded, of one product or of all; digests are checked.

        With `newest`, only so many of the last ones.
        """
        with self._reading() as connection:
            return events_of(connection, product, newest)

    def log(self, product: str | None = None) -> tuple[tuple[Event, str], ...]:
        """Every event with its sentence, in the order in which they were recorded."""
        return tuple((event, tell(event)) for event in self.events(product))

    def replay(self, product: str) -> Replay:
        """All that the chain of a product says, read anew; yours to keep."""
        with self._reading() as connection:
            return catch_up(connection, Replay(product))

    def state(self, product: str) -> DeploymentState:
        """The product's slots and releases now; reads only the events that came since the last time."""
        with self.read(product) as view:
            return view.state

    def envelopes(self, product: str, release_id: str) -> tuple[bytes, ...]:
        """Every envelope recorded for a release, in the order of the chain."""
        with self._reading() as connection:
            return envelopes_of(connection, catch_up(connection, Replay(product)), release_id)

    def pins(self, product: str) -> tuple[tuple[Event, bytes], ...]:
        """Every event that pins a policy of a product, with its envelope, whose signature is not verified."""
        with self._reading() as connection:
            return pins_of(connection, catch_up(connection, Replay(product)))

    @contextmanager
    def write(self, product: str, now: datetime, actor: str) -> Iterator[Transaction]:
        """One transaction of the only writer of a product; it is rolled back when the block raises."""
        with self._errors_explained(), self._engine.connect().execution_options(writes=True) as connection:
            with connection.begin():
                lock_product(connection, int(digest(product)[:15], 16))
                transaction = Transaction(connection, self._caught_up(connection, product), now, actor)
                try:
                    yield transaction
                finally:
                    # What appended nothing, e.g. because it came late, leaves what was read as it is.
                    if not transaction.appending:
                        self._remember(transaction.replay)
                if transaction.appending:
                    ring(connection, product)
            self._remember(transaction.replay)

    def verify(
        self, trusted: TrustedKeys | None = None, operators: TrustedKeys | None = None
    ) -> tuple[VerifiedChain, ...]:
        """Reads everything again: each chain, each envelope; with keys, each signature too, of `operators` on pins.

        Raises LedgerCorruptError that names the first broken event.
        """
        with self._reading() as connection:
            return tuple(verify_chain(connection, product, trusted, operators) for product in _products(connection))

    def _caught_up(self, connection: Connection, product: str) -> Replay:
        """What was read before and what came since, taken out so that no other thread adds to it.

        What was once seen must still be there, even where what was read of it has been given up.
        """
        known: Replay | None = self._replays.pop(product, None)
        if known is None and product in self._seen:
            require_event(connection, product, *self._seen[product])
        return catch_up(connection, known or Replay(product))

    def _remember(self, replay: Replay) -> Replay:
        if replay.sequence >= self._seen.get(replay.product, (0, ""))[0]:
            if replay.sequence:
                self._seen[replay.product] = replay.sequence, replay.head_sha256
            self._replays[replay.product] = replay
        return replay

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._errors_explained(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        with explained(self.name, "Nothing was recorded."):
            try:
                yield
            except IntegrityError as error:
                raise EpochConflictError(
                    f"{self.name}: somebody else recorded something first: {error.orig}"
                ) from error
            except OperationalError:
                raise
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise  # the chain is not what broke
                raise LedgerCorruptError(f"{self.name}: {error.orig}") from error


def _products(connection: Connection) -> tuple[str, ...]:
    return tuple(connection.scalars(select(events.c.product).distinct().order_by(events.c.product)))
