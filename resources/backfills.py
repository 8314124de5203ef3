"""Backfills: which range of days a run belongs to, whoever started it."""

from collections.abc import Mapping
from datetime import date

from dagster import DagsterInstance
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.storage.tags import BACKFILL_ID_TAG

from ml_platform.errors import InvalidInputError, OperationError

BACKFILL = "ml_platform/backfill"
"""The tag of a run of `mlp backfill`: `<first day>..<last day>`. Those of the UI carry Dagster's own."""


def backfill_tag(first: date, last: date) -> dict[str, str]:
    """The tag of every run of a backfill."""
    return {BACKFILL: f"{first}..{last}"}


def backfilled_to(instance: DagsterInstance, tags: Mapping[str, str]) -> date | None:
    """The last day of the backfill that a run belongs to, None for a run of its own.

    Raises OperationError for a backfill that the instance does not know, or not the days of: it may move nothing;
    InvalidInputError for a tag of ours that names no days.
    """
    if of_ours := tags.get(BACKFILL):
        return _last_day(of_ours)
    identity = tags.get(BACKFILL_ID_TAG)
    if identity is None:
        return None
    backfill = instance.get_backfill(identity)
    days = _days(backfill) if backfill else []
    if not days:
        raise OperationError(
            f"this run belongs to backfill {identity}, of which this Dagster instance knows no days. Start the day on "
            "its own if its release is to serve."
        )
    return max(date.fromisoformat(day) for day in days)


def _last_day(range_of_days: str) -> date:
    try:
        return date.fromisoformat(range_of_days.rpartition("..")[2])
    except ValueError:
        raise InvalidInputError(
            f"the run's tag '{BACKFILL}' is '{range_of_days}', expected '<first day>..<last day>'. `mlp backfill` "
            "writes it; start the run without the tag."
        ) from None


def _days(backfill: PartitionBackfill) -> list[str]:
    data = backfill.asset_backfill_data
    if data is None:
        return list(backfill.partition_names or ())
    subsets = data.target_subset.partitions_subsets_by_asset_key.values()
    return [day for subset in subsets for day in subset.get_partition_keys()]
