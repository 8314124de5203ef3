"""Lookups: rows of a source that serving finds by key, as they were known at a moment."""

import json
import math
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ml_platform.contracts.products import Product
from ml_platform.contracts.provenance import Scalar
from ml_platform.contracts.reach import unfit_lookup
from ml_platform.contracts.serving import LookupSpec
from ml_platform.contracts.source import ColumnType, SourceSpec
from ml_platform.errors import ContractError, InvalidInputError
from ml_platform.features.definitions import known_column
from ml_platform.features.store import sql_name
from ml_platform.lineage.artifacts import Artifact
from ml_platform.snapshots.spelling import spoken

REMEMBERED = 50_000
"""Entities of a view and keys of a lookup that are kept in memory; beyond them the oldest go."""

Row = Mapping[str, Scalar | None]
Key = tuple[Any, ...]
_UNKNOWN: Any = object()
_KEY_TYPES = {ColumnType.STRING: "TEXT", ColumnType.INTEGER: "INTEGER"}


def checked_lookups(product: Product) -> dict[str, LookupSpec]:
    """The product's lookups, whose every column exists in its source and whose keys are text or integers.

    Raises ContractError that names the lookup and the nearest known column.
    """
    where = product.folder / (product.spec.files.serving or "serving.yaml")
    for name, lookup in product.serving.lookups.items():
        for problem in unfit_lookup(f"{where}: lookup '{name}'", lookup, product.spec.sources):
            raise ContractError(problem)
    return product.serving.lookups


def write_lookups(product: Product, snapshot: Artifact, at: datetime, file: Path) -> dict[str, int]:
    """Writes what was known at `at` as one SQLite table a lookup; returns how many rows each has.

    Of the rows of a key that were known by then, the newest counts. The table holds the key's columns and, as JSON,
    the others; times are text in UTC, as facts tell them.
    """
    counts = {}
    with closing(sqlite3.connect(file)) as connection, connection:
        for name, lookup in checked_lookups(product).items():
            source = product.spec.sources[lookup.source]
            columns = {_key_column(n): _KEY_TYPES[source.columns[key]] for n, key in enumerate(lookup.key)}
            keys = ", ".join(f"{column} {kind} NOT NULL" for column, kind in columns.items())
            connection.execute(
                f"CREATE TABLE {_table(name)} ({keys}, content TEXT NOT NULL, PRIMARY KEY ({', '.join(columns)})) "
                "WITHOUT ROWID"
            )
            places = ", ".join("?" * (len(lookup.key) + 1))
            written = connection.executemany(
                f"INSERT INTO {_table(name)} VALUES ({places})",  # noqa: S608 - the name is quoted
                _rows(lookup, source, snapshot.file(f"tables/{lookup.source}.parquet"), at),
            )
            counts[name] = written.rowcount if written.rowcount > 0 else 0
    return counts


class OpenLookups:
    """The lookups of a publication, read by key; thread-safe, and what was found once is remembered.

    Raises sqlite3.Error or ValueError for a damaged file.
    """

    def __init__(self, lookups: Mapping[str, LookupSpec], file: Path) -> None:
        self._specs = lookups
        self._queries = {name: _query(name, lookup) for name, lookup in lookups.items()}
        self._found: dict[str, dict[Key, Row | None]] = {name: {} for name in lookups}
        self._lock = threading.Lock()
        # An empty database where there are none.
        there = f"{file.absolute().as_uri()}?mode=ro" if lookups else ":memory:"
        self._connection = sqlite3.connect(there, uri=True, check_same_thread=False)

    def find(self, lookup: str, row: Row) -> Row | None:
        """The columns of the row whose key `row` names, None where there is none; InvalidInputError for no key."""
        if lookup not in self._specs:
            raise InvalidInputError(f"there is no lookup '{lookup}'; known: {', '.join(self._specs) or 'none'}.")
        remembered = self._found[lookup]
        key = tuple(_required(row, name, lookup) for name in self._specs[lookup].key)
        found: Row | None = remembered.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            stored = self._stored(lookup, key)
            # SQLite takes "7" for 7; we do not.
            found = None if stored is None or stored[1:] != key else json.loads(stored[0])
            remembered[key] = found
            forget_oldest(remembered)
        return found

    def remembered(self, lookup: str, row: Row) -> Row | None:
        """What `find` gives where it is in memory, None where it is not or where there is no such row."""
        if lookup not in self._specs:
            return None
        return self._found[lookup].get(tuple(row.get(name) for name in self._specs[lookup].key))

    def _stored(self, lookup: str, key: Key) -> tuple[Any, ...] | None:
        try:
            with self._lock:
                found: tuple[Any, ...] | None = self._connection.execute(self._queries[lookup], key).fetchone()
        except (UnicodeError, OverflowError):
            return None  # no table can hold half a surrogate pair, or an integer of more than 64 bits
        return found

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._connection.close()


def finite(value: Any) -> Any:
    """The value, None for NaN and infinities, which are no values."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def forget_oldest(remembered: dict[Key, Any]) -> None:
    """Keeps what is remembered within its bound; another thread may have forgotten the same already."""
    while len(remembered) > REMEMBERED:
        try:
            remembered.pop(next(iter(remembered)), None)
        except (StopIteration, RuntimeError):
            return


def _required(row: Row, name: str, lookup: str) -> Scalar:
    value = row.get(name)
    if value is None or isinstance(value, float | bool):
        found = f"is {row[name]!r}" if name in row else "is missing"
        raise InvalidInputError(f"the key '{name}' of lookup '{lookup}' {found}. Name it as text or integer.")
    return value


def _table(lookup: str) -> str:
    """Names of SQLite's own begin with sqlite_."""
    return sql_name(f"lookup_{lookup}")


def _key_column(number: int) -> str:
    """Columns are numbered, for SQLite takes `Id` and `id` for one, and sources do not."""
    return f"key_{number}"


def _query(name: str, lookup: LookupSpec) -> str:
    """The query for the content and the key of one key, whose values come in the order of the spec."""
    keys = [_key_column(number) for number, _ in enumerate(lookup.key)]
    wanted = " AND ".join(f"{key} = ?" for key in keys)
    return f"SELECT content, {', '.join(keys)} FROM {_table(name)} WHERE {wanted}"  # noqa: S608 - names are quoted


def _rows(lookup: LookupSpec, source: SourceSpec, file: Path, at: datetime) -> Iterator[tuple[Any, ...]]:
    """Key values and content of every row to publish."""
    import duckdb

    keys = [sql_name(key) for key in lookup.key]
    known = _known_since(source)
    conditions = [f"{key} IS NOT NULL" for key in keys]
    parameters: dict[str, Any] = {"file": str(file)}
    if known is not None:
        conditions.append(f"({known} IS NULL OR {known} <= $at)")
        parameters["at"] = at
    event = source.event_time and sql_name(source.event_time)
    about = [time for time in (event, known) if time is not None]
    if lookup.keep_hours is not None and about:
        oldest = f"$at - to_microseconds({round(lookup.keep_hours * 3_600_000_000)})"
        conditions.append(f"coalesce({', '.join(about)}) >= {oldest}")
        parameters["at"] = at
    order = (known, event, *map(sql_name, source.key))
    newest = [f"{column} DESC NULLS LAST" for column in order if column is not None]
    with closing(duckdb.connect()) as connection:
        # Intervals and times must not depend on the zone of the machine.
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql(
            f"""
            SELECT {", ".join(map(sql_name, dict.fromkeys([*lookup.key, *lookup.columns])))} FROM read_parquet($file)
            WHERE {" AND ".join(conditions)}
            QUALIFY row_number() OVER (PARTITION BY {", ".join(keys)} ORDER BY {", ".join(newest)}) = 1
            ORDER BY {", ".join(keys)}
            """,  # noqa: S608 - the names are quoted
            params=parameters,
        ).to_arrow_table()
    for batch in found.to_batches(10_000):
        for row in batch.to_pylist():
            content = json.dumps({name: _plain(row[name]) for name in lookup.columns}, ensure_ascii=False)
            yield (*(row[key] for key in lookup.key), content)


def _known_since(source: SourceSpec) -> str | None:
    """SQL for when a row became known, NULL for one that always was: what snapshots.rows says of a table."""
    known = known_column(source)
    if known is None or source.event_time is None or source.known_ahead:
        return known and sql_name(known)
    return f"coalesce({sql_name(known)}, {sql_name(source.event_time)})"


def _plain(value: Any) -> Any:
    """A value as JSON has it: times in UTC, in the words in which facts are learnt."""
    if isinstance(value, datetime):
        return spoken(value.astimezone(UTC))
    if isinstance(value, date):
        return value.isoformat()
    return finite(value)
