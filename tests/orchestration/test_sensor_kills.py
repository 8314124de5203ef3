"""The sensor daemon is killed in the middle of a tick, at every point where that could lose a run or double it."""

import contextlib
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus

from ml_platform.contracts.home import Home
from resources.automatic_runs import STARTED_BY_SENSOR
from resources.runs import open_instance
from resources.state import PROJECT
from sensors.continuous_training import sensor_name
from tests.samples.retraining import Watched, day, write_watched_product

POINTS = ("RUN_IDS_RESERVED", "RUN_CREATED", "RUN_LAUNCHED")
"""Before these nothing has been asked for; the second test dies there."""


def turn(watched: Watched, folder: Path, minute: int, *points: str) -> int:
    """One turn of the daemon; its exit code, negative for the signal that it died of."""
    environment = {
        **os.environ,
        "ML_PLATFORM_HOME": str(watched.home.root),
        "ML_PLATFORM_PRODUCTS": str(folder),
        "DAGSTER_HOME": str(watched.home.dagster),
    }
    arguments = [sensor_name(folder.name), str(minute), *points]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.samples.sensor_daemon", *arguments],
        cwd=PROJECT,
        env=environment,
        start_new_session=True,
    )
    try:
        return process.wait(180)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its code server, which outlives it for a while


def ticks(instance: DagsterInstance, name: str) -> list[InstigatorTick]:
    (state,) = [state for state in instance.all_instigator_state() if state.instigator_name == name]
    return list(instance.get_ticks(state.instigator_origin_id, state.selector_id))


def test_a_daemon_killed_at_any_point_of_a_tick_starts_one_run(tmp_path: Path) -> None:
    folder = write_watched_product(tmp_path / "products")
    watched = Watched(Home(tmp_path / "home"), folder.name)
    with open_instance(watched.home) as instance:
        watched.drift(3, watched.serve(watched.candidate(0)))
        for number, point in enumerate(POINTS):
            assert turn(watched, folder, 2 * number, point) == -signal.SIGKILL, point
        assert turn(watched, folder, 2 * len(POINTS)) == 0
        assert turn(watched, folder, 2 * len(POINTS) + 2) == 0
        (run,) = instance.get_runs()
        assert run.status is DagsterRunStatus.QUEUED
        assert STARTED_BY_SENSOR.items() <= run.tags.items()
        assert run.tags["dagster/partition"] == day(3).isoformat()
        newest, before, *_ = ticks(instance, sensor_name(folder.name))
        assert newest.status is TickStatus.SKIPPED
        assert f"run {run.run_id[:8]} of {day(3)} (queued) is under way" in (newest.skip_reason or "")
        assert before.status is TickStatus.SUCCESS


def test_a_daemon_that_dies_before_it_asked_asks_for_what_holds_then(tmp_path: Path) -> None:
    """Frozen in the meantime: the tick that was cut off is asked again, and nothing starts."""
    folder = write_watched_product(tmp_path / "products")
    watched = Watched(Home(tmp_path / "home"), folder.name)
    with open_instance(watched.home) as instance:
        watched.drift(3, watched.serve(watched.candidate(0)))
        assert turn(watched, folder, 0, "TICK_HELD") == -signal.SIGKILL
        watched.controller.freeze(watched.product, "the holidays", datetime.now(UTC), "ann")
        assert turn(watched, folder, 2) == 0
        assert instance.get_runs() == []
        assert "the holidays" in (ticks(instance, sensor_name(folder.name))[0].skip_reason or "")
