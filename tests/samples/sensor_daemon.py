"""One turn of the sensor daemon in a process of its own, which may die at a point that Dagster names.

    python -m tests.samples.sensor_daemon SENSOR MINUTE [POINT]

MINUTE is how far the clock is ahead of ours, so that no turn has to wait for the sensor's interval; POINT is one of
Dagster's own: TICK_CREATED, TICK_HELD, RUN_IDS_RESERVED, RUN_CREATED, RUN_LAUNCHED.
"""

import logging
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dagster import DagsterInstance
from dagster._core.test_utils import freeze_time
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.sensor import execute_sensor_iteration

from resources.state import PROJECT


def main() -> None:
    sensor, minute, *points = sys.argv[1:]
    flags = {sensor: dict.fromkeys(points, signal.SIGKILL)}
    target = WorkspaceFileTarget(paths=[str(PROJECT / "workspace.yaml")])
    with (
        DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance,
        WorkspaceProcessContext(instance, target) as workspace,
        freeze_time(datetime.now(UTC) + timedelta(minutes=int(minute))),
    ):
        for error in execute_sensor_iteration(workspace, logging.getLogger("daemon"), None, None, None, flags):
            assert error is None, error


if __name__ == "__main__":
    assert Path(os.environ["DAGSTER_HOME"]).is_dir()
    main()
