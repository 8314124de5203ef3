"""Every way in which a person or a machine can start a run: each goes to the canary of all products of the matrix."""

import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetSpec,
    AutomationCondition,
    DagsterInstance,
    Definitions,
    RunRequest,
    SensorEvaluationContext,
    build_schedule_context,
    build_sensor_context,
    evaluate_automation_conditions,
    sensor,
)

from assets.chain import CHAIN
from assets.continuous_training import job_name
from ml_platform.contracts.home import Home
from resources.state import PROJECT
from tests.orchestration.launch_columns import (
    CANARY,
    COLUMNS,
    DAY,
    Prepared,
    run_assets,
)
from tests.samples.trained_here import definitions_training_here

PRODUCTS = tuple(column.product for column in COLUMNS)
CANARIES = tuple(AssetKey([product, CANARY]) for product in PRODUCTS)
MONDAY = datetime(2024, 1, 29, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Here:
    """A home of one's own that ML_PLATFORM_HOME names, and its instance."""

    prepared: Prepared
    home: Home
    instance: DagsterInstance

    @property
    def defs(self) -> Definitions:
        return definitions_training_here(self.prepared.folders)


def full_job(here: Here) -> None:
    """The job of each product, as it stands."""
    defs = here.defs
    for product in PRODUCTS:
        _run(defs, here.instance, RunRequest(job_name=job_name(product), partition_key=DAY))


def checks_deselected(here: Here) -> None:
    """Every asset of the chain, and none of its checks."""
    run_assets(here.defs, here.instance, PRODUCTS, CHAIN)


def command_line(here: Here) -> None:
    """`dagster asset materialize --select`, of the canaries alone."""
    selection = ",".join(key.to_user_string() for key in CANARIES)
    command = ["asset", "materialize", "--select", selection, "--partition", DAY, "-f", str(PROJECT / "definitions.py")]
    environment = {
        **os.environ,
        "ML_PLATFORM_PRODUCTS": str(here.prepared.products),
        "DAGSTER_HOME": str(here.home.dagster),
    }
    subprocess.run(
        [sys.executable, "-m", "dagster", *command], check=True, cwd=PROJECT, env=environment, capture_output=True
    )


def automation_condition(here: Here) -> None:
    """`AutomationCondition.eager()` on the canaries, while somebody reports a registered release."""

    def eager(spec: AssetSpec) -> AssetSpec:
        if spec.key not in CANARIES:
            return spec
        return spec.replace_attributes(automation_condition=AutomationCondition.eager())

    defs = here.defs.map_asset_specs(func=eager)
    before = evaluate_automation_conditions(defs, here.instance, evaluation_time=MONDAY)
    assert before.total_requested == 0
    for product in PRODUCTS:
        reported = AssetMaterialization(AssetKey([product, "registered_release"]), partition=DAY)
        here.instance.report_runless_asset_event(reported)
    asked = evaluate_automation_conditions(defs, here.instance, evaluation_time=MONDAY, cursor=before.cursor)
    assert {key: asked.get_requested_partitions(key) for key in CANARIES} == {key: {DAY} for key in CANARIES}
    run_assets(defs, here.instance, PRODUCTS, [CANARY])


def sensor_run_request(here: Here) -> None:
    """A sensor asks for the canary alone, out of the real job."""
    platform = here.defs

    @sensor(jobs=list(platform.jobs or ()))
    def impatient(_context: SensorEvaluationContext) -> list[RunRequest]:
        return [
            RunRequest(run_key=product, job_name=job_name(product), partition_key=DAY, asset_selection=[canary])
            for product, canary in zip(PRODUCTS, CANARIES, strict=True)
        ]

    defs = Definitions.merge(platform, Definitions(sensors=[impatient]))
    tick = impatient.evaluate_tick(build_sensor_context(instance=here.instance, definitions=defs))
    assert len(tick.run_requests or []) == len(PRODUCTS)
    for request in tick.run_requests or []:
        _run(defs, here.instance, request)


def schedule_tick(here: Here) -> None:
    """The weekly schedule of each product, on its Monday."""
    defs = here.defs
    for product in PRODUCTS:
        repository = defs.get_repository_def()
        weekly = repository.get_schedule_def(f"{product}__weekly")
        context = build_schedule_context(
            instance=here.instance, scheduled_execution_time=MONDAY, repository_def=repository
        )
        (request,) = weekly.evaluate_tick(context).run_requests or []
        assert request.partition_key == DAY
        _run(defs, here.instance, request, job_name(product))


def execute_in_process(here: Here) -> None:
    """`execute_in_process` of the canaries alone, from Python."""
    job = here.defs.resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(instance=here.instance, partition_key=DAY, asset_selection=[*CANARIES])
    assert done.success


def _run(defs: Definitions, instance: DagsterInstance, request: RunRequest, job: str = "") -> None:
    """The run that a request asks for."""
    done = defs.resolve_job_def(request.job_name or job).execute_in_process(
        instance=instance,
        partition_key=request.partition_key,
        asset_selection=request.asset_selection and [*request.asset_selection],
        tags=dict(request.tags),
        run_config=request.run_config or None,
        raise_on_error=False,
    )
    assert done.success
