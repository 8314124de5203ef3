"""Runs that a process of this machine executes: the instance they live in, and how the dead among them are found."""

import fcntl
import logging
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    InitResourceContext,
    ResourceDefinition,
    RunsFilter,
)

from ml_platform.contracts.canonical import file_sha256
from ml_platform.contracts.home import Home
from ml_platform.lineage.artifacts import write_atomically
from resources.state import PROJECT, StoreResource

logger = logging.getLogger(__name__)

LAUNCHED_BY = {"ml_platform/launched_by": "mlp"}
UNFINISHED = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]

SHIPPED_BEFORE = {
    "a722d13e9021be17ba9eb0d981795514df42dcbb39cca2a162f5bf75aabd08d3",
    "bc2da7783934553cbd4c19f637a9f7df2b9605da32c03999f3e518ff254f9e22",
}
"""The digests of earlier versions of deploy/dagster.yaml."""

ENDED = {DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED, DagsterRunStatus.FAILURE}
SECONDS_BETWEEN_LOOKS = 2.0

_held: set[str] = set()
"""The runs whose locks this process holds."""


@contextmanager
def open_instance(home: Home) -> Iterator[DagsterInstance]:
    """The instance below the home, the same that the UI shows; made from deploy/dagster.yaml when there is none.

    Settings that an earlier version wrote and nobody edited are renewed. One process at a time opens it: two that
    create its databases at once leave them unusable for good.
    """
    settings = home.dagster / "dagster.yaml"
    home.dagster.mkdir(parents=True, exist_ok=True)
    with (home.dagster / ".opening").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not settings.exists() or file_sha256(settings) in SHIPPED_BEFORE:
            write_atomically(settings, (PROJECT / "deploy" / "dagster.yaml").read_bytes())
        instance = DagsterInstance.from_config(str(home.dagster))
        instance.get_runs(limit=1)
    with instance:
        yield instance


@contextmanager
def alive(home: Home, run_id: str) -> Iterator[None]:
    """Holds the run's lock for as long as this process executes it; a death of any kind lets it go.

    Where this process holds it already, nothing more is done.
    """
    if run_id in _held:
        yield
        return
    path = _lock(home, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.with_suffix(".begun")
    with begun.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(platform.node())
        file.flush()
        begun.replace(path)  # under its name only once it is held: whoever finds it free calls the run dead
        _held.add(run_id)
        try:
            yield
        finally:
            _held.remove(run_id)
        path.unlink(missing_ok=True)


def store_of_a_run() -> ResourceDefinition:
    """The store, as it stands; the run that holds it is told to be alive, whoever launched it.

    Dagster does not miss a run of the UI or the daemon whose machine was started again: it would stand in its
    product's way for a day.
    """
    store = StoreResource()

    def held(context: InitResourceContext) -> Iterator[StoreResource]:
        if context.run is None:
            yield store
        else:
            with alive(store.home, context.run.run_id):
                yield store

    return ResourceDefinition(resource_fn=held, config_schema={})


def report_abandoned_runs(instance: DagsterInstance, home: Home) -> list[DagsterRun]:
    """Marks runs whose process has died as failed and frees their places in pools; returns them.

    Without this they would stay "started" for ever and keep later runs of the product waiting. A run without a lock in
    this home, or with one that another machine took, is not ours to judge.
    """
    abandoned = []
    for found in instance.get_runs(RunsFilter(statuses=UNFINISHED)):
        if not _is_let_go(_lock(home, found.run_id)):
            continue
        # A run ends before it lets its lock go, and may have ended since the list was read.
        run = instance.get_run_by_id(found.run_id)
        if run is not None and run.status in UNFINISHED:
            instance.report_run_failed(run, "The process of this run ended without a word. What it finished is kept.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            abandoned.append(run)
        _lock(home, found.run_id).unlink(missing_ok=True)
    return abandoned


@contextmanager
def stopped_from_outside(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    """Interrupts this process when somebody ends its run in the UI, which cannot reach it otherwise.

    A database that is busy for a moment is asked again: nothing else would ever stop the run.
    """
    done = threading.Event()

    def look() -> None:
        while not done.wait(SECONDS_BETWEEN_LOOKS):
            try:
                run = instance.get_run_by_id(run_id)
            except Exception as error:  # noqa: BLE001 - whatever its database has, the next look asks again
                logger.warning("run %s: cannot be looked at: %s: %s", run_id[:8], type(error).__name__, error)
                continue
            if run is not None and run.status in ENDED:
                if run.status is not DagsterRunStatus.FAILURE:
                    os.kill(os.getpid(), signal.SIGINT)
                return

    watcher = threading.Thread(target=look, name="stopped-from-outside", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _lock(home: Home, run_id: str) -> Path:
    return home.work / "runs" / f"{run_id}.lock"


def _is_let_go(path: Path) -> bool:
    """Whether there is a lock of this machine that nobody holds any more; not each file system shares locks."""
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file.read() in {"", platform.node()}  # an earlier version wrote no name
    except (FileNotFoundError, BlockingIOError):
        return False
