"""The job that looks at a product's live traffic and data of one day; it moves nothing."""

from dagster import AssetSelection, define_asset_job
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from assets.chain import Chain

MONITORED = ("snapshot", "live_window", "quality_report", "drift_report")
"""A day's snapshot is found again where a run has taken it, and taken where none has."""


def monitoring_job_name(product: str) -> str:
    """The name of a product's job."""
    return f"{product}__monitoring"


def monitoring_job(chain: Chain) -> UnresolvedAssetJobDefinition:
    """The reports of a product for one day of its time.

    It has no product's tag: the queue lets one run a product through at a time, and reports do not wait for training.
    """
    return define_asset_job(
        monitoring_job_name(chain.product.name),
        selection=AssetSelection.assets(*(chain.key(name) for name in MONITORED)),
        description=f"{chain.product.spec.title}: live traffic, quality and drift of one day (UTC).",
        tags={"ml_platform/family": chain.product.spec.family},
    )
