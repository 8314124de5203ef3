"""The ledger's schema comes from migrations: fresh, adopted and upgraded ledgers are alike and refuse changes."""

# ruff: noqa: S608 - every name in these statements is ours

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from ml_platform.errors import RefusedError
from ml_platform.lineage import ledger_schema, migrations
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.ledger_schema import SCHEMA_VERSION, VERSION_TABLE, metadata, open_engine, read_version
from tests.samples.postgres import make_database
from tests.samples.releases import NOW, PRODUCT, trusting
from tests.unit.test_ledger import KEY, RELEASE, execute, fill

REFUSED = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
BEFORE_VERSIONS = {
    "sqlite": f"""
CREATE TABLE events (
\tposition INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
\tproduct VARCHAR(63) NOT NULL,
\tsequence BIGINT NOT NULL,
\tepoch BIGINT NOT NULL,
\tkind VARCHAR(40) NOT NULL,
\tpayload TEXT NOT NULL,
\tprevious_sha256 VARCHAR(64) NOT NULL,
\tevent_sha256 VARCHAR(64) NOT NULL,
\trecorded_at VARCHAR(40) NOT NULL,
\tactor TEXT NOT NULL,
\tUNIQUE (product, sequence),
\tUNIQUE (event_sha256)
);;
CREATE TABLE envelopes (
\tenvelope_sha256 VARCHAR(64) NOT NULL,
\tcontent BLOB NOT NULL,
\tPRIMARY KEY (envelope_sha256)
);;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events {REFUSED};;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events {REFUSED};;
CREATE TRIGGER events_in_order BEFORE INSERT ON events WHEN NEW.sequence <> 1 + (SELECT coalesce(max(sequence), 0) \
FROM events WHERE product = NEW.product) {REFUSED};;
CREATE TRIGGER envelopes_no_update BEFORE UPDATE ON envelopes {REFUSED};;
CREATE TRIGGER envelopes_no_delete BEFORE DELETE ON envelopes {REFUSED};;
CREATE TRIGGER envelopes_no_replace BEFORE INSERT ON envelopes WHEN EXISTS (SELECT 1 FROM envelopes \
WHERE envelope_sha256 = NEW.envelope_sha256) {REFUSED}""",
    "postgresql": """
CREATE OR REPLACE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS \
$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;;
CREATE TABLE events (
\tposition BIGSERIAL NOT NULL,
\tproduct VARCHAR(63) NOT NULL,
\tsequence BIGINT NOT NULL,
\tepoch BIGINT NOT NULL,
\tkind VARCHAR(40) NOT NULL,
\tpayload TEXT NOT NULL,
\tprevious_sha256 VARCHAR(64) NOT NULL,
\tevent_sha256 VARCHAR(64) NOT NULL,
\trecorded_at VARCHAR(40) NOT NULL,
\tactor TEXT NOT NULL,
\tPRIMARY KEY (position),
\tUNIQUE (product, sequence),
\tUNIQUE (event_sha256)
);;
CREATE TABLE envelopes (
\tenvelope_sha256 VARCHAR(64) NOT NULL,
\tcontent BYTEA NOT NULL,
\tPRIMARY KEY (envelope_sha256)
);;
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events \
FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();;
CREATE TRIGGER envelopes_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON envelopes \
FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only()""",
}
"""What create_all made of a ledger before there were migrations, as the databases themselves told it."""

FURTHER = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("events", sa.Column("note", sa.Text))
    {then}
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Two new databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'one.sqlite'}", f"sqlite:///{tmp_path / 'other.sqlite'}"
    server = request.getfixturevalue("postgres")
    return make_database(server), make_database(server)


def bare_engine(url: str) -> Engine:
    """An engine that opens no ledger and keeps no connection."""
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)


def bare(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Runs SQL as somebody would who does not have this library; returns the rows of the last statement."""
    with bare_engine(url).begin() as connection:
        results = [connection.exec_driver_sql(statement) for statement in statements]
        return [tuple(row) for row in results[-1]] if results[-1].returns_rows else []


def schema_of(url: str) -> list[tuple[Any, ...]]:
    """All that the database knows of tables, columns, keys, functions and triggers, in its own words."""
    if url.startswith("sqlite"):
        told = bare(url, "SELECT type, name, sql FROM sqlite_master ORDER BY type, name")
        return [(*row[:-1], " ".join((row[-1] or "").split())) for row in told]
    columns = (
        "table_name, ordinal_position, column_name, data_type, character_maximum_length, is_nullable, column_default"
    )
    mine = "connamespace = 'public'::regnamespace"
    return [
        *bare(
            url,
            f"SELECT {columns}, column_default FROM information_schema.columns WHERE table_schema = 'public' "
            "ORDER BY table_name, ordinal_position",
        ),
        *bare(url, f"SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE {mine} ORDER BY 1"),
        *bare(url, "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"),
        *bare(url, "SELECT pg_get_functiondef('ledger_is_append_only'::regproc)"),
    ]


def make_old(url: str, source: str | None = None) -> None:
    """A ledger as it was before migrations, with what another one holds."""
    bare(url, *BEFORE_VERSIONS[url.partition(":")[0]].split(";;"))
    if url.startswith("sqlite"):
        bare(url, "PRAGMA journal_mode = WAL")
    if source is None:
        return
    with open_engine(source).connect() as rows, bare_engine(url).begin() as connection:
        for table in metadata.sorted_tables:
            held = [row._asdict() for row in rows.execute(table.select().order_by(*table.primary_key))]
            connection.execute(table.insert(), held)


def test_the_newest_revision_is_the_version_that_the_code_expects() -> None:
    assert migrations.revisions()[0] == migrations.FIRST
    assert migrations.revisions()[-1] == SCHEMA_VERSION


def test_migrations_make_exactly_the_tables_that_the_code_asks(urls: tuple[str, str]) -> None:
    engine = open_engine(urls[0])
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        assert read_version(connection) == SCHEMA_VERSION


def test_a_ledger_from_before_migrations_is_adopted_whole(urls: tuple[str, str]) -> None:
    fresh, old = urls
    ledger = fill(fresh)
    make_old(old, source=fresh)
    before = bare(old, "SELECT * FROM events ORDER BY position")
    adopted = Ledger(old)
    assert adopted.events() == ledger.events()
    assert adopted.verify(trusting(KEY)) == ledger.verify(trusting(KEY))
    assert bare(old, "SELECT * FROM events ORDER BY position") == before
    assert schema_of(old) == schema_of(fresh)
    with adopted.write(PRODUCT, NOW, "tester") as transaction:
        assert RELEASE.release_id in transaction.replay.releases


@pytest.mark.parametrize("adopted", [False, True], ids=["fresh", "adopted"])
@pytest.mark.parametrize("table", ["events", "envelopes"])
def test_what_was_migrated_refuses_changes(urls: tuple[str, str], table: str, adopted: bool) -> None:
    fresh, old = urls
    fill(fresh)
    if adopted:
        make_old(old, source=fresh)
        Ledger(old).verify()
    column = metadata.tables[table].columns.keys()[-1]
    url = old if adopted else fresh
    for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
        with pytest.raises(DBAPIError, match="append-only"):
            execute(url, statement)
    assert Ledger(url).verify(trusting(KEY))


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(urls: tuple[str, str]) -> None:
    url, _ = urls
    fill(url)
    bare(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    before = schema_of(url), bare(url, "SELECT * FROM events")
    with pytest.raises(RefusedError, match=r"version 9999, this ml_platform knows up to .*Install"):
        Ledger(url).products()
    assert (schema_of(url), bare(url, "SELECT * FROM events")) == before
    assert bare(url, f"SELECT version_num FROM {VERSION_TABLE}") == [("9999",)]


def test_a_database_with_somebody_elses_tables_is_refused(urls: tuple[str, str]) -> None:
    for url, name in zip(urls, ("events", "envelopes"), strict=True):
        bare(url, f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, what TEXT)")
        before = schema_of(url) if url.startswith("sqlite") else None
        with pytest.raises(RefusedError, match=f"table '{name}' that is no ledger's, with id, what"):
            Ledger(url).products()
        assert before is None or schema_of(url) == before


def test_alembics_own_table_of_another_program_is_left_alone(urls: tuple[str, str]) -> None:
    url, _ = urls
    bare(url, "CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('mlflow')")
    assert fill(url).verify(trusting(KEY))
    assert bare(url, "SELECT version_num FROM alembic_version") == [("mlflow",)]


def test_many_may_adopt_at_once(urls: tuple[str, str]) -> None:
    fresh, old = urls
    fill(fresh)
    make_old(old, source=fresh)
    with ThreadPoolExecutor(8) as pool:
        products = list(pool.map(lambda _: Ledger(old).products(), range(8)))
    assert products == [(PRODUCT,)] * 8
    assert bare(old, f"SELECT version_num FROM {VERSION_TABLE}") == [(SCHEMA_VERSION,)]


def with_further_revision(folder: Path, monkeypatch: pytest.MonkeyPatch, then: str = "") -> None:
    """The library as it will be when its schema has one revision more."""
    copy = shutil.copytree(migrations.FOLDER, folder / "100% migrations")
    (copy / "versions" / "v0002_note.py").write_text(FURTHER.format(then=then))
    monkeypatch.setattr(migrations, "FOLDER", copy)
    for module in (migrations, ledger_schema):
        monkeypatch.setattr(module, "SCHEMA_VERSION", "0002")


def columns_of(url: str) -> list[str]:
    with bare_engine(url).connect() as connection:
        return [column["name"] for column in inspect(connection).get_columns("events")]


@pytest.mark.parametrize("old", [False, True], ids=["of a version", "from before"])
def test_opening_brings_an_older_ledger_to_the_newest_version(
    urls: tuple[str, str], old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = urls[0]
    fill(url)
    if old:
        make_old(urls[1], source=url)
        url = urls[1]
    rows = bare(url, "SELECT * FROM events ORDER BY position")
    with_further_revision(tmp_path, monkeypatch)
    with open_engine(url).connect() as connection:
        assert read_version(connection) == "0002"
    assert columns_of(url)[-1] == "note"
    assert bare(url, "SELECT * FROM events ORDER BY position") == [(*row, None) for row in rows]
    with pytest.raises(DBAPIError, match="append-only"):
        bare(url, "DELETE FROM events")


def test_a_migration_that_fails_half_way_changes_nothing(
    urls: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = urls
    fill(url)
    before = schema_of(url)
    with monkeypatch.context() as patch:
        with_further_revision(tmp_path, patch, then='raise KeyboardInterrupt("power cut")')
        with pytest.raises(KeyboardInterrupt):
            open_engine(url)
    assert schema_of(url) == before
    assert Ledger(url).verify(trusting(KEY))


def test_opening_a_current_ledger_loads_no_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    fill(url)
    program = (
        "import sys; from ml_platform.lineage.ledger import Ledger; "
        "print(Ledger(sys.argv[1]).products(), 'alembic' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program, url], check=True, capture_output=True, text=True).stdout
    assert told == f"{(PRODUCT,)} False\n"
