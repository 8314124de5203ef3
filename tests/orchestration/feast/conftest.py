"""Real January flights in two snapshots, and a small product whose every row a test plants."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product, load_product
from ml_platform.contracts.serving import LookupSpec, ServingSpec
from ml_platform.contracts.source import SourceSpec
from ml_platform.features.build import build_features
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.snapshots.extract import take_snapshot

PRODUCT_FOLDER = Path(__file__).parents[3] / "products" / "flight_assistant"
START = datetime(2013, 3, 9, tzinfo=UTC)
DAY = date(2013, 3, 12)


@dataclass(frozen=True)
class Built:
    """A product with its features, and the home they lie in."""

    product: Product
    snapshot: Artifact
    features: Artifact
    home: Home


DEFAULTS: dict[str, Any] = {"sensor": "a", "site": 7, "value": 1.0, "label": "fine", "works": True}


PLANTED_FEATURES: dict[str, Any] = {
    "service": "everything",
    "views": {
        "as_known": {
            "source": "readings",
            "entity": ["sensor", "site"],
            "columns": {"value": "value", "label": "label", "works": "works", "reading_number": "number"},
            "ttl_hours": 24,
        },
        "trailing": {
            "source": "readings",
            "entity": ["sensor"],
            "every_hours": 1,
            "aggregates": {
                "mean_3h": {"function": "mean", "column": "value", "window_hours": 3},
                "count_3h": {"function": "count", "column": "label", "window_hours": 3},
            },
            "ttl_hours": 12,
        },
    },
}


def planted_product(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    features: dict[str, Any] | None = None,
    lookups: dict[str, LookupSpec] | None = None,
    *,
    planned: bool = False,
) -> Product:
    """flight_assistant with its sources replaced by one CSV file of planted rows.

    Times are minutes after START, None for an empty one; `planned` rows may be known before their event.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([{**DEFAULTS, **row} for row in rows])
    frame["number"] = range(len(frame))
    for name in ("at", "known"):
        times = [row[name] for row in rows]
        frame[name] = [None if at is None else (START + timedelta(minutes=at)).isoformat() for at in times]
    frame.to_csv(folder / "readings.csv", index=False)
    source = SourceSpec.parse(
        {
            "kind": "csv",
            "path": "readings.csv",
            "columns": {
                "sensor": "string",
                "site": "integer",
                "at": "timestamp",
                "known": "timestamp",
                "value": "number",
                "label": "string",
                "works": "boolean",
                "number": "integer",
            },
            "nullable": ["value", "at", "known"],
            "key": ["number"],
            "event_time": "at",
            "known_at": "known",
            "known_ahead": planned,
        },
        where="planted",
    )
    product = load_product(PRODUCT_FOLDER)
    spec = product.spec.model_copy(update={"sources": {"readings": source}, "max_staleness_days": None})
    planted = FeatureSpec.parse(features or PLANTED_FEATURES, where="planted features")
    serving = ServingSpec(version="1.0.0", lookups=lookups or {})
    return replace(product, folder=folder, spec=spec, features=planted, serving=serving)


def flights() -> Product:
    """flight_assistant with features alone; lookups have tests of their own."""
    return replace(load_product(PRODUCT_FOLDER), serving=ServingSpec(version="1.0.0"))


def build(product: Product, day: date, home: Home) -> Built:
    """The snapshot of a day and its features."""
    store = LocalArtifactStore(home.artifacts)
    snapshot = take_snapshot(product, day, store)
    return Built(product, snapshot, build_features(product, snapshot, store), home)


class Plant:
    """Makes the features of planted rows: `plant({"at": 0, "known": 60, "value": 2.0})`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(
        self,
        *rows: dict[str, Any],
        features: dict[str, Any] | None = None,
        lookups: dict[str, LookupSpec] | None = None,
        planned: bool = False,
    ) -> Built:
        product = planted_product(self._folder / "product", rows, features, lookups, planned=planned)
        return build(product, DAY, Home(self._folder / "home"))

    def asking(self, *minutes: float, **entity: Any) -> pd.DataFrame:
        """Rows that ask for sensor a at site 7, or what `entity` says, that many minutes after START."""
        times = [START + timedelta(minutes=m) for m in minutes]
        frame = pd.DataFrame({"event_timestamp": pd.to_datetime(times, utc=True)})
        return frame.assign(**{"sensor": "a", "site": 7, **entity})


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path)


@pytest.fixture(scope="session")
def plant_anywhere(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Plant]:
    """A new place to plant in, for each example of a property."""
    return lambda: Plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session", autouse=True)
def close_feasts_own_store() -> Iterator[None]:
    """Feast's own DuckDB store keeps one connection a process, which duckdb complains about when it ends."""
    yield
    import ibis

    ibis.get_backend().disconnect()
    ibis.options.default_backend = None


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="session")
def january_20(real_home: Home) -> Built:
    return build(flights(), date(2013, 1, 20), real_home)


@pytest.fixture(scope="session")
def january_25(real_home: Home) -> Built:
    return build(flights(), date(2013, 1, 25), real_home)
