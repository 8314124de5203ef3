"""Runs that sensors start, and runs that stand in their way, as Dagster knows them."""

from collections.abc import Mapping

from dagster import AssetKey, DagsterInstance, DagsterRun, RunsFilter
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

# Dagster's public list of runs in progress leaves out those that are queued or not started.
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES

from ml_platform.contracts.canonical import canonical_bytes
from ml_platform.contracts.triggers import Trigger
from ml_platform.errors import InvalidInputError
from ml_platform.monitoring.standing import AutomaticRun

TRIGGER = "ml_platform/trigger"
"""The tag that carries the trigger, as JSON, from the sensor to the release."""
STARTED_BY_SENSOR = {"ml_platform/launched_by": "sensor"}
PRODUCT = "ml_platform/product"


TRAINS = ("training_set", "candidate", "eval_report", "gate_verdict", "registered_release")
"""A run that makes one of these makes a candidate, or judges one."""
REMEMBERED = 50
"""Automatic runs that are looked at: the newest; candidates of older ones are in the ledger."""


def trigger_tags(product: str, trigger: Trigger) -> dict[str, str]:
    """The tags of a run that a trigger starts."""
    return {**STARTED_BY_SENSOR, PRODUCT: product, TRIGGER: canonical_bytes(trigger).decode()}


def trigger_of(tags: Mapping[str, str]) -> Trigger | None:
    """The trigger that started a run, None for a run of people. Raises InvalidInputError for a tag that is none."""
    text = tags.get(TRIGGER)
    if text is None:
        return None
    try:
        return Trigger.model_validate_json(text, strict=True)
    except ValueError as error:
        raise InvalidInputError(
            f"the run's tag '{TRIGGER}' holds no trigger: {error}. Sensors write it; start the run without the tag."
        ) from None


def run_in_flight(instance: DagsterInstance, product: str, job: str) -> str | None:
    """A run of the product that is queued or under way and makes a candidate, in words; None for none.

    Runs of the UI and of backfills carry no tags of ours: they are told by the assets that they make.
    """
    for run in instance.get_runs(RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        if run.job_name == job or _trains(run, product):
            day = run.tags.get("dagster/partition")
            return f"run {run.run_id[:8]}{f' of {day}' if day else ''} ({run.status.value.lower()})"
    return None


def ended_runs(instance: DagsterInstance, product: str) -> tuple[AutomaticRun, ...]:
    """The product's newest automatic runs that have ended, whatever came of them."""
    wanted = RunsFilter(statuses=FINISHED_STATUSES, tags={**STARTED_BY_SENSOR, PRODUCT: product})
    found = []
    for record in instance.get_run_records(wanted, limit=REMEMBERED):
        try:
            trigger = trigger_of(record.dagster_run.tags)
        except InvalidInputError:
            continue
        if trigger is not None:
            found.append(AutomaticRun(trigger, record.create_timestamp))
    return tuple(found)


def _trains(run: DagsterRun, product: str) -> bool:
    if run.asset_selection is None:
        # Everything there is; runs of jobs are told by their names.
        return run.job_name == IMPLICIT_ASSET_JOB_NAME
    return any(AssetKey([product, name]) in run.asset_selection for name in TRAINS)
