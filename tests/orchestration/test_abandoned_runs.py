"""Runs of `mlp` whose process was killed stand in nobody's way for longer than a tick; the living are left alone."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    build_sensor_context,
)
from dagster._core.definitions.sensor_definition import SensorExecutionData

from assets.continuous_training import job_name
from ml_platform.contracts.home import Home
from resources.automatic_runs import PRODUCT
from resources.runs import LAUNCHED_BY, alive, report_abandoned_runs
from resources.state import PROJECT
from sensors.continuous_training import sensor_name
from tests.samples.retraining import Watched

PROCESS = """
import sys
from pathlib import Path
from ml_platform.contracts.home import Home
from resources.runs import alive
with alive(Home(Path(sys.argv[1])), sys.argv[2]):
    print("alive", flush=True)
    sys.stdin.read()
"""


def launched(defs: Definitions, instance: DagsterInstance, product: str) -> str:
    """A run under way, as `mlp run` makes it."""
    job = defs.resolve_job_def(job_name(product))
    tags = {**LAUNCHED_BY, PRODUCT: product, "dagster/partition": "2024-01-25"}
    return instance.create_run_for_job(job, status=DagsterRunStatus.STARTED, tags=tags).run_id


@contextmanager
def executing(home: Path, run_id: str) -> Iterator["subprocess.Popen[str]"]:
    """A process of its own that executes the run."""
    command = [sys.executable, "-c", PROCESS, str(home), run_id]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "alive\n"
        try:
            yield process
        finally:
            process.kill()


def status(instance: DagsterInstance, run_id: str) -> DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_a_killed_run_keeps_no_retraining_waiting(
    watched_folder: Path, watched_defs: Definitions, home: Path, instance: DagsterInstance
) -> None:
    watched = Watched(Home(home), watched_folder.name)
    watched.drift(3, watched.serve(watched.candidate(0)))
    retrain = watched_defs.get_repository_def().get_sensor_def(sensor_name(watched_folder.name))

    def tick() -> SensorExecutionData:
        return retrain.evaluate_tick(build_sensor_context(instance=instance, definitions=watched_defs))

    run_id = launched(watched_defs, instance, watched_folder.name)
    with executing(home, run_id) as process:
        assert f"run {run_id[:8]} of 2024-01-25 (started) is under way" in (tick().skip_message or "")
        process.kill()
        process.wait()
        (request,) = tick().run_requests or []
    assert request.partition_key == "2024-01-25"
    assert status(instance, run_id) is DagsterRunStatus.FAILURE


def test_a_run_that_the_ui_started_again_has_no_lock_here_and_is_left_alone(
    watched_folder: Path, watched_defs: Definitions, home: Path, instance: DagsterInstance
) -> None:
    """Dagster copies the tags of the first run, which say that `mlp` executes it."""
    run_id = launched(watched_defs, instance, watched_folder.name)
    assert report_abandoned_runs(instance, Home(home)) == []
    assert status(instance, run_id) is DagsterRunStatus.STARTED


def test_a_run_that_ends_while_the_list_is_read_stays_what_it_became(
    watched_folder: Path,
    watched_defs: Definitions,
    home: Path,
    instance: DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = launched(watched_defs, instance, watched_folder.name)
    listed = instance.get_runs()

    def interrupted() -> None:
        with alive(Home(home), run_id):
            instance.report_run_canceled(listed[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    monkeypatch.setattr(instance, "get_runs", lambda *_: listed)
    assert report_abandoned_runs(instance, Home(home)) == []
    assert status(instance, run_id) is DagsterRunStatus.CANCELED
