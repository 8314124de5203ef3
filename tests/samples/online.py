"""What is built goes online and is read as a gateway does; times are minutes after 9 March 2013."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ml_platform.contracts.provenance import FeaturesRead
from ml_platform.features.definitions import definitions_sha256
from ml_platform.features.online import publish_online
from ml_platform.features.publication import Publication, shelf_of
from ml_platform.features.reading import OnlineReader

ROW = {"sensor": "a", "site": 7}


def minute(number: float) -> datetime:
    """A moment of the planted rows."""
    return datetime(2013, 3, 9, tzinfo=UTC) + timedelta(minutes=number)


def publish(built: Any, at: datetime, **how: Any) -> Publication:
    """Puts what was built online."""
    needed = built.snapshot if built.product.serving.lookups else None
    return publish_online(built.product, built.features, built.home, at, snapshot=needed, **how)


def _definitions(built: Any) -> str | None:
    return definitions_sha256(built.product) if built.product.features else None


def shelf(built: Any) -> Path:
    """Where its publications lie."""
    return shelf_of(built.home, built.product.name, _definitions(built), built.product.serving.lookups)


def reader_of(built: Any) -> OnlineReader:
    """What a gateway reads with: it knows the definitions and no product folder."""
    product = built.product
    return OnlineReader(built.home, product.name, product.features, _definitions(built), product.serving.lookups)


def read(built: Any, row: dict[str, Any], now: datetime | None = None) -> FeaturesRead:
    """What a gateway that has just started reads."""
    return reader_of(built).read(row, now)


def said(built: Any, name: str, row: dict[str, Any] = ROW, now: datetime | None = None) -> tuple[Any, Any]:
    """A value and the time of its event."""
    found = read(built, row, now)
    return found.values[name], found.event_at[name]
