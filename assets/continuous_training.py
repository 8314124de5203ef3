"""The job that runs a product's whole chain for one day, and its weekly schedule."""

from datetime import UTC, timedelta

from dagster import (
    AssetSelection,
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    define_asset_job,
    schedule,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from assets.chain import CHAIN, Chain

MONDAY_MORNING = "0 5 * * 1"


def job_name(product: str) -> str:
    """The name of a product's job."""
    return f"{product}__continuous_training"


def continuous_training_job(chain: Chain) -> UnresolvedAssetJobDefinition:
    """The whole chain of a product, its checks included, for one day."""
    return define_asset_job(
        job_name(chain.product.name),
        selection=AssetSelection.assets(*(chain.key(name) for name in CHAIN)),
        description=f"{chain.product.spec.title}: from a validated snapshot to a canary, for one day (UTC).",
        tags=chain.tags,
    )


def weekly_schedule(chain: Chain, job: UnresolvedAssetJobDefinition) -> ScheduleDefinition:
    """Runs the job every Monday for the last complete day; stopped until somebody starts it."""

    @schedule(
        name=f"{chain.product.name}__weekly",
        cron_schedule=MONDAY_MORNING,
        execution_timezone="UTC",
        job=job,
        default_status=DefaultScheduleStatus.STOPPED,
        description="Every Monday at 05:00 UTC: the whole chain for the last complete day.",
    )
    def weekly(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        day = (context.scheduled_execution_time.astimezone(UTC) - timedelta(days=1)).date()
        if day < chain.product.spec.first_as_of:
            return SkipReason(
                f"{chain.product.name} begins at {chain.product.spec.first_as_of}: no day is complete yet."
            )
        return RunRequest(run_key=f"{chain.product.name}:{day}", partition_key=day.isoformat())

    return weekly
