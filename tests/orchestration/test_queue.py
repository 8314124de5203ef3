"""The queue of the shipped instance: one run of a product, places for people, and reports that wait for no training."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.remote_origin import RemoteRepositoryOrigin
from dagster._core.workspace.load import location_origins_from_yaml_paths
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from ml_platform.contracts.canonical import file_sha256
from ml_platform.contracts.home import Home
from resources import runs
from resources.automatic_runs import PRODUCT, STARTED_BY_SENSOR
from resources.reporting_days import STARTED_FOR_REPORTS
from resources.runs import open_instance
from resources.state import PROJECT

ORIGIN = "__repository__"


@pytest.fixture
def shipped(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance with the settings that every new home gets."""
    with open_instance(Home(tmp_path / "home")) as instance:
        assert (instance.root_directory and Path(instance.root_directory, "dagster.yaml").read_text()) == (
            PROJECT / "deploy" / "dagster.yaml"
        ).read_text()
        yield instance


def queue(instance: DagsterInstance, name: str, **tags: str) -> str:
    """A queued run; its name for the sentences of this file is its job's."""
    location = location_origins_from_yaml_paths([str(PROJECT / "workspace.yaml")])[0]
    origin = RemoteRepositoryOrigin(location, ORIGIN).get_job_origin(name)
    run = DagsterRun(job_name=name, status=DagsterRunStatus.QUEUED, tags=tags, remote_job_origin=origin)
    return instance.add_run(run).run_id


def let_through(instance: DagsterInstance) -> list[str]:
    """The jobs of the runs that the daemon would start now."""
    with QueuedRunCoordinatorDaemon(interval_seconds=1) as daemon:
        daemon._logger = logging.getLogger("queue")
        found = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), None)
    return sorted(run.job_name for run in found)


def test_one_run_of_a_product_at_a_time_whoever_started_it(shipped: DagsterInstance) -> None:
    queue(shipped, "first", **{PRODUCT: "flights"})
    queue(shipped, "second", **{PRODUCT: "flights", **STARTED_BY_SENSOR})
    queue(shipped, "other", **{PRODUCT: "parcels"})
    assert let_through(shipped) == ["first", "other"]


def test_what_starts_by_itself_leaves_places_to_people(shipped: DagsterInstance) -> None:
    for number in range(4):
        queue(shipped, f"automatic_{number}", **{PRODUCT: f"product_{number}", **STARTED_BY_SENSOR})
    queue(shipped, "by_hand", **{PRODUCT: "another"})
    assert let_through(shipped) == ["automatic_0", "automatic_1", "by_hand"]


def test_reports_wait_for_no_training_and_come_one_after_the_other(shipped: DagsterInstance) -> None:
    queue(shipped, "training", **{PRODUCT: "flights", **STARTED_BY_SENSOR})
    queue(shipped, "reports_of_flights", **STARTED_FOR_REPORTS)
    queue(shipped, "reports_of_parcels", **STARTED_FOR_REPORTS)
    assert let_through(shipped) == ["reports_of_flights", "training"]


def test_settings_of_an_earlier_version_are_renewed_and_edited_ones_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.dagster.mkdir(parents=True)
    settings = home.dagster / "dagster.yaml"
    for edited in (False, True):
        settings.write_text("telemetry:\n  enabled: false\n")
        monkeypatch.setattr(runs, "SHIPPED_BEFORE", set() if edited else {file_sha256(settings)})
        with open_instance(home):
            assert ("run_coordinator" in settings.read_text()) is not edited
