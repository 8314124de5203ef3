"""Databases: how long all of our stores wait for one that does not answer, and what they say then."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from ml_platform.errors import BusyError, ContractError, StorageError

SILENCE = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""What libpq makes of a PostgreSQL that says nothing: seconds to connect, milliseconds for what is not acknowledged,
and seconds after which, and between which, an idle one is asked whether it is there. Otherwise it waits for hours."""

LOCK_NOT_AVAILABLE = "55P03"
LOCK_WAIT_MS = 30_000
"""How long a writer waits for another one on PostgreSQL; on SQLite it is as long."""

HELD_BY_SILENCE_MS = 60_000
"""After so long without a word in its transaction a writer that holds a lock is dismissed: a process that was stopped,
or a machine that sleeps, keeps its connection and would keep the lock for ever."""


def lock_until_commit(connection: Connection, key: int) -> None:
    """Takes an advisory lock of PostgreSQL for this transaction; nobody holds one, or waits for one, without end."""
    limits = {"lock_timeout": LOCK_WAIT_MS, "idle_in_transaction_session_timeout": HELD_BY_SILENCE_MS}
    for name, milliseconds in limits.items():
        connection.execute(text("SELECT set_config(:name, :value, true)"), {"name": name, "value": str(milliseconds)})
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def postgres_engine(url: URL, **given: Any) -> Engine:
    """An engine on a PostgreSQL, which gives up one that is silent; what the URL says of that itself counts."""
    silence = {name: value for name, value in SILENCE.items() if name not in url.query}
    return create_engine(url.set(drivername="postgresql+psycopg"), connect_args=silence, **given)


def read_url(url: str, of: str) -> URL:
    """The URL `of` a store. Raises ContractError, which does not repeat it: nobody knows where its password stands."""
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise ContractError(
            f"{of} URL: cannot be read. It is not shown, for there may be a password in it. Expected sqlite:///PATH or "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE."
        ) from None


def shown(url: str | URL) -> str:
    """The URL without its password; of one that cannot be read nothing is shown, for nobody knows where it stands."""
    try:
        read = make_url(url)
    except (ArgumentError, ValueError):
        return "at a URL that cannot be read"
    if "password" in read.query:
        read = read.update_query_dict({"password": "***"})
    return read.render_as_string(hide_password=True)


@contextmanager
def explained(store: str, consequence: str) -> Iterator[None]:
    """Raises BusyError where another process holds a lock for long, StorageError for all else that a database raises.

    `store` names the store and its place, without a password; `consequence` is a sentence for people.
    """
    try:
        yield
    except OperationalError as error:
        if "locked" in str(error.orig) or getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE:
            raise BusyError(f"{store}: another process has been writing for long. Try again.") from error
        raise StorageError(f"{store}: {error.orig}. {consequence}") from error
    except DBAPIError as error:
        raise StorageError(f"{store}: {error.orig}. {consequence}") from error
    except OSError as error:
        raise StorageError(f"{store}: {error}. {consequence}") from error
