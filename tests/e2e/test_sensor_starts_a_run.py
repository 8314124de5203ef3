"""From a drift report to a canary without a hand: the real daemon, its sensor and its queue, on a tiny product."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from assets.continuous_training import job_name
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.lineage.keys import trusted_keys, trusted_operators
from ml_platform.lineage.ledger import Ledger
from ml_platform.release.assemble import gate_producer
from ml_platform.release.controller import Controller, Held
from resources.automatic_runs import STARTED_BY_SENSOR, trigger_of
from resources.runs import open_instance
from resources.state import PROJECT
from tests.e2e.conftest import Deployment, end
from tests.samples.retraining import Watched, day, write_watched_product
from tests.samples.trained_here import definitions_training_here


@contextmanager
def daemon(products: Path, home: Home, logs: Path) -> Iterator[None]:
    """The shipped daemon on the shipped workspace and queue, and nothing else."""
    environment = {
        **os.environ,
        "ML_PLATFORM_HOME": str(home.root),
        "ML_PLATFORM_PRODUCTS": str(products),
        "DAGSTER_HOME": str(home.dagster),
    }
    command = [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-w", str(PROJECT / "workspace.yaml")]
    with (logs / "daemon.log").open("a") as log:
        process = subprocess.Popen(command, env=environment, cwd=logs, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        end(process)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Watched, Release]:
    """A tiny product whose release of the first day is in production, as people made it."""
    folder, home = write_watched_product(tmp_path / "products"), Home(tmp_path / "home")
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home.root))
    with open_instance(home) as instance:
        job = definitions_training_here([folder]).resolve_job_def(job_name(folder.name))
        assert job.execute_in_process(instance=instance, partition_key=day(0).isoformat()).success
    ledger = Ledger(home.ledger_url)
    door = Controller(ledger, trusted_keys(home), gate_producer(), trusted_operators(home))
    (release,) = ledger.replay(folder.name).releases.values()
    moved = door.promote(folder.name, release.release_id, datetime.now(UTC), "tests", reason="the first")
    assert not isinstance(moved, Held), moved
    return folder, Watched(home, folder.name), release


def runs_by_sensor(instance: DagsterInstance, *statuses: DagsterRunStatus) -> list[DagsterRun]:
    return list(instance.get_runs(RunsFilter(tags=STARTED_BY_SENSOR, statuses=statuses)))


def test_a_drift_report_becomes_a_canary_whose_release_tells_why(
    served: tuple[Path, Watched, Release], tmp_path: Path
) -> None:
    folder, watched, first = served
    report = watched.drift(2, first)
    ends = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
    with open_instance(watched.home) as instance, daemon(folder, watched.home, tmp_path):
        waiting = Deployment("", watched.home, folder.name, tmp_path)
        (run,) = waiting.wait_for("the end of a run that the sensor started", lambda: runs_by_sensor(instance, *ends))
        assert run.status is DagsterRunStatus.SUCCESS
        assert run.tags["dagster/partition"] == day(2).isoformat()
        assert run.tags["ml_platform/product"] == folder.name
        replay = Ledger(watched.home.ledger_url).replay(folder.name)
        second = next(one for release_id, one in replay.releases.items() if release_id != first.release_id)
        assert second.trigger == trigger_of(run.tags)
        assert second.trigger is not None
        assert second.trigger.evidence_sha256 == report.evidence_sha256
        assert second.data.as_of == day(2)
        assert replay.slots == {SlotName.PRODUCTION: first.release_id, SlotName.CANARY: second.release_id}
        assert runs_by_sensor(instance) == [run]
