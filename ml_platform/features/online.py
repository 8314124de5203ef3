"""Going online: what is known at a moment is published whole, for every entity and every key."""

from datetime import UTC, datetime
from pathlib import Path

from ml_platform.contracts.canonical import file_sha256
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product
from ml_platform.errors import InvalidInputError
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
from ml_platform.features.lookups import checked_lookups, write_lookups
from ml_platform.features.publication import (
    CURRENT,
    Publication,
    finished_name,
    locked,
    new_folder,
    remove_old,
    shelf_of,
    sound_publication,
)
from ml_platform.features.store import LOOKUPS_FILE, ONLINE_FILE, REGISTRY_FILE, open_store
from ml_platform.features.tables import latest_known
from ml_platform.lineage.artifact_files import sync_tree
from ml_platform.lineage.artifacts import Artifact, write_atomically
from ml_platform.snapshots.extract import manifest_of


def publish_online(
    product: Product,
    features: Artifact | None,
    home: Home,
    at: datetime,
    *,
    snapshot: Artifact | None = None,
    going_back: bool = False,
) -> Publication:
    """Puts what was known at the moment `at` online, and returns what is online afterwards.

    For each entity that is its newest row not older than the ttl, for each lookup (which needs the `snapshot`) its
    newest row. A publication is a new folder, complete before the one file that names it is replaced: readers see the
    former values or the new ones, never a mixture, and a crash leaves the former. The last KEPT_PUBLICATIONS stay.
    What is online as of a later moment stays, unless `going_back`: filling in past days does no harm.
    Raises InvalidInputError for a moment without zone or beyond the snapshot, and for a missing artifact.
    """
    moment = _checked_moment(at, _cutoff(product, features, snapshot))
    definitions = None if features is None else definitions_sha256(product)
    shelf = shelf_of(home, product.name, definitions, product.serving.lookups)
    with locked(shelf):
        if current := sound_publication(shelf):
            if current.at > moment and not going_back:
                return current
            if current.at == moment and _sources(current) == (_sha256(features), _sha256(snapshot)):
                return current
        work = new_folder(shelf)
        rows = {} if features is None else _write_features(product, features, moment, work)
        lookup_rows = {}
        if snapshot is not None and product.serving.lookups:
            lookup_rows = write_lookups(product, snapshot, moment, work / LOOKUPS_FILE)
        sync_tree(work)
        folder = finished_name(work, f"{moment:%Y%m%dT%H%M%S}")
        publication = Publication(
            product=product.name,
            definitions_sha256=definitions,
            features_sha256=_sha256(features),
            snapshot_sha256=_sha256(snapshot),
            lookups=product.serving.lookups,
            at=moment,
            entities={} if features is None else entity_types(product),
            rows=rows,
            lookup_rows=lookup_rows,
            files={
                name: file_sha256(work / name)
                for name in (ONLINE_FILE, REGISTRY_FILE, LOOKUPS_FILE)
                if (work / name).is_file()
            },
            folder=folder,
        )
        work.rename(shelf / folder)
        write_atomically(shelf / CURRENT, publication.canonical_bytes())
        remove_old(shelf, publication)
    return publication


def has_online(product: Product) -> bool:
    """Whether the product has anything to publish: features or lookups."""
    return product.features is not None or bool(product.serving.lookups)


def _write_features(product: Product, features: Artifact, at: datetime, folder: Path) -> dict[str, int]:
    """Writes Feast's registry and online store; returns how many entities each view has."""
    store, rows = open_store(folder), {}
    store.apply(feast_objects(product, features.path, published=True))
    for name, view in checked_features(product).views.items():
        frame = latest_known(view, features.file(f"{name}.parquet"), at)
        frame[event_feature(name)] = frame[EVENT_TIME].dt.as_unit("us").astype("int64")
        rows[name] = len(frame)
        if len(frame):
            store.write_to_online_store(feast_name(product.name, name), frame)
    return rows


def _cutoff(product: Product, features: Artifact | None, snapshot: Artifact | None) -> datetime:
    """The cutoff of what is to be published, which must be there and belong together."""
    lookups = checked_lookups(product)
    if not has_online(product):
        raise InvalidInputError(f"{product.name} has neither features nor lookups: there is nothing to publish.")
    if (features is None) != (product.features is None):
        said = "none were passed" if features is None else "it has none"
        raise InvalidInputError(
            f"features of {product.name}: {said}. Pass what build_features returned, if it has any."
        )
    if lookups and snapshot is None:
        raise InvalidInputError(f"lookups of {product.name} ({', '.join(lookups)}) need the snapshot. Pass it too.")
    cutoffs = set()
    if features is not None:
        require_same_definitions(product, features)
        cutoffs.add(datetime.fromisoformat(features.facts["cutoff"]))
    if snapshot is not None:
        manifest = manifest_of(snapshot)
        if manifest.product != product.name or (
            features is not None and features.facts["snapshot_sha256"] != snapshot.sha256
        ):
            raise InvalidInputError(
                f"snapshot {snapshot.sha256[:12]} of {manifest.product} is not the one that the features of "
                f"{product.name} were built from. Pass that one."
            )
        cutoffs.add(manifest.cutoff)
    return min(cutoffs)


def _checked_moment(at: datetime, cutoff: datetime) -> datetime:
    if at.tzinfo is None or at > cutoff:
        raise InvalidInputError(
            f"features cannot be published as of {at.isoformat()}: expected a time with a zone up to "
            f"{cutoff.isoformat()}, the cutoff of their snapshot. Take a newer snapshot for a later moment."
        )
    return at.astimezone(UTC)


def _sources(publication: Publication) -> tuple[str | None, str | None]:
    return publication.features_sha256, publication.snapshot_sha256


def _sha256(artifact: Artifact | None) -> str | None:
    return None if artifact is None else artifact.sha256
