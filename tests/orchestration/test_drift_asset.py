"""The asset `drift_report`: what a person sees of it, and what a sensor reads, through Dagster itself."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from dagster import AssetKey, AssetSelection, DagsterInstance, ExecuteInProcessResult, MarkdownMetadataValue

from definitions import platform_definitions
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.monitoring.drift_reports import latest_drift_report
from resources.manifests import ManifestIOManager
from resources.state import PROJECT
from tests.samples.drifting import LATER, Desk

DAY = LATER.isoformat()


@pytest.fixture
def desk(home: Path, tmp_path: Path) -> Desk:
    made = Desk.make(tmp_path, changes_on=date(2024, 2, 20))
    return Desk(Home(home), made.product, made.key)


def materialize(desk: Desk, instance: DagsterInstance) -> ExecuteInProcessResult:
    defs = platform_definitions([desk.product.folder])
    chosen = AssetSelection.assets(*(AssetKey([desk.product.name, name]) for name in ("snapshot", "drift_report")))
    job = defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=chosen.resolve(defs.resolve_asset_graph()), asset_check_selection=set()
    )
    return job.execute_in_process(instance=instance, partition_key=DAY, raise_on_error=False)


def test_a_day_that_drifted_says_so_in_dagster_and_to_sensors(desk: Desk, instance: DagsterInstance) -> None:
    release = desk.serve()
    ran = materialize(desk, instance)
    assert ran.success
    (made,) = ran.asset_materializations_for_node("parcel_desk__drift_report")
    shown = made.metadata
    assert shown["verdict"].value == "FAIL"
    assert isinstance(shown["summary"], MarkdownMetadataValue)
    assert "data:image/svg+xml;base64," in shown["summary"].value
    assert "parcels.days\\_underway" in shown["columns"].value
    assert "where city is Lima" in shown["slices_that_moved"].value
    assert Path(str(shown["report_html"].value)).is_file()
    assert Path(str(shown["evidently_html"].value)).is_file()
    assert shown["compared_with"].value == release.release_id

    found = latest_drift_report(desk.home, desk.product.name)
    assert found is not None
    assert (found.as_of, found.verdict, found.release_id) == (LATER, Verdict.FAIL, release.release_id)
    value = ManifestIOManager(home_path=str(desk.home.root)).read("parcel_desk/drift_report", DAY)
    assert desk.store.open(value.kind, value.value_sha256).facts == value.facts


def test_before_anything_is_in_production_the_asset_materializes_and_proves_nothing(
    desk: Desk, instance: DagsterInstance
) -> None:
    ran = materialize(desk, instance)
    assert ran.success
    (made,) = ran.asset_materializations_for_node("parcel_desk__drift_report")
    assert made.metadata["verdict"].value == "INCONCLUSIVE"
    assert made.metadata["compared_with"].value == "nothing: no release is in production"
    found = latest_drift_report(desk.home, desk.product.name)
    assert found is not None
    assert not found.drifted


def test_loading_the_asset_and_reading_reports_imports_nothing_heavy() -> None:
    heavy = ("evidently", "torch", "transformers", "pandas", "scipy", "plotly", "sqlalchemy")
    program = (
        "import sys, assets.drift_report, ml_platform.monitoring.drift_reports; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
