"""The tables of looks and leases on SQLite and PostgreSQL, and how a store of them is opened."""

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
    event,
)
from sqlalchemy.pool import NullPool

from ml_platform.errors import ContractError
from ml_platform.lineage.databases import lock_until_commit, postgres_engine, read_url, shown
from ml_platform.lineage.exclusive import exclusively

BUSY_TIMEOUT_S = 5.0
SCHEMA_LOCK = 7_410_220_133
"""The PostgreSQL advisory lock under which the tables are created."""

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


def open_looks(url: str) -> Engine:
    """An engine on the looks at a SQLAlchemy URL, its tables made if they are not there.

    Raises ContractError for a URL of another database or one that cannot be read.
    """
    parsed = read_url(url, "monitoring")
    if parsed.get_backend_name() == "postgresql":
        engine = postgres_engine(parsed, pool_pre_ping=True)
        with engine.begin() as connection:
            lock_until_commit(connection, SCHEMA_LOCK)
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
    with exclusively(path.with_name(path.name + ".lock")):
        with engine.connect() as connection:
            connection.connection.dbapi_connection.execute("PRAGMA journal_mode = WAL")  # type: ignore[union-attr]
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            metadata.create_all(connection)
    return engine
