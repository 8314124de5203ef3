"""Going online with releases: the features and lookups of each, by its own definitions, from one snapshot."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ml_platform.contracts.evidence import CheckResult
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.contracts.release import Release
from ml_platform.contracts.serving import ServingContent, ServingSpec
from ml_platform.errors import ContractError
from ml_platform.features.build import build_features
from ml_platform.features.definitions import definitions_sha256
from ml_platform.features.online import has_online, publish_online
from ml_platform.features.publication import Publication, shelf_of
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.lineage.contents import find_content
from ml_platform.snapshots.expectations import check_expectations
from ml_platform.snapshots.extract import manifest_of


@dataclass(frozen=True)
class WentOnline:
    """What is online for a release now, and how that came; no publication where there is none."""

    release_id: str
    publication: Publication | None
    sentence: str


def publish_releases(
    product: Product,
    releases: Iterable[Release],
    snapshot: Artifact,
    store: ArtifactStore,
    home: Home,
    report: Reporter = silent,
) -> tuple[WentOnline, ...]:
    """Publishes what the snapshot knew at its cutoff, for each release by the definitions that it was judged with.

    So what serves beside a new release stays fresh. A snapshot that does not meet the expectations goes nowhere, and
    nothing goes back in time: what is online stays. A release whose definitions this code cannot compute keeps what it
    has. Releases with the same definitions share one publication, told under the first.
    """
    shelves: dict[Path, tuple[Product, Release]] = {}
    for release in releases:
        judged = as_released(product, release, store)
        shelves.setdefault(
            shelf_of(home, product.name, _definitions(release), judged.serving.lookups), (judged, release)
        )
    if held := _held(product, [judged for judged, _ in shelves.values()], snapshot, store, report):
        return tuple(WentOnline(release.release_id, None, held) for _, release in shelves.values())
    found = []
    for number, (judged, release) in enumerate(shelves.values()):
        report(Progress("online", number / len(shelves), f"release {release.release_id[:12]}"))
        found.append(_publish(judged, release, snapshot, store, home))
    report(Progress("online", 1.0, found[0].sentence if found else "no release"))
    return tuple(found)


def as_released(product: Product, release: Release, store: ArtifactStore) -> Product:
    """The product with the feature definitions and lookups that were kept with a release, whatever its folder says.

    A release from before they were kept has the folder's features and no lookups.
    """
    kept = find_content(store, ServingContent, release.serving.content_sha256) if release.serving else None
    if kept is None:
        features = product.features if release.features else None
        return replace(product, features=features, serving=ServingSpec(version="1.0.0"))
    return replace(product, features=kept.features, serving=kept.spec)


def _held(
    product: Product, judged: Iterable[Product], snapshot: Artifact, store: ArtifactStore, report: Reporter
) -> str:
    """Why nothing of the snapshot may go online, in words; empty where it may, or where nothing would."""
    if not any(has_online(one) for one in judged):
        return ""
    check = CheckResult.model_validate(check_expectations(product, snapshot, store, report).facts["check"])
    return "" if check.passed else f"held: schema_valid: {check.problems[0]}"


def _publish(product: Product, release: Release, snapshot: Artifact, store: ArtifactStore, home: Home) -> WentOnline:
    release_id, moment = release.release_id, manifest_of(snapshot).cutoff
    if not has_online(product):
        return WentOnline(release_id, None, f"{product.name} has neither features nor lookups: nothing to publish")
    if said := _why_not(product, release):
        return WentOnline(release_id, None, said)
    features = None if product.features is None else build_features(product, snapshot, store)
    needed = snapshot if product.serving.lookups else None
    online = publish_online(product, features, home, moment, snapshot=needed)
    if online.at > moment:
        said = f"what was known at {online.at:%Y-%m-%d %H:%M}Z stays online: it is newer than this day"
    else:
        said = f"online as known at {online.at:%Y-%m-%d %H:%M}Z"
    return WentOnline(release_id, online, said)


def _why_not(product: Product, release: Release) -> str:
    """Why this code cannot compute the release's features, in words; empty when it can."""
    wanted = _definitions(release)
    try:
        now = None if product.features is None else definitions_sha256(product)
    except ContractError as error:
        return f"keeps what is online: its definitions no longer fit the sources: {error}"
    if now == wanted:
        return ""
    return (
        f"keeps what is online: it was judged with features by definitions {str(wanted)[:12]}, this code and these "
        f"sources give {str(now)[:12]}. Publish with the code of that release, or run the chain for a new one."
    )


def _definitions(release: Release) -> str | None:
    return None if release.features is None else release.features.definitions_sha256
