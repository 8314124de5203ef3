"""Which day's reports are due: the last complete one of the product's time, once, and never two at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES, RunRecord

from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.products import Product
from ml_platform.lineage.replay import Replay
from ml_platform.monitoring.product_day import last_complete_day
from resources.retraining import Clock, kept_ledger, time_of, wall

STARTED_FOR_REPORTS = {"ml_platform/launched_by": "reports"}
REPORTS = ("quality_report", "drift_report")
ATTEMPTS = 3
FIRST_PAUSE = timedelta(minutes=5)
"""After a run that failed or was cancelled; twice as long after the second that failed."""


@dataclass(frozen=True)
class Due:
    """The day whose reports are to be made, and how often that was tried, this time included."""

    day: date
    attempt: int


def ask_what_to_report(
    instance: DagsterInstance, home: Home, product: Product, job: str, clock: Clock = wall
) -> Due | str:
    """The day whose reports are due, or why none is, in words."""
    with kept_ledger(home.ledger_url).read(product.name) as view:
        production = view.replay.slots.get(SlotName.PRODUCTION)
        if production is None:
            return "Nothing is in production: there is nothing to compare a day with."
        learned, day = view.replay.releases[production].data.as_of, _today(home, product, view.replay, clock)
    if day <= learned:
        return f"No day is complete since {learned}, which the release in production has learned from."
    if all((home.manifests / product.name / report / f"{day}.json").is_file() for report in REPORTS):
        return f"{day} has its reports; the next day is not over."
    unfinished = instance.get_runs(RunsFilter(job_name=job, statuses=NOT_FINISHED_STATUSES), limit=1)
    if unfinished:
        return f"Run {unfinished[0].run_id[:8]} ({unfinished[0].status.value.lower()}) makes reports."
    tried = instance.get_run_records(
        RunsFilter(job_name=job, statuses=FINISHED_STATUSES, tags={"dagster/partition": day.isoformat()})
    )
    return _again(day, tried, clock())


def _today(home: Home, product: Product, replay: Replay, clock: Clock) -> date:
    return last_complete_day(time_of(home, product, replay, clock))


def _again(day: date, tried: Sequence[RunRecord], now: datetime) -> Due | str:
    """The next attempt for a day, once the pause after the last one is over; `tried` has the newest first.

    A run that somebody cancelled is no failure, but has its number: Dagster never starts a second run of one number.
    """
    failed = [one for one in tried if one.dagster_run.status is not DagsterRunStatus.CANCELED]
    if len(failed) >= ATTEMPTS:
        return f"The reports of {day} failed {len(failed)} times: see run {failed[0].dagster_run.run_id[:8]}."
    if tried and now < (until := tried[0].update_timestamp + FIRST_PAUSE * 2 ** max(0, len(failed) - 1)):
        ended = "were cancelled" if tried[0].dagster_run.status is DagsterRunStatus.CANCELED else "failed"
        return f"The reports of {day} {ended}: the next attempt is at {until:%H:%M:%S} UTC."
    return Due(day, len(tried) + 1)
