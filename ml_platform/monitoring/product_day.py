"""Which day it is for a product, read off small files: what a run that starts by itself would learn from."""

from datetime import UTC, date, datetime, time, timedelta

from ml_platform.contracts.home import Home
from ml_platform.contracts.serving import ServingTime
from ml_platform.errors import ContractError
from ml_platform.features.publication import CURRENT, Publication


def product_time(home: Home, product: str, clock: ServingTime, *, days: tuple[date, ...], wall: datetime) -> datetime:
    """The product's time: the clock's, or where history is replayed the newest moment that anything is known of.

    That is when its newest features were published for, or the end of the newest of `days`, of which there are reports
    or releases.
    """
    if clock is ServingTime.CLOCK:
        return wall
    ends = [datetime.combine(day + timedelta(days=1), time(), UTC) for day in days]
    return max([*ends, *_published(home, product)], default=wall)


def last_complete_day(now: datetime) -> date:
    """The newest day that is over: a partition of that day sees all that was known at its end."""
    return now.astimezone(UTC).date() - timedelta(days=1)


def _published(home: Home, product: str) -> list[datetime]:
    """When the features on each shelf of the product are of; a damaged shelf says nothing, its readers complain."""
    found = []
    for path in sorted((home.features / product).glob(f"*/{CURRENT}")):
        try:
            found.append(Publication.read(path).at)
        except (ContractError, OSError):
            continue
    return found
