"""The sensor that starts continuous training: what it asks for, and how it explains that it asks for nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    Definitions,
    JobDefinition,
    RunRequest,
    SensorDefinition,
    build_sensor_context,
)
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.remote_origin import RemoteRepositoryOrigin
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.workspace.load import location_origins_from_yaml_paths

from assets.continuous_training import job_name
from definitions import platform_definitions
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.contracts.product import GuardrailSpec
from ml_platform.contracts.triggers import Trigger, TriggerKind
from ml_platform.errors import ArtifactCorruptError, InvalidInputError
from resources.automatic_runs import TRIGGER, trigger_of, trigger_tags
from resources.state import PROJECT
from sensors.continuous_training import sensor_name
from tests.samples.retraining import Watched, day, midnight, publish_as_of, put_report, write_watched_product

OTHER = "other_desk"
RETRAIN = {
    "back_off_hours": 24,
    "every_days": 20,
    "new_labels": 100,
    "days_before_deprecation": 30,
    "deprecations": [{"name": "an-old-judge", "ends_at": "2024-03-01T00:00:00Z", "replacement": "a-new-judge"}],
}
UNFINISHED = [status for status in DagsterRunStatus if status not in FINISHED_STATUSES and status.value != "MANAGED"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_watched_product(tmp_path_factory.mktemp("watched"), **RETRAIN)


@pytest.fixture(scope="session")
def defs(folder: Path) -> Definitions:
    return platform_definitions([folder, write_watched_product(folder.parent, OTHER)])


@pytest.fixture
def watched(folder: Path, home: Path) -> Watched:
    return Watched(Home(home), folder.name)


Tick = Callable[[], SensorExecutionData]


@pytest.fixture
def tick(defs: Definitions, folder: Path, instance: DagsterInstance) -> Tick:
    """Evaluates the sensor once, as the daemon does."""
    retrain = sensor_of(defs, folder.name)
    return lambda: retrain.evaluate_tick(build_sensor_context(instance=instance, definitions=defs))


def sensor_of(defs: Definitions, product: str) -> SensorDefinition:
    return defs.get_repository_def().get_sensor_def(sensor_name(product))


def asked(ticked: SensorExecutionData) -> RunRequest:
    assert ticked.skip_message is None, ticked.skip_message
    (request,) = ticked.run_requests or []
    return request


def skipped(ticked: SensorExecutionData) -> str:
    assert not ticked.run_requests
    assert ticked.skip_message is not None
    return ticked.skip_message


@dataclass(frozen=True)
class Runs:
    """Puts runs into the instance as if somebody had started them."""

    defs: Definitions
    instance: DagsterInstance
    product: str

    def of_job(self, status: DagsterRunStatus, **tags: str) -> str:
        job = self.defs.resolve_job_def(job_name(self.product))
        return self._put(job, status, tags={"dagster/partition": "2024-01-25", **tags})

    def of_assets(self, status: DagsterRunStatus, *names: str, product: str = "") -> str:
        """As the UI and its backfills start them: no tags of ours, and the job of all assets."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        return self._put(job, status, asset_selection={AssetKey([product or self.product, name]) for name in names})

    def _put(self, job: JobDefinition, status: DagsterRunStatus, **more: Any) -> str:
        location = location_origins_from_yaml_paths([str(PROJECT / "workspace.yaml")])[0]
        origin = RemoteRepositoryOrigin(location, "__repository__").get_job_origin(job.name)
        return self.instance.create_run_for_job(job, status=status, remote_job_origin=origin, **more).run_id

    def automatic(self, status: DagsterRunStatus, of: Trigger) -> str:
        return self.of_job(status, **trigger_tags(self.product, of))


@pytest.fixture
def runs(defs: Definitions, instance: DagsterInstance, folder: Path) -> Runs:
    return Runs(defs, instance, folder.name)


def trigger(number: int = 0, **changes: object) -> Trigger:
    values: dict[str, object] = {
        "kind": TriggerKind.DRIFT,
        "reason": "r",
        "evidence_sha256": "e" * 64,
        "strength": 1.2,
        "attempt": 1,
        "at": midnight(number),
    }
    return Trigger.model_validate({**values, **changes})


def test_the_sensor_is_on_and_targets_the_whole_chain(defs: Definitions, folder: Path) -> None:
    retrain = sensor_of(defs, folder.name)
    assert retrain.default_status is DefaultSensorStatus.RUNNING
    assert retrain.minimum_interval_seconds == 30
    assert [target.job_name for target in retrain.targets] == [job_name(folder.name)]


def test_without_any_candidate_it_says_how_to_train_the_first(tick: Tick) -> None:
    assert "Train the first with `mlp run`" in skipped(tick())


def test_a_drifted_day_asks_for_the_chain_of_the_last_complete_day(tick: Tick, watched: Watched) -> None:
    served = watched.serve(watched.candidate(0))
    report = watched.drift(3, served)
    request = asked(tick())
    assert request.partition_key == day(3).isoformat()
    assert request.run_key == f"{watched.product}:drift:{report.evidence_sha256[:16]}:1"
    assert request.asset_selection is None
    assert request.asset_check_keys is None
    said = trigger_of(request.tags)
    assert said is not None
    assert (said.kind, said.strength, said.at) == (TriggerKind.DRIFT, 1.5, midnight(3))
    assert said.reason == f"on {day(3)}: 1 of 2 columns moved: parcels.city"


def test_a_tick_that_is_repeated_asks_for_the_very_same_run(tick: Tick, watched: Watched) -> None:
    """At least once is how often a tick happens; Dagster starts one run a key."""
    watched.drift(3, watched.serve(watched.candidate(0)))
    first, again = asked(tick()), asked(tick())
    assert (first.run_key, first.partition_key, first.tags) == (again.run_key, again.partition_key, again.tags)


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR])
def test_a_report_that_proves_nothing_starts_nothing_and_is_quoted(
    tick: Tick, watched: Watched, verdict: Verdict
) -> None:
    watched.drift(3, watched.serve(watched.candidate(0)), verdict)
    said = skipped(tick())
    assert f"drift: {verdict} on {day(3)}" in said
    assert f"calendar: 3 days since the newest candidate's day, {day(0)}; the policy trains at 20." in said


def test_an_open_canary_is_judged_before_another_is_trained(tick: Tick, watched: Watched) -> None:
    served = watched.serve(watched.candidate(0))
    canary = watched.candidate(2)
    watched.open(canary)
    watched.drift(3, served)
    assert f"canary {canary.release_id[:12]} of {day(2)} is still being judged" in skipped(tick())


@pytest.mark.parametrize("status", UNFINISHED, ids=lambda status: status.value)
def test_one_run_of_a_product_at_a_time_however_far_it_has_come(
    tick: Tick, watched: Watched, runs: Runs, status: DagsterRunStatus
) -> None:
    watched.drift(3, watched.serve(watched.candidate(0)))
    run_id = runs.of_job(status)
    said = skipped(tick())
    assert f"run {run_id[:8]} of 2024-01-25 ({status.value.lower()}) is under way" in said
    assert said.startswith(f"drift: on {day(3)}: 1 of 2 columns moved")


def test_a_run_of_the_ui_that_trains_counts_although_it_has_no_tags(tick: Tick, watched: Watched, runs: Runs) -> None:
    watched.drift(3, watched.serve(watched.candidate(0)))
    runs.of_assets(DagsterRunStatus.QUEUED, "training_set", "candidate")
    assert "is under way" in skipped(tick())


def test_runs_that_train_nothing_and_runs_of_other_products_stand_in_nobodys_way(
    tick: Tick, watched: Watched, runs: Runs
) -> None:
    watched.drift(3, watched.serve(watched.candidate(0)))
    runs.of_assets(DagsterRunStatus.STARTED, "snapshot", "online_features")
    runs.of_assets(DagsterRunStatus.STARTED, "candidate", product=OTHER)
    asked(tick())


def test_a_run_that_failed_is_tried_again_after_the_back_off_under_another_key(
    tick: Tick, watched: Watched, runs: Runs
) -> None:
    served = watched.serve(watched.candidate(0))
    watched.drift(3, served)
    first = asked(tick())
    said = trigger_of(first.tags)
    assert said is not None
    runs.automatic(DagsterRunStatus.FAILURE, said)
    assert f"the next is at {midnight(4):%Y-%m-%d %H:%M}" in skipped(tick())
    publish_as_of(watched.home, watched.product, midnight(4))
    second = asked(tick())
    assert second.run_key == (first.run_key or "")[:-1] + "2"
    assert second.partition_key == day(4).isoformat()


def test_a_run_whose_candidate_is_in_the_ledger_is_no_crash(tick: Tick, watched: Watched, runs: Runs) -> None:
    """The run failed after its candidate was held: the ledger knows better what came of it."""
    served = watched.serve(watched.candidate(0))
    report = watched.drift(3, served)
    tried = trigger(3, evidence_sha256=report.evidence_sha256, strength=1.5)
    watched.candidate(2, tried, passes=False)
    runs.automatic(DagsterRunStatus.FAILURE, tried)
    publish_as_of(watched.home, watched.product, midnight(6))
    assert "This evidence has started a run already: refused." in skipped(tick())


def test_a_frozen_product_starts_nothing_until_it_is_unfrozen(tick: Tick, watched: Watched) -> None:
    watched.drift(3, watched.serve(watched.candidate(0)))
    watched.controller.freeze(watched.product, "the holidays", datetime.now(UTC), "ann")
    assert "the holidays" in skipped(tick())
    watched.controller.unfreeze(watched.product, "back", datetime.now(UTC), "ann")
    asked(tick())


def test_a_held_candidate_raises_the_bar_for_the_next_start(tick: Tick, watched: Watched) -> None:
    served = watched.serve(watched.candidate(0))
    watched.candidate(1, trigger(1, strength=1.5), passes=False)
    watched.drift(3, served, effect=1.5)
    assert "more than 1.50 times the threshold" in skipped(tick())
    watched.drift(4, served, effect=1.6)
    assert asked(tick()).partition_key == day(4).isoformat()


def test_an_aborted_canary_is_a_failed_candidate(tick: Tick, watched: Watched) -> None:
    served = watched.serve(watched.candidate(0))
    canary = watched.candidate(1, trigger(1, strength=1.5))
    watched.open(canary)
    watched.abort(canary)
    watched.drift(3, served, effect=1.4)
    assert "more than 1.50 times" in skipped(tick())


def test_a_fall_of_quality_starts_a_run(tick: Tick, watched: Watched) -> None:
    report = watched.quality(3, watched.serve(watched.candidate(0)), Verdict.FAIL, effect=2.5)
    said = trigger_of(asked(tick()).tags)
    assert said is not None
    assert (said.kind, said.strength, said.evidence_sha256) == (TriggerKind.QUALITY, 2.5, report.evidence_sha256)
    assert said.reason == f"on {day(3)}: missed_rate fell by 0.2"


def test_labels_of_the_days_since_the_newest_candidate_start_a_run_once_there_are_enough(
    tick: Tick, watched: Watched
) -> None:
    served = watched.serve(watched.candidate(2))
    for number, labelled in ((1, 1000), (2, 1000), (3, 60), (4, 39)):
        watched.quality(number, served, labelled=labelled)
    assert f"new_labels: 99 new mature labels since the newest candidate's day, {day(2)}" in skipped(tick())
    watched.quality(4, served, labelled=40)
    request = asked(tick())
    assert request.partition_key == day(4).isoformat()
    assert (request.run_key or "").startswith(f"{watched.product}:new_labels:")


def test_the_end_of_a_judge_that_production_uses_starts_a_run(tick: Tick, watched: Watched) -> None:
    judge = {"model": "an-old-judge", "deadline_ms": 500}
    guardrails = GuardrailSpec.parse(
        {"version": "1.0.0", "max_utterance_characters": 9, "safe_reply": "No.", "judge": judge}, where="a sample"
    )
    watched.serve(watched.candidate(0, guardrails=guardrails))
    publish_as_of(watched.home, watched.product, midnight(7))
    assert "an-old-judge ends at 2024-03-01" in skipped(tick())
    publish_as_of(watched.home, watched.product, midnight(9))
    said = trigger_of(asked(tick()).tags)
    assert said is not None
    assert (said.kind, said.reason) == (
        TriggerKind.DEPRECATION,
        "an-old-judge ends at 2024-03-01; look at a-new-judge",
    )


def test_a_judge_that_nobody_uses_may_end(tick: Tick, watched: Watched) -> None:
    watched.serve(watched.candidate(0))
    publish_as_of(watched.home, watched.product, midnight(10))
    assert "an-old-judge is not in use" in skipped(tick())


def test_a_reason_as_long_as_a_table_is_cut(tick: Tick, watched: Watched) -> None:
    served = watched.serve(watched.candidate(0))
    report = watched.drift(3, served).model_copy(update={"reason": "a column " * 500})
    put_report(watched.home, watched.product, "drift_report", day(3), report.model_dump(mode="json"), report.sha256)
    said = trigger_of(asked(tick()).tags)
    assert said is not None
    assert len(said.reason) == 1000


def test_the_calendar_starts_a_run_once_so_many_days_are_over(tick: Tick, watched: Watched) -> None:
    served = watched.serve(watched.candidate(0))
    watched.drift(19, served, Verdict.PASS)
    skipped(tick())
    watched.drift(20, served, Verdict.PASS)
    request = asked(tick())
    assert request.partition_key == day(20).isoformat()
    assert (request.run_key or "").startswith(f"{watched.product}:calendar:")


def test_a_damaged_report_fails_the_tick_and_starts_nothing(tick: Tick, watched: Watched) -> None:
    watched.drift(3, watched.serve(watched.candidate(0)))
    (watched.home.manifests / watched.product / "drift_report" / f"{day(3)}.json").write_text("{}")
    with pytest.raises(ArtifactCorruptError, match="is no manifest of a drift report"):
        tick()
    watched.drift(3, None, Verdict.PASS)
    watched.quality(3, None)
    (watched.home.manifests / watched.product / "quality_report" / f"{day(3)}.json").write_text("{}")
    with pytest.raises(ArtifactCorruptError, match="is no manifest of a quality report"):
        tick()


def test_a_tag_that_is_no_trigger_is_refused_in_words() -> None:
    assert trigger_of({}) is None
    assert trigger_of(trigger_tags("p", trigger())) == trigger()
    with pytest.raises(InvalidInputError, match="holds no trigger"):
        trigger_of({TRIGGER: "{}"})
