"""Runs of `mlp` whose process was killed stand in nobody's way for longer than a tick; the living are left alone."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from dagster import (
    AssetExecutionContext,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    asset,
    build_sensor_context,
    materialize,
)
from dagster._core.definitions.sensor_definition import SensorExecutionData

from assets.continuous_training import job_name
from ml_platform.contracts.home import Home
from resources.automatic_runs import PRODUCT
from resources.runs import LAUNCHED_BY, alive, report_abandoned_runs, stopped_from_outside, store_of_a_run
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


def launched(defs: Definitions, instance: DagsterInstance, product: str, by: Mapping[str, str] = LAUNCHED_BY) -> str:
    """A run under way, as `mlp run` makes it, or, by nobody, the UI."""
    job = defs.resolve_job_def(job_name(product))
    tags = {**by, PRODUCT: product, "dagster/partition": "2024-01-25"}
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


@pytest.mark.parametrize("by", [LAUNCHED_BY, {}], ids=["mlp", "the UI"])
def test_a_killed_run_keeps_no_retraining_waiting(
    watched_folder: Path, watched_defs: Definitions, home: Path, instance: DagsterInstance, by: Mapping[str, str]
) -> None:
    watched = Watched(Home(home), watched_folder.name)
    watched.drift(3, watched.serve(watched.candidate(0)))
    retrain = watched_defs.get_repository_def().get_sensor_def(sensor_name(watched_folder.name))

    def tick() -> SensorExecutionData:
        return retrain.evaluate_tick(build_sensor_context(instance=instance, definitions=watched_defs))

    run_id = launched(watched_defs, instance, watched_folder.name, by)
    with executing(home, run_id) as process:
        assert f"run {run_id[:8]} of 2024-01-25 (started) is under way" in (tick().skip_message or "")
        process.kill()
        process.wait()
        (request,) = tick().run_requests or []
    assert request.partition_key == "2024-01-25"
    assert status(instance, run_id) is DagsterRunStatus.FAILURE


def test_a_run_of_another_machine_is_left_alone_for_its_lock_may_be_unseen_here(
    watched_folder: Path, watched_defs: Definitions, home: Path, instance: DagsterInstance
) -> None:
    run_id = launched(watched_defs, instance, watched_folder.name)
    lock = home / "work" / "runs" / f"{run_id}.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("another machine")
    assert report_abandoned_runs(instance, Home(home)) == []
    assert status(instance, run_id) is DagsterRunStatus.STARTED
    assert lock.exists()


def test_the_run_that_holds_the_store_is_told_to_be_alive_until_it_ends(home: Path, instance: DagsterInstance) -> None:
    locks = home / "work" / "runs"

    @asset(required_resource_keys={"store"})
    def looks(context: AssetExecutionContext) -> None:
        with alive(Home(home), context.run.run_id):  # as `mlp run`, whose process holds it already
            assert [path.name for path in locks.iterdir()] == [f"{context.run.run_id}.lock"]
        assert report_abandoned_runs(instance, Home(home)) == []
        assert status(instance, context.run.run_id) is DagsterRunStatus.STARTED

    ran = materialize([looks], instance=instance, resources={"store": store_of_a_run()})
    assert ran.success
    assert list(locks.iterdir()) == []


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


def test_a_database_that_is_busy_for_a_moment_leaves_the_cancel_button_working(
    watched_folder: Path, watched_defs: Definitions, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = launched(watched_defs, instance, watched_folder.name)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_run_canceled(run)
    look, asked = instance.get_run_by_id, threading.Event()

    def busy_at_first(asked_for: str) -> DagsterRun | None:
        if not asked.is_set():
            asked.set()
            raise sqlite3.OperationalError("database is locked")
        return look(asked_for)

    monkeypatch.setattr("resources.runs.SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(instance, "get_run_by_id", busy_at_first)
    with pytest.raises(KeyboardInterrupt), stopped_from_outside(instance, run_id):
        threading.Event().wait(30)
    assert asked.is_set()
