"""Online features: what is known at a moment, published whole, read by entity."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import AwareDatetime

from ml_platform.contracts.base import Contract, Name, Sha256
from ml_platform.contracts.home import Home
from ml_platform.contracts.product import ColumnType, FeatureSpec
from ml_platform.contracts.products import Product
from ml_platform.errors import ContractError, InvalidInputError, OperationError
from ml_platform.features.definitions import (
    EVENT_TIME,
    checked_features,
    definitions_sha256,
    entity_types,
    event_feature,
    feast_name,
    feast_objects,
)
from ml_platform.features.join import require_same_definitions
from ml_platform.features.store import open_store
from ml_platform.features.tables import latest_known
from ml_platform.lineage.artifacts import Artifact, write_atomically

if TYPE_CHECKING:
    from feast import FeatureStore

CURRENT = "current.json"
KEPT_PUBLICATIONS = 3
ROWS_PER_READ = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class FeatureReading:
    """A feature's value and the time of the event behind it.

    No value and a time: what is known is empty or older than the view's ttl. Neither: nothing is known.
    """

    value: str | int | float | bool | None
    event_timestamp: datetime | None


class Publication(Contract):
    """What the online store of a product holds: which features, as known at which moment."""

    product: Name
    features_sha256: Sha256
    definitions_sha256: Sha256
    at: AwareDatetime
    folder: str

    def same_as(self, features: Artifact, at: datetime) -> bool:
        """Whether publishing these features as of that moment would change nothing."""
        return (self.features_sha256, self.at) == (features.sha256, at)


@dataclass(frozen=True)
class _Opened:
    product: Product
    publication: Publication
    store: "FeatureStore"


_opened: dict[Path, _Opened] = {}


def publish_online(product: Product, features: Artifact, home: Home, at: datetime) -> Publication:
    """Puts what was known at the moment `at` online: for each entity its newest row not older than the ttl.

    A publication is a new folder, complete before the one file that names it is replaced: readers see
    the former values or the new ones, never a mixture, and a crash leaves the former. The last
    KEPT_PUBLICATIONS stay. Raises InvalidInputError for a moment without zone or beyond the snapshot.
    """
    require_same_definitions(product, features)
    moment = _checked_moment(at, features)
    root = home.features / product.name
    with _locked(root):
        current = current_publication(product, home)
        if current and current.same_as(features, moment) and (root / current.folder).is_dir():
            return current
        _remove_unfinished(root)
        work = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=root))
        _write_publication(product, features, moment, work)
        folder = root / f"{moment:%Y%m%dT%H%M%S}-{features.sha256[:12]}-{work.name.removeprefix('.unfinished-')}"
        work.rename(folder)
        publication = Publication(
            product=product.name,
            features_sha256=features.sha256,
            definitions_sha256=features.facts["definitions_sha256"],
            at=moment,
            folder=folder.name,
        )
        write_atomically(root / CURRENT, publication.canonical_bytes())
        _remove_old(root, publication)
    return publication


def current_publication(product: Product, home: Home) -> Publication | None:
    """What is online now, or None before the first publication."""
    path = home.features / product.name / CURRENT
    return Publication.read(path) if path.is_file() else None


def read_online(
    product: Product, home: Home, rows: Sequence[Mapping[str, Any]], *, now: datetime | None = None
) -> list[dict[str, FeatureReading]]:
    """For each row of entity values every feature of the service, sorted by name, as published.

    `now` (default: the moment of the publication) decides what has outlived its ttl. Raises
    InvalidInputError for missing entity columns, wrong types and a `now` before the publication, which
    would see its future; OperationError when nothing is published; ContractError when the product's
    definitions have changed since.
    """
    spec = checked_features(product)
    _require_entities(product, rows)
    opened = _open_current(product, home)
    moment = opened.publication.at if now is None else now
    if moment.tzinfo is None or moment < opened.publication.at:
        raise InvalidInputError(
            f"now is {moment.isoformat()}, expected a time with a zone from {opened.publication.at.isoformat()} on, "
            f"when the features of {product.name} were published. Publish as of the earlier moment to replay it."
        )
    readings: list[dict[str, FeatureReading]] = []
    for start in range(0, len(rows), ROWS_PER_READ):
        readings += _read(product, spec, opened.store, rows[start : start + ROWS_PER_READ], moment)
    return readings


def _read(
    product: Product, spec: FeatureSpec, store: "FeatureStore", rows: Sequence[Mapping[str, Any]], now: datetime
) -> list[dict[str, FeatureReading]]:
    references = [
        f"{feast_name(product, name)}:{feature}"
        for name, view in spec.views.items()
        for feature in (*view.feature_names, event_feature(name))
    ]
    entity_rows = [{name: row[name] for name in spec.entity_columns} for row in rows]
    found = store.get_online_features(references, entity_rows).to_dict()
    result: list[dict[str, FeatureReading]] = [
        dict.fromkeys(spec.feature_names, FeatureReading(None, None)) for _ in rows
    ]
    for name, view in spec.views.items():
        for index, event_us in enumerate(found[event_feature(name)]):
            event = None if event_us is None else _EPOCH + timedelta(microseconds=event_us)
            fresh = event is not None and (view.ttl_hours is None or now - event <= timedelta(hours=view.ttl_hours))
            for feature in view.feature_names:
                result[index][feature] = FeatureReading(found[feature][index] if fresh else None, event)
    return result


def _open_current(product: Product, home: Home) -> _Opened:
    """The published store, opened once a publication."""
    root = home.features / product.name
    publication = current_publication(product, home)
    if publication is None:
        raise OperationError(
            f"{root / CURRENT}: no features of {product.name} are online yet. Publish them: run the product's "
            "features, or call publish_online."
        )
    opened = _opened.get(root)
    if opened and opened.publication == publication and opened.product is product:
        return opened
    now = definitions_sha256(product)
    if publication.definitions_sha256 != now:
        raise ContractError(
            f"{root / CURRENT}: the published features have definitions {publication.definitions_sha256[:12]}, "
            f"{product.name} has {now[:12]} now. Build and publish the features again."
        )
    opened = _Opened(product, publication, open_store(root / publication.folder))
    _opened[root] = opened
    return opened


def _write_publication(product: Product, features: Artifact, at: datetime, folder: Path) -> None:
    spec = checked_features(product)
    store = open_store(folder)
    store.apply(feast_objects(product, features.path, published=True))
    for name, view in spec.views.items():
        frame = latest_known(view, features.file(f"{name}.parquet"), at)
        frame[event_feature(name)] = frame[EVENT_TIME].dt.as_unit("us").astype("int64")
        if len(frame):
            store.write_to_online_store(feast_name(product, name), frame)


def _checked_moment(at: datetime, features: Artifact) -> datetime:
    cutoff = datetime.fromisoformat(features.facts["cutoff"])
    if at.tzinfo is None or at > cutoff:
        raise InvalidInputError(
            f"features cannot be published as of {at.isoformat()}: expected a time with a zone up to "
            f"{cutoff.isoformat()}, the cutoff of their snapshot. Take a newer snapshot for a later moment."
        )
    return at.astimezone(UTC)


def _require_entities(product: Product, rows: Sequence[Mapping[str, Any]]) -> None:
    kinds = {name: int if kind is ColumnType.INTEGER else str for name, kind in entity_types(product).items()}
    for number, row in enumerate(rows):
        for name, kind in kinds.items():
            if type(row.get(name)) is not kind:
                found = f"is {row[name]!r}" if name in row else "is missing"
                raise InvalidInputError(
                    f"row {number} (counted from 0): entity column '{name}' {found}, expected {kind.__name__}. "
                    f"{product.name} needs {', '.join(kinds)}."
                )


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One publisher of a product at a time."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_unfinished(root: Path) -> None:
    for folder in root.glob(".unfinished-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _remove_old(root: Path, current: Publication) -> None:
    """Keeps the newest publications: a reader may still be in the one before."""
    folders = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime_ns)
    for folder in folders[:-KEPT_PUBLICATIONS]:
        if folder.name != current.folder:
            shutil.rmtree(folder, ignore_errors=True)
