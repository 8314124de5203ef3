"""The sensor that starts continuous training by itself: one a product; what it decides is in the library."""

from dagster import (
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_platform.contracts.products import Product
from ml_platform.contracts.triggers import Trigger
from ml_platform.monitoring.triggers import Wait
from resources.automatic_runs import PRODUCT, trigger_tags
from resources.retraining import ask_whether_to_retrain
from resources.runs import report_abandoned_runs
from resources.state import home_at

SECONDS_BETWEEN_TICKS = 30


def sensor_name(product: str) -> str:
    """The name of a product's sensor."""
    return f"{product}__retrain"


def retrain_sensor(product: Product, job: UnresolvedAssetJobDefinition) -> SensorDefinition:
    """Starts the product's whole chain when its monitor policy says so, and says why not otherwise."""

    @sensor(
        name=sensor_name(product.name),
        job=job,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Drift, a fall of quality, new labels, the calendar or the end of a model start the whole chain "
        "for the last complete day, as monitor_policy.yaml says. `mlp freeze` stops it.",
    )
    def retrain(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        home = home_at()
        # The process that ran `mlp run` may have been killed; nothing else would tell for a day.
        for run in report_abandoned_runs(context.instance, home):
            context.log.warning(f"run {run.run_id[:8]} of {run.tags.get(PRODUCT)} had died and is marked as failed")
        answer = ask_whether_to_retrain(context.instance, home, product, job.name)
        if isinstance(answer.decided, Wait):
            return SkipReason(answer.decided.reason)
        trigger = answer.decided.trigger
        request = RunRequest(
            run_key=run_key(product.name, trigger),
            partition_key=answer.day.isoformat(),
            tags=trigger_tags(product.name, trigger),
        )
        return SensorResult(run_requests=[request])

    return retrain


def run_key(product: str, trigger: Trigger) -> str:
    """Names a start for good: the same evidence and attempt never start a second run, whatever dies in between."""
    return f"{product}:{trigger.kind}:{trigger.evidence_sha256[:16]}:{trigger.attempt}"
