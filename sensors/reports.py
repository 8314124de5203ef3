"""The sensor that has a product's day reported once it is over, in the product's own time."""

from dagster import DefaultSensorStatus, RunRequest, SensorDefinition, SensorEvaluationContext, SkipReason, sensor
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_platform.contracts.products import Product
from resources.reporting_days import STARTED_FOR_REPORTS, ask_what_to_report
from resources.state import home_at

SECONDS_BETWEEN_TICKS = 60


def reports_sensor_name(product: str) -> str:
    """The name of a product's sensor."""
    return f"{product}__reports"


def reports_sensor(product: Product, job: UnresolvedAssetJobDefinition) -> SensorDefinition:
    """Starts the product's reports for the last complete day, unless it has them; days in between are passed over."""

    @sensor(
        name=reports_sensor_name(product.name),
        job=job,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Live traffic, quality and drift of the last complete day, once a day of the product's time. "
        "What they find may start continuous training.",
    )
    def reports(context: SensorEvaluationContext) -> RunRequest | SkipReason:
        due = ask_what_to_report(context.instance, home_at(), product, job.name)
        if isinstance(due, str):
            return SkipReason(due)
        return RunRequest(
            run_key=f"{product.name}:reports:{due.day}:{due.attempt}",
            partition_key=due.day.isoformat(),
            tags=STARTED_FOR_REPORTS,
        )

    return reports
