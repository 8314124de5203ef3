"""A step that waits for a place which another run holds says so, for nothing else tells why nothing moves."""

import json
from pathlib import Path

from dagster import DagsterInstance, EventLogEntry, in_process_executor, job, op
from dagster._core.utils import make_new_run_id

from ml_platform.cli.progress_view import WARNING
from resources.event_lines import EventLines

POOL = "somebody__training"


@op(pool=POOL)
def candidate() -> None:
    """What needs the place."""


@job(executor_def=in_process_executor)
def chain() -> None:
    """A chain of one step."""
    candidate()


def test_a_step_without_a_place_says_once_what_it_waits_for_and_goes_on_by_itself(tmp_path: Path) -> None:
    instance = DagsterInstance.local_temp(str(tmp_path))  # one in memory has no pools
    places, run_id, told = instance.event_log_storage, make_new_run_id(), []
    places.set_concurrency_slots(POOL, 1)
    places.claim_concurrency_slot(POOL, "another-run", "candidate")
    lines = EventLines(chain)

    def listen(entry: EventLogEntry) -> None:
        line = json.loads(lines.line(entry) or "{}")
        if line.get("event") == "log":
            told.append(line)
            places.free_concurrency_slots_for_run("another-run")

    instance.add_event_listener(run_id, listen)
    assert chain.execute_in_process(instance=instance, run_id=run_id).success
    (line,) = told
    assert (line["asset"], line["metadata"]["level"]) == ("candidate", WARNING)
    assert line["message"].startswith(f"candidate waits until another run lets go of {POOL}.")
