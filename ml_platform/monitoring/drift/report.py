"""The drift report of a day: parts compared, verdicts, pages; kept as an artifact under the recipe of its inputs."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import ml_platform
from ml_platform.contracts.canonical import canonical_bytes, sources_sha256
from ml_platform.contracts.drift import DriftReport
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.errors import IntegrityError
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.monitoring.drift.columns import Tables
from ml_platform.monitoring.drift.evidently_page import second_opinion
from ml_platform.monitoring.drift.judging import farthest_first, overall
from ml_platform.monitoring.drift.live import Traffic, read_traffic
from ml_platform.monitoring.drift.page import render_html, render_summary
from ml_platform.monitoring.drift.parts import ComparedPart, Comparison
from ml_platform.monitoring.drift.reference import Reference, find_reference
from ml_platform.monitoring.drift.tables import Window
from ml_platform.snapshots.extract import manifest_of

KIND = "drift_report"
STAGE = "drift"
SLICES_KEPT = 20
_CODE = ("monitoring/drift", "monitoring/golden.py", "monitoring/clock.py", "features", "contracts/drift.py")


def make_drift_report(
    product: Product, snapshot: Artifact, store: ArtifactStore, home: Home, report: Reporter = silent
) -> Artifact:
    """The `drift_report` of a day's snapshot against what the release in production learnt from.

    Its facts are the DriftReport; beside it lie `report.html`, which needs nothing from outside, `summary.md`, and
    what Evidently says of the same rows.
    The same snapshot, release, policy, code and records of answers give the same artifact. Where nothing is in
    production, or its data is gone, the report says so: that is INCONCLUSIVE or ERROR, never "no drift".
    """
    reference = find_reference(product, home, store)
    window = Window.of_days(manifest_of(snapshot).cutoff, reference.policy.drift.window_days)
    traffic = _traffic(product, home, window, reference)
    package = Path(ml_platform.__file__).parent
    recipe = {
        "product": product.name,
        "snapshot_sha256": snapshot.sha256,
        "release_id": None if reference.release is None else reference.release.release_id,
        "monitor_policy_sha256": reference.policy.sha256,
        "features_sha256": None if product.features is None else product.features.sha256,
        "code_sha256": sources_sha256([package / part for part in _CODE], package),
        "evidently": version("evidently"),
        "traffic_sha256": traffic.sha256,
    }

    def build(folder: Path) -> dict[str, Any]:
        found, tables = _compared(product, snapshot, reference, window, traffic, store, report)
        report(Progress(STAGE, 0.9, "drawing pages"))
        (folder / "report.json").write_bytes(found.canonical_bytes())
        (folder / "report.html").write_text(render_html(product, found, tables), encoding="utf-8")
        (folder / "summary.md").write_text(render_summary(found, tables), encoding="utf-8")
        _ask_evidently(folder, found, tables, reference, _seed(snapshot))
        return found.model_dump(mode="json")

    artifact = store.make(KIND, recipe, build)
    report(Progress(STAGE, 1.0, DriftReport.parse(artifact.facts, where="drift report").reason))
    return artifact


def load_drift_report(artifact: Artifact) -> DriftReport:
    """The report of an artifact; raises ContractError for one of another form."""
    return DriftReport.parse(artifact.facts, where=f"drift report {artifact.sha256[:12]}")


def _traffic(product: Product, home: Home, window: Window, reference: Reference) -> Traffic:
    if product.serving is None or reference.release is None:
        return Traffic()
    most, release_id = reference.policy.drift.sample_rows, reference.release.release_id
    return read_traffic(home, product.name, product.serving.time, window, release_id, most)


def _compared(
    product: Product,
    snapshot: Artifact,
    reference: Reference,
    window: Window,
    traffic: Traffic,
    store: ArtifactStore,
    report: Reporter,
) -> tuple[DriftReport, Tables]:
    stated, release = _stated(product, snapshot, reference, window), reference.release
    if release is None:
        reason = "nothing is in production, so there is nothing to compare with"
        return DriftReport(verdict=Verdict.INCONCLUSIVE, reason=reason, effect=0.0, parts=(), **stated), {}
    try:
        learnt = store.open("snapshot", release.data.snapshot_sha256)
    except IntegrityError as error:
        reason = f"what release {release.release_id[:12]} learnt from cannot be read: {error}"
        return DriftReport(verdict=Verdict.ERROR, reason=reason, effect=0.0, parts=(), **stated), {}
    policy = reference.policy.drift
    comparison = Comparison(product, release, learnt, snapshot, window, traffic, policy, store, _seed(snapshot))
    found: list[ComparedPart] = []
    for number, part in enumerate(comparison.makers):
        report(Progress(STAGE, number / len(comparison.makers), f"comparing {part}"))
        found.append(comparison.compare(part))
    verdict, reason, effect = overall([one.part for one in found])
    slices = farthest_first([one for part in found for one in part.slices])
    made = DriftReport(
        verdict=verdict,
        reason=reason,
        effect=effect,
        parts=tuple(one.part for one in found),
        columns=tuple(one for part in found for one in part.columns),
        slices=tuple(slices[:SLICES_KEPT]),
        golden=tuple(one for part in found for one in part.golden),
        **stated,
    )
    return made, {(part.part.part, table.name): table for part in found for table in part.tables}


def _ask_evidently(folder: Path, found: DriftReport, tables: Tables, reference: Reference, seed: int) -> None:
    """Its scores always; its page, of 4 MB, only of days that drifted."""
    scores, page = second_opinion(found.columns, tables, reference.policy.drift, seed, page=found.drifted)
    (folder / "evidently.json").write_bytes(canonical_bytes(scores))
    if page is not None:
        (folder / "evidently.html").write_text(page, encoding="utf-8")


def _seed(snapshot: Artifact) -> int:
    """The seed of every draw: the same for the same snapshot."""
    return int(snapshot.sha256[:12], 16)


def _stated(product: Product, snapshot: Artifact, reference: Reference, window: Window) -> dict[str, Any]:
    """What a report says of itself, whatever was found."""
    release = reference.release
    return {
        "product": product.name,
        "as_of": manifest_of(snapshot).as_of,
        "window_from": window.since,
        "window_until": window.until,
        "release_id": None if release is None else release.release_id,
        "reference_as_of": None if release is None else release.data.as_of,
        "reference_snapshot_sha256": None if release is None else release.data.snapshot_sha256,
        "current_snapshot_sha256": snapshot.sha256,
        "monitor_policy_sha256": reference.policy.sha256,
        "notes": reference.notes,
    }
