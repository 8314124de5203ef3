"""The ledger's schema, one revision after the other; `open_engine` brings a ledger to the newest.

A further revision is a file in `versions/` whose `down_revision` is the newest so far, and SCHEMA_VERSION raised to it.
It works on SQLite and PostgreSQL, keeps every row and every trigger, and there is no way back: history is not undone.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from ml_platform.errors import RefusedError
from ml_platform.lineage.databases import shown
from ml_platform.lineage.ledger_schema import SCHEMA_VERSION, metadata, read_version

FOLDER = Path(__file__).parent

FIRST = "0001"
"""What ledgers were like before they said their version."""


def revisions() -> tuple[str, ...]:
    """Every revision that this code knows, the first one first."""
    return tuple(reversed([script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]))


def bring_up_to_date(connection: Connection) -> None:
    """Creates or changes the schema, all in the transaction and under the lock that the connection holds.

    Tables without a version are the first revision's and are kept as they are. Raises RefusedError for a version that
    this code does not know, and for tables that are no ledger's.
    """
    version = read_version(connection)
    if version is None and _holds_tables(connection):
        command.stamp(_config(connection), FIRST)
    elif version not in (None, *revisions()):
        raise RefusedError(
            f"{_name(connection)}: its schema is version {version}, this ml_platform knows up to {SCHEMA_VERSION}: a "
            "newer one has written it. Install that one or a later one; nothing was changed."
        )
    command.upgrade(_config(connection), SCHEMA_VERSION)


def _holds_tables(connection: Connection) -> bool:
    """Whether the ledger's tables are there already. Raises RefusedError for others of their names."""
    found = set(inspect(connection).get_table_names()) & set(metadata.tables)
    for name in sorted(found):
        columns = [column["name"] for column in inspect(connection).get_columns(name)]
        if columns != metadata.tables[name].columns.keys() or found != set(metadata.tables):
            raise RefusedError(
                f"{_name(connection)}: holds a table '{name}' that is no ledger's, with {', '.join(columns)}. Name a "
                "database of its own in ML_PLATFORM_LEDGER_URL; nothing was changed."
            )
    return bool(found)


def _name(connection: Connection) -> str:
    return f"ledger {shown(str(connection.engine.url))}"


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    # Alembic reads its options through configparser, to which a percent sign means something.
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
