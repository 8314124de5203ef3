"""The ledger's tables on SQLite and PostgreSQL, and how a ledger is opened; migrations/ creates and changes them."""

from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.pool import NullPool

from ml_platform.errors import ContractError
from ml_platform.lineage.databases import lock_until_commit, postgres_engine, read_url, shown
from ml_platform.lineage.exclusive import exclusively

BUSY_TIMEOUT_MS = 30_000
SCHEMA_LOCK = 7_410_220_131
"""The PostgreSQL advisory lock under which the tables are created and changed."""

BELL = "ml_platform_ledger"
"""The PostgreSQL channel on which every append is told, with the product's name."""

SCHEMA_VERSION = "0001"
"""The newest revision in migrations/versions."""

VERSION_TABLE = "ledger_version"
"""Not Alembic's default name: MLflow and Dagster keep their versions under that, perhaps in the same database."""

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("position", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("product", String(63), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("payload", Text, nullable=False),
    Column("previous_sha256", String(64), nullable=False),
    Column("event_sha256", String(64), nullable=False, unique=True),
    Column("recorded_at", String(40), nullable=False),
    Column("actor", Text, nullable=False),
    UniqueConstraint("product", "sequence"),
    sqlite_autoincrement=True,
)

envelopes = Table(
    "envelopes",
    metadata,
    Column("envelope_sha256", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)


def open_engine(url: str, *, keep_connections: bool = False) -> Engine:
    """An engine on the ledger at a SQLAlchemy URL, its schema brought to SCHEMA_VERSION if it is not there.

    `keep_connections` to PostgreSQL is for processes that look often and never fork; dispose of the engine at the end.
    Raises ContractError for a URL of another database or one that cannot be read, RefusedError for a ledger of a
    newer version and for a database that is somebody else's.
    """
    parsed = read_url(url, "ledger")
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return _open_sqlite(url, Path(str(parsed.database)))
    if parsed.get_backend_name() == "postgresql":
        kept: dict[str, Any] = {"pool_size": 4, "max_overflow": 8, "pool_pre_ping": True}
        pool = kept if keep_connections else {"poolclass": NullPool}
        engine = postgres_engine(parsed, **pool)
        with engine.begin() as connection:
            if read_version(connection) != SCHEMA_VERSION:
                lock_until_commit(connection, SCHEMA_LOCK)
                _bring_up_to_date(connection)
        return engine
    raise ContractError(f"ledger URL '{shown(url)}': expected a file, sqlite:///PATH, or postgresql://…")


def read_version(connection: Connection) -> str | None:
    """The revision of the ledger's schema; None where it says none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - ours
    return version


def lock_product(connection: Connection, product_key: int) -> None:
    """Makes this transaction the only writer: of the product on PostgreSQL, of the file on SQLite."""
    if connection.dialect.name == "postgresql":
        lock_until_commit(connection, product_key)


def ring(connection: Connection, product: str) -> None:
    """Wakes whoever listens on BELL once this transaction is committed; on SQLite everybody looks for himself."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_notify(:bell, :product)"), {"bell": BELL, "product": product})


def _open_sqlite(url: str, path: Path) -> Engine:
    """Transactions are ours to begin: IMMEDIATE for writers, so that none fails half-way for being late."""
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})

    @event.listens_for(engine, "connect")
    def configure(connection, _record):  # type: ignore[no-untyped-def]
        connection.isolation_level = None
        # Damaged text is still read, so that its row does not fit its digest and is named.
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        for pragma in ("synchronous = FULL", "recursive_triggers = ON", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    if not (path.is_file() and _is_current(engine)):
        # WAL cannot be switched on while others look: one process at a time.
        with exclusively(path.with_name(path.name + ".lock")):
            with engine.connect() as connection:
                driver = connection.connection.dbapi_connection
                driver.execute("PRAGMA journal_mode = WAL")  # type: ignore[union-attr]
            with engine.connect().execution_options(writes=True) as connection, connection.begin():
                _bring_up_to_date(connection)
    return engine


def _is_current(engine: Engine) -> bool:
    with engine.connect() as connection:
        return read_version(connection) == SCHEMA_VERSION


def _bring_up_to_date(connection: Connection) -> None:
    # Alembic takes a tenth of a second to import: only a ledger that is not current pays for it.
    from ml_platform.lineage.migrations import bring_up_to_date

    bring_up_to_date(connection)
