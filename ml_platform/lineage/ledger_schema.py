"""The ledger's tables on SQLite and PostgreSQL, and the triggers that keep them append-only."""

import fcntl
from pathlib import Path

from sqlalchemy import (
    DDL,
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
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from ml_platform.errors import ContractError

BUSY_TIMEOUT_MS = 30_000
SCHEMA_LOCK = 7_410_220_131
"""The PostgreSQL advisory lock under which the tables are created."""

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


def _run(dialect: str, when: str, target: Table | MetaData, statement: str) -> None:
    """Lets a statement run on a dialect `after_create` or `before_create` of a table or of all."""
    event.listen(target, when, DDL(statement).execute_if(dialect=dialect))  # type: ignore[no-untyped-call]


for _table in (events, envelopes):
    for _action in ("UPDATE", "DELETE"):
        _run(
            "sqlite",
            "after_create",
            _table,
            f"CREATE TRIGGER {_table.name}_no_{_action.lower()} BEFORE {_action} ON {_table.name} "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
        )
    _run(
        "postgresql",
        "after_create",
        _table,
        f"CREATE TRIGGER {_table.name}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {_table.name} "
        "FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only()",
    )
_run(
    "postgresql",
    "before_create",
    metadata,
    "CREATE OR REPLACE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$",
)
# On SQLite, INSERT OR REPLACE would delete a row without the trigger for DELETE.
_run(
    "sqlite",
    "after_create",
    events,
    "CREATE TRIGGER events_in_order BEFORE INSERT ON events WHEN NEW.sequence <> 1 + "
    "(SELECT coalesce(max(sequence), 0) FROM events WHERE product = NEW.product) "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
)
_run(
    "sqlite",
    "after_create",
    envelopes,
    "CREATE TRIGGER envelopes_no_replace BEFORE INSERT ON envelopes WHEN EXISTS (SELECT 1 FROM envelopes "
    "WHERE envelope_sha256 = NEW.envelope_sha256) BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
)


def open_engine(url: str) -> Engine:
    """An engine on the ledger at a SQLAlchemy URL, its tables created if they are not there.

    Raises ContractError for a URL of another database or one that cannot be read.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ContractError(f"ledger URL '{url}': cannot be read. Expected sqlite:///PATH or postgresql://…") from None
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return _open_sqlite(url, Path(str(parsed.database)))
    if parsed.get_backend_name() == "postgresql":
        engine = create_engine(parsed.set(drivername="postgresql+psycopg"), poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
            metadata.create_all(connection)
        return engine
    raise ContractError(f"ledger URL '{shown(url)}': expected a file, sqlite:///PATH, or postgresql://…")


def shown(url: str) -> str:
    """The URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


def lock_product(connection: Connection, product_key: int) -> None:
    """Makes this transaction the only writer: of the product on PostgreSQL, of the file on SQLite."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": product_key})


def _open_sqlite(url: str, path: Path) -> Engine:
    """Transactions are ours to begin: IMMEDIATE for writers, so that none fails half-way for being late."""
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})

    @event.listens_for(engine, "connect")
    def configure(connection, _record):  # type: ignore[no-untyped-def]
        connection.isolation_level = None
        for pragma in ("synchronous = FULL", "recursive_triggers = ON", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    if not (path.is_file() and _has_tables(engine)):
        # WAL cannot be switched on while others look: one process at a time.
        with path.with_name(path.name + ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with engine.connect() as connection:
                driver = connection.connection.dbapi_connection
                driver.execute("PRAGMA journal_mode = WAL")  # type: ignore[union-attr]
            with engine.connect().execution_options(writes=True) as connection, connection.begin():
                metadata.create_all(connection)
    return engine


def _has_tables(engine: Engine) -> bool:
    return set(metadata.tables) <= set(inspect(engine).get_table_names())
