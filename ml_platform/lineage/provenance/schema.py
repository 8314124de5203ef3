"""The tables of the provenance store on SQLite and PostgreSQL, and how one is opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.engine import URL

from ml_platform.errors import ContractError, RefusedError
from ml_platform.lineage.databases import lock_until_commit, postgres_engine, read_url, shown
from ml_platform.lineage.exclusive import exclusively

BUSY_TIMEOUT_S = 30.0
SCHEMA_LOCK = 7_410_220_132
"""The PostgreSQL advisory lock under which the tables are created; the ledger has its own."""

LONGEST_ENTITY_BYTES = 2_500
"""An entity's text stands in an index, and PostgreSQL refuses rows of more than 2,704 bytes there."""

SCHEMA_VERSION = 1
PAGE_CACHE_KIB = 65_536
PAGE_BYTES = 16_384

metadata = MetaData()
_Number = BigInteger().with_variant(Integer(), "sqlite")

version_table = Table("provenance_version", metadata, Column("version", Integer, primary_key=True))

responses = Table(
    "responses",
    metadata,
    # Rows lie in the order in which they came, so that millions of random ids do not scatter the records themselves.
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("response_id", String(64), nullable=False),
    Column("product", String(63), nullable=False),
    Column("release_id", String(64)),
    Column("cohort", String(16), nullable=False),
    Column("answered_us", BigInteger, nullable=False),
    Column("entity", Text),
    Column("content", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Index("responses_by_id", "response_id", unique=True),
    Index("responses_by_time", "product", "answered_us"),
    Index("responses_by_cohort", "product", "release_id", "cohort", "answered_us"),
    Index("responses_by_entity", "product", "entity"),
)


def _said(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("number", _Number, primary_key=True, autoincrement=True),
        Column("product", String(63), nullable=False),
        Column("idempotency_key", String(128), nullable=False),
        Column("response_id", String(64)),
        Column("entity", Text),
        Column("received_us", BigInteger, nullable=False),
        Column("content", Text, nullable=False),
        Column("sha256", String(64), nullable=False),
        Index(f"{name}_by_key", "product", "idempotency_key", unique=True),
        Index(f"{name}_by_response", "response_id"),
        Index(f"{name}_by_entity", "product", "entity"),
        Index(f"{name}_by_time", "product", "received_us"),
    )


feedback = _said("feedback")
outcomes = _said("outcomes")

conflicts = Table(
    "conflicts",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("product", String(63), nullable=False),
    Column("key", String(128), nullable=False),
    Column("kept_sha256", String(64)),
    Column("refused_sha256", String(64), nullable=False),
    Column("refused", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("conflicts_once", "kind", "product", "key", "refused_sha256", unique=True),
)
"""What came under a name that stands for something else, or could not be read; kept, for nothing is dropped unseen."""

shipped = Table(
    "shipped", metadata, Column("segment", String(64), primary_key=True), Column("offset", BigInteger, nullable=False)
)
"""How far each segment is in the store; written with what it tells of."""


def open_store(url: str) -> Engine:
    """An engine on the store at a SQLAlchemy URL, its tables made if they are not there.

    Raises ContractError for a URL of another database, RefusedError for a store of another version.
    """
    parsed = read_url(url, "store")
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return _open_sqlite(parsed, Path(str(parsed.database)))
    if parsed.get_backend_name() == "postgresql":
        engine = postgres_engine(parsed, pool_pre_ping=True)
        with _disposed_on_failure(engine), engine.begin() as connection:
            lock_until_commit(connection, SCHEMA_LOCK)
            _make_tables(connection)
        return engine
    raise ContractError(f"store URL '{shown(parsed)}': expected a file, sqlite:///PATH, or postgresql://…")


def _open_sqlite(url: URL, path: Path) -> Engine:
    """Transactions are ours to begin: IMMEDIATE for writers, so that none fails half-way for being late."""
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def configure(connection, _record):  # type: ignore[no-untyped-def]
        connection.isolation_level = None
        # FULL: what is in the store may be deleted from the log at once.
        for pragma in ("synchronous = FULL", "trusted_schema = OFF", f"cache_size = -{PAGE_CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    # WAL cannot be switched on while others look: one process at a time.
    with _disposed_on_failure(engine), exclusively(path.with_name(path.name + ".lock")):
        with engine.connect() as connection:
            driver = connection.connection.dbapi_connection
            # Before the first page is written: several records to a page, where one and a half would waste a third.
            driver.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # type: ignore[union-attr]
            driver.execute("PRAGMA journal_mode = WAL")  # type: ignore[union-attr]
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            _make_tables(connection)
    return engine


@contextmanager
def _disposed_on_failure(engine: Engine) -> Iterator[None]:
    try:
        yield
    except BaseException:
        engine.dispose()
        raise


def _make_tables(connection: Connection) -> None:
    if not inspect(connection).has_table(version_table.name):
        metadata.create_all(connection)
        connection.execute(version_table.insert().values(version=SCHEMA_VERSION))
    found = connection.scalar(select(version_table.c.version))
    if found != SCHEMA_VERSION:
        raise RefusedError(
            f"the provenance store {shown(connection.engine.url)} is of version {found}, this program knows "
            f"{SCHEMA_VERSION}. Run the version that wrote it, or newer."
        )
