"""One publication, opened: reads by entity and by key, each remembered, for a publication never changes."""

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ml_platform.contracts.feature_spec import FeatureSpec, FeatureViewSpec
from ml_platform.contracts.provenance import FeaturesRead, Scalar
from ml_platform.contracts.serving import LookupSpec
from ml_platform.contracts.source import ColumnType
from ml_platform.errors import InvalidInputError, StorageError
from ml_platform.features.definitions import event_feature, feast_name
from ml_platform.features.lookups import Key, OpenLookups, Row, finite, forget_oldest
from ml_platform.features.publication import Publication
from ml_platform.features.store import LOOKUPS_FILE, open_store

CLOCKS_DIFFER = timedelta(seconds=5)
"""By so much the publisher's clock may be ahead of the reader's."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Mapping[ColumnType, type] = {ColumnType.STRING: str, ColumnType.INTEGER: int}


@dataclass(frozen=True, slots=True)
class _Known:
    """What a view knows of an entity: its values, and when they were true."""

    event: datetime | None
    values: Mapping[str, Scalar | None]
    event_at: Mapping[str, datetime | None]


@dataclass(frozen=True, slots=True)
class _View:
    """A view as it is read: `nothing` are its values when none is valid."""

    name: str
    columns: tuple[tuple[str, type], ...]
    ttl: timedelta | None
    nothing: Mapping[str, None]
    feast_view: Any
    known: dict[Key, _Known] = field(default_factory=dict)

    def is_fresh(self, known: _Known, moment: datetime) -> bool:
        """Whether its values are there and not older than the ttl."""
        return known.event is not None and (self.ttl is None or moment - known.event <= self.ttl)


class OpenPublication:
    """What was published at one moment. Thread-safe; every read of it tells of the same moment.

    Raises StorageError when the files are missing or not those that were published.
    """

    def __init__(
        self, publication: Publication, shelf: Path, features: FeatureSpec | None, lookups: Mapping[str, LookupSpec]
    ) -> None:
        self.publication = publication
        self._folder = shelf / publication.folder
        self._service = features.service if features else ""
        self._reads: dict[Key, FeaturesRead] = {}
        self._lock = threading.Lock()
        self._views: list[_View] = []
        if wrong := publication.damaged_files(shelf):
            raise self._damaged(f"{', '.join(wrong)}: not there, or not what was published")
        try:
            self._identity = self._stat()
            self._open(features, lookups)
        except Exception as error:
            # Feast raises what it likes; whatever it is, nothing can be read.
            raise self._damaged(f"{type(error).__name__}: {error}") from error

    def _open(self, features: FeatureSpec | None, lookups: Mapping[str, LookupSpec]) -> None:
        if features is not None:
            self._store = open_store(self._folder)
            self._views = [self._view(name, view) for name, view in features.views.items()]
            from feast.infra.online_stores.helpers import get_online_store_from_config

            self._online = get_online_store_from_config(self._store.config.online_store)
        self._lookups = OpenLookups(lookups, self._folder / LOOKUPS_FILE)

    def read(self, row: Row, now: datetime | None) -> FeaturesRead:
        """Every feature of the entities that `row` names, as of this publication; `now` decides what is too old.

        Raises InvalidInputError for missing or mistyped entity columns and a `now` before the publication, which
        would see its future.
        """
        if not self._service:
            raise InvalidInputError(f"{self.publication.product} has no features to read. Read lookups only.")
        moment = self._moment(now)
        keys = tuple([self._key(row, view.columns) for view in self._views])
        known = [view.known.get(key) or self._fetch(view, key) for view, key in zip(self._views, keys, strict=True)]
        fresh = tuple([view.is_fresh(one, moment) for view, one in zip(self._views, known, strict=True)])
        found = self._reads.get((keys, fresh)) or self._assembled(keys, known, fresh, moment)
        return found if found.read_at == moment else found.model_copy(update={"read_at": moment})

    def look_up(self, lookup: str, row: Row) -> Row | None:
        """The published columns of the row whose key `row` names, None where there is none."""
        try:
            return self._lookups.find(lookup, row)
        except (sqlite3.Error, ValueError) as error:
            raise self._damaged(str(error)) from error

    def cached(self, row: Row, now: datetime | None) -> FeaturesRead | None:
        """What `read` gives where every entity is in memory, None where a file would have to be read."""
        if any(self._key(row, view.columns) not in view.known for view in self._views):
            return None
        return self.read(row, now)

    def cached_look_up(self, lookup: str, row: Row) -> Row | None:
        """What `look_up` gives where it is in memory, None where it is not or where there is no such row."""
        return self._lookups.remembered(lookup, row)

    def close(self) -> None:
        """Lets go of the files."""
        self._lookups.close()
        with self._lock:
            connection = getattr(getattr(self, "_online", None), "_conn", None)
            if connection is not None:
                connection.close()

    def is_there(self) -> bool:
        """Whether the files are still those that were opened."""
        try:
            return self._stat() == self._identity
        except OSError:
            return False

    def _assembled(
        self, keys: tuple[Key, ...], known: Sequence[_Known], fresh: tuple[bool, ...], moment: datetime
    ) -> FeaturesRead:
        """The reading of these keys while the same views are fresh; only its moment differs from time to time."""
        values: dict[str, Scalar | None] = {}
        event_at: dict[str, datetime | None] = {}
        named: dict[str, int | str] = {}
        for view, key, one, valid in zip(self._views, keys, known, fresh, strict=True):
            values.update(one.values if valid else view.nothing)
            event_at.update(one.event_at)
            named.update({name: cell for (name, _), cell in zip(view.columns, key, strict=True) if cell is not None})
        read = FeaturesRead(
            service=self._service,
            definitions_sha256=self.publication.definitions_sha256 or "",
            features_sha256=self.publication.features_sha256,
            published_at=self.publication.at,
            read_at=moment,
            keys=named,
            values=values,
            event_at=event_at,
        )
        self._reads[keys, fresh] = read
        forget_oldest(self._reads)
        return read

    def _moment(self, now: datetime | None) -> datetime:
        at = self.publication.at
        if now is None or (now.tzinfo is not None and at - CLOCKS_DIFFER <= now < at):
            return at
        if now.tzinfo is None or now < at:
            raise InvalidInputError(
                f"now is {now.isoformat()}, expected a time with a zone from {at.isoformat()} on, when the features "
                f"of {self.publication.product} were published. Publish as of the earlier moment to replay it."
            )
        return now

    def _key(self, row: Row, columns: tuple[tuple[str, type], ...]) -> Key:
        for name, kind in columns:
            value = row.get(name, self)
            if type(value) is not kind and value is not None:
                found = "is missing" if value is self else f"is {value!r}"
                raise InvalidInputError(
                    f"entity column '{name}' {found}, expected {kind.__name__}. {self.publication.product} needs "
                    f"{', '.join(self.publication.entities)}."
                )
        return tuple([row[name] for name, _ in columns])

    def _view(self, name: str, spec: FeatureViewSpec) -> _View:
        return _View(
            name=name,
            columns=tuple((column, _KINDS[self.publication.entities[column]]) for column in spec.entity),
            ttl=None if spec.ttl_hours is None else timedelta(hours=spec.ttl_hours),
            nothing=dict.fromkeys(spec.feature_names),
            feast_view=self._store.get_feature_view(feast_name(self.publication.product, name)),
        )

    def _fetch(self, view: _View, key: Key) -> _Known:
        """What the store knows of an entity; a key with an empty column is known to nobody."""
        event, values = None, dict(view.nothing)
        if None not in key:
            found = self._stored(view, key)
            if found:
                event = _EPOCH + timedelta(microseconds=found[event_feature(view.name)])
                values = {name: found.get(name) for name in view.nothing}
        known = view.known[key] = _Known(event, values, dict.fromkeys(view.nothing, event))
        forget_oldest(view.known)
        return known

    def _stored(self, view: _View, key: Key) -> dict[str, Any]:
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        try:
            cells = [Value(string_val=cell) if isinstance(cell, str) else Value(int64_val=cell) for cell in key]
        except UnicodeError:
            raise InvalidInputError("an entity column holds half a surrogate pair, which is no text.") from None
        except ValueError:
            return {}  # no store can hold an integer of more than 64 bits
        entity = EntityKey(join_keys=[name for name, _ in view.columns], entity_values=cells)
        wanted = [*view.nothing, event_feature(view.name)]
        try:
            with self._lock:
                ((_, found),) = self._online.online_read(self._store.config, view.feast_view, [entity], wanted)
        except (sqlite3.Error, OSError) as error:
            raise self._damaged(str(error)) from error
        return {} if found is None else {name: _plain(value) for name, value in found.items()}

    def _stat(self) -> tuple[Any, ...]:
        stats = [(self._folder / name).stat() for name in self.publication.files]
        return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)

    def _damaged(self, what: str) -> StorageError:
        return StorageError(
            f"{self._folder}: the online features of {self.publication.product} cannot be read: {what}. "
            "Publish them again: run the asset online_features, or `mlp run`."
        )


def _plain(value: Any) -> Any:
    """A Feast value as plain Python; unset and what is no finite number are None."""
    kind = value.WhichOneof("val")
    return None if kind is None else finite(getattr(value, kind))
