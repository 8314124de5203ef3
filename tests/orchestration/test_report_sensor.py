"""The sensor of reports: one day at a time, the newest that is over, and not for ever where it fails."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus, Definitions, RunRequest, build_sensor_context

from assets.monitoring import monitoring_job_name
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import load_product
from resources.reporting_days import STARTED_FOR_REPORTS, Due, ask_what_to_report
from sensors.reports import reports_sensor_name
from tests.samples.retraining import Watched, day, midnight, publish_as_of


@pytest.fixture
def watched(watched_folder: Path, home: Path) -> Watched:
    return Watched(Home(home), watched_folder.name)


Ask = Callable[..., Due | str]


@pytest.fixture
def ask(watched_folder: Path, watched: Watched, instance: DagsterInstance) -> Ask:
    """What is due, so many minutes from now."""
    product = load_product(watched_folder)

    def due(minutes: float = 0.0) -> Due | str:
        at = datetime.now(UTC) + timedelta(minutes=minutes)
        return ask_what_to_report(instance, watched.home, product, monitoring_job_name(product.name), lambda: at)

    return due


Run = Callable[[DagsterRunStatus], None]


@pytest.fixture
def run(watched: Watched, watched_defs: Definitions, instance: DagsterInstance) -> Run:
    """Makes a run of the reports of day 3 that stands so."""
    job = watched_defs.resolve_job_def(monitoring_job_name(watched.product))

    def made(status: DagsterRunStatus) -> None:
        instance.create_run_for_job(job, status=status, tags={"dagster/partition": day(3).isoformat()})

    return made


def test_the_last_complete_day_is_asked_for_once_and_days_in_between_are_passed_over(
    ask: Ask, watched: Watched
) -> None:
    assert "Nothing is in production" in str(ask())
    served = watched.serve(watched.candidate(0))
    assert f"No day is complete since {day(0)}" in str(ask())
    publish_as_of(watched.home, watched.product, midnight(3) + timedelta(hours=5))
    assert ask() == Due(day(3), 1)
    watched.drift(3, served, Verdict.PASS)
    assert ask() == Due(day(3), 1), "both reports are wanted"
    watched.quality(3, served)
    assert "the next day is not over" in str(ask())
    publish_as_of(watched.home, watched.product, midnight(6))
    assert ask() == Due(day(6), 1)


def test_a_day_that_fails_is_tried_three_times_with_pauses_and_a_new_day_begins_anew(
    ask: Ask, watched: Watched, run: Run
) -> None:
    watched.serve(watched.candidate(0))
    publish_as_of(watched.home, watched.product, midnight(3))
    run(DagsterRunStatus.FAILURE)
    assert "the next attempt is at" in str(ask(4))
    assert ask(6) == Due(day(3), 2)
    run(DagsterRunStatus.FAILURE)
    assert "the next attempt is at" in str(ask(9))
    assert ask(11) == Due(day(3), 3)
    run(DagsterRunStatus.FAILURE)
    assert "failed 3 times" in str(ask(1000))
    publish_as_of(watched.home, watched.product, midnight(4))
    assert ask(1000) == Due(day(4), 1)
    run(DagsterRunStatus.STARTED)
    assert "makes reports" in str(ask(1000))


def test_a_cancelled_run_is_no_failure_and_the_next_one_has_a_number_of_its_own(
    ask: Ask, watched: Watched, run: Run
) -> None:
    """Dagster starts nothing for a run key that it has seen, so a number used twice would be the last one."""
    watched.serve(watched.candidate(0))
    publish_as_of(watched.home, watched.product, midnight(3))
    run(DagsterRunStatus.CANCELED)
    assert "were cancelled: the next attempt is at" in str(ask(4))
    assert ask(6) == Due(day(3), 2)
    for _ in range(3):
        run(DagsterRunStatus.CANCELED)
    assert ask(6) == Due(day(3), 5)
    run(DagsterRunStatus.FAILURE)
    run(DagsterRunStatus.CANCELED)
    run(DagsterRunStatus.FAILURE)
    assert "failed: the next attempt is at" in str(ask(9))
    assert ask(11) == Due(day(3), 8)
    run(DagsterRunStatus.FAILURE)
    run(DagsterRunStatus.CANCELED)
    assert "failed 3 times" in str(ask(1000))


def test_the_sensor_asks_for_the_job_of_reports_with_its_place_in_the_queue(
    watched: Watched, watched_defs: Definitions, instance: DagsterInstance
) -> None:
    watched.serve(watched.candidate(0))
    publish_as_of(watched.home, watched.product, midnight(3))
    reports = watched_defs.get_repository_def().get_sensor_def(reports_sensor_name(watched.product))
    assert [target.job_name for target in reports.targets] == [monitoring_job_name(watched.product)]
    ticked = reports.evaluate_tick(build_sensor_context(instance=instance, definitions=watched_defs))
    (request,) = ticked.run_requests or []
    assert isinstance(request, RunRequest)
    assert request.partition_key == day(3).isoformat()
    assert request.run_key == f"{watched.product}:reports:{day(3)}:1"
    assert STARTED_FOR_REPORTS.items() <= request.tags.items()
    assert "ml_platform/product" not in request.tags, "reports do not wait behind a training run"


def test_reports_go_on_while_a_product_is_frozen(ask: Ask, watched: Watched) -> None:
    watched.serve(watched.candidate(0))
    publish_as_of(watched.home, watched.product, midnight(3))
    watched.controller.freeze(watched.product, "the holidays", datetime.now(UTC), "ann")
    assert ask() == Due(day(3), 1)
