"""The drift report of a day: parts compared, verdicts, pages; kept as an artifact under the recipe of its inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ml_platform
from ml_platform.contracts.canonical import sources_sha256
from ml_platform.contracts.drift import ColumnDrift, DriftPart, DriftReport, PartDrift
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.errors import IntegrityError
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.monitoring.drift.columns import Table, compare_slices, compare_table, corrected
from ml_platform.monitoring.drift.judging import farthest_first, judge_part, overall
from ml_platform.monitoring.drift.reference import Reference, find_reference
from ml_platform.monitoring.drift.tables import Window, feature_tables, source_tables
from ml_platform.snapshots.extract import manifest_of

KIND = "drift_report"
STAGE = "drift"
SLICES_KEPT = 20
_CODE = ("monitoring/drift", "features", "contracts/drift.py")


@dataclass(frozen=True)
class _Compared:
    """One part: its verdict, its columns, and the slices that moved."""

    part: PartDrift
    columns: tuple[ColumnDrift, ...] = ()
    slices: tuple[ColumnDrift, ...] = ()


def make_drift_report(
    product: Product, snapshot: Artifact, store: ArtifactStore, home: Home, report: Reporter = silent
) -> Artifact:
    """The `drift_report` of a day's snapshot against what the release in production learnt from.

    Its facts are the DriftReport; beside it lie `report.html`, which needs nothing from outside, and `summary.md`.
    The same snapshot, release, policy, code and records of answers give the same artifact. Where nothing is in
    production, or its data is gone, the report says so: that is INCONCLUSIVE or ERROR, never "no drift".
    """
    reference = find_reference(product, home, store)
    package = Path(ml_platform.__file__).parent
    recipe = {
        "product": product.name,
        "snapshot_sha256": snapshot.sha256,
        "release_id": None if reference.release is None else reference.release.release_id,
        "monitor_policy_sha256": reference.policy.sha256,
        "features_sha256": None if product.features is None else product.features.sha256,
        "code_sha256": sources_sha256([package / part for part in _CODE], package),
        "evidently": version("evidently"),
    }

    def build(folder: Path) -> dict[str, Any]:
        found = _compare(product, snapshot, reference, store, report)
        (folder / "report.json").write_bytes(found.canonical_bytes())
        return found.model_dump(mode="json")

    artifact = store.make(KIND, recipe, build)
    report(Progress(STAGE, 1.0, DriftReport.parse(artifact.facts, where="drift report").reason))
    return artifact


def load_drift_report(artifact: Artifact) -> DriftReport:
    """The report of an artifact; raises ContractError for one of another form."""
    return DriftReport.parse(artifact.facts, where=f"drift report {artifact.sha256[:12]}")


def _compare(
    product: Product, snapshot: Artifact, reference: Reference, store: ArtifactStore, report: Reporter
) -> DriftReport:
    manifest, policy = manifest_of(snapshot), reference.policy.drift
    window = Window.of_days(manifest.cutoff, policy.window_days)
    release = reference.release
    stated = {
        "product": product.name,
        "as_of": manifest.as_of,
        "window_from": manifest.cutoff - timedelta(days=policy.window_days),
        "window_until": manifest.cutoff,
        "release_id": None if release is None else release.release_id,
        "reference_as_of": None if release is None else release.data.as_of,
        "reference_snapshot_sha256": None if release is None else release.data.snapshot_sha256,
        "current_snapshot_sha256": snapshot.sha256,
        "monitor_policy_sha256": reference.policy.sha256,
        "notes": reference.notes,
    }
    if release is None:
        reason = "nothing is in production, so there is nothing to compare with"
        return DriftReport(verdict=Verdict.INCONCLUSIVE, reason=reason, effect=0.0, parts=(), **stated)
    try:
        learnt = store.open("snapshot", release.data.snapshot_sha256)
    except IntegrityError as error:
        reason = f"what release {release.release_id[:12]} learnt from cannot be read: {error}"
        return DriftReport(verdict=Verdict.ERROR, reason=reason, effect=0.0, parts=(), **stated)
    makers: dict[DriftPart, Callable[[], list[Table]]] = {
        DriftPart.FEATURES: lambda: feature_tables(product, learnt, snapshot, window, store),
        DriftPart.TABLES: lambda: source_tables(product, learnt, snapshot, window),
    }
    compared = []
    for number, (part, make) in enumerate(makers.items()):
        report(Progress(STAGE, number / len(makers), f"comparing {part}"))
        if tables := make():
            compared.append(_compare_part(part, tables, reference, seed=snapshot_seed(snapshot)))
    verdict, reason, effect = overall([one.part for one in compared])
    slices = farthest_first([one for part in compared for one in part.slices])
    return DriftReport(
        verdict=verdict,
        reason=reason,
        effect=effect,
        parts=tuple(one.part for one in compared),
        columns=tuple(one for part in compared for one in part.columns),
        slices=tuple(slices[:SLICES_KEPT]),
        **stated,
    )


def _compare_part(part: DriftPart, tables: list[Table], reference: Reference, seed: int) -> _Compared:
    policy = reference.policy.drift
    columns = corrected([one for table in tables for one in compare_table(part, table, policy, seed)], policy)
    slices = corrected([one for table in tables for one in compare_slices(part, table, policy, seed)], policy)
    return _Compared(judge_part(part, columns, policy), tuple(columns), tuple(slices))


def snapshot_seed(snapshot: Artifact) -> int:
    """The seed of every draw of rows: the same for the same snapshot."""
    return int(snapshot.sha256[:12], 16)
