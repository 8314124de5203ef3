"""Small real products and snapshots for the tests of this folder."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_platform.contracts.product import ProductSpec
from ml_platform.contracts.products import Product
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.snapshots.extract import take_snapshot

ROOT = Path(__file__).parents[3]
FLIGHT_ASSISTANT = ROOT / "products" / "flight_assistant"
AS_OF = date(2024, 5, 2)

TICKETS = {
    "kind": "csv",
    "path": "tickets.csv",
    "columns": {
        "ticket_id": "string",
        "asked_at": "timestamp",
        "known_at": "timestamp",
        "question": "string",
        "answer": "string",
        "priority": "integer",
        "score": "number",
        "open": "boolean",
    },
    "nullable": ["score"],
    "key": ["ticket_id"],
    "event_time": "asked_at",
    "known_at": "known_at",
    "max_bad_share": 0.5,
}
"""A source that uses every column type."""

MakeProduct = Callable[..., Product]


def only_sources(folder: Path, spec: dict[str, Any]) -> Product:
    """A product of which only what snapshots look at is filled in: the folder and product.yaml."""
    parts = dict.fromkeys(("prompt", "promotion_policy", "monitor_policy", "guardrails", "action_policy", "features"))
    return Product(folder=folder, spec=ProductSpec.parse(spec, where=str(folder / "product.yaml")), **parts)  # type: ignore[arg-type]


@pytest.fixture
def make_product(tmp_path: Path) -> MakeProduct:
    """Makes a product with one source `tickets`, whose declaration may be changed, or with other sources."""
    flight_assistant = yaml.safe_load((FLIGHT_ASSISTANT / "product.yaml").read_text())

    def make(
        sources: dict[str, Any] | None = None,
        expectations: str | None = None,
        max_staleness_days: float | None = None,
        **changes: Any,
    ) -> Product:
        folder = tmp_path / "products" / "helpdesk"
        folder.mkdir(parents=True, exist_ok=True)
        files = {**flight_assistant["files"], "expectations": None, "features": None}
        if expectations is not None:
            (folder / "expectations.yaml").write_text(expectations)
            files["expectations"] = "expectations.yaml"
        spec = {
            **flight_assistant,
            "name": "helpdesk",
            "title": "Help desk",
            "max_staleness_days": max_staleness_days,
            "sources": sources or {"tickets": {**TICKETS, **changes}},
            "files": files,
        }
        return only_sources(folder, spec)

    return make


@pytest.fixture
def ticket_row() -> Callable[..., dict[str, str]]:
    """Makes a good row, as CSV cells, with changes."""

    def make(number: int, **changes: str) -> dict[str, str]:
        return {
            "ticket_id": f"T{number:04d}",
            "asked_at": f"2024-05-01T{number % 24:02d}:00:00Z",
            "known_at": f"2024-05-01T{number % 24:02d}:30:00Z",
            "question": f"Where is parcel {number}, please?",
            "answer": "On its way",
            "priority": str(number % 3),
            "score": f"{number / 8}",
            "open": "true" if number % 2 else "false",
        } | changes

    return make


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "artifacts")


@pytest.fixture(scope="session")
def flight_product() -> Product:
    """The sources of the real product; the other files are for other tests."""
    return only_sources(FLIGHT_ASSISTANT, yaml.safe_load((FLIGHT_ASSISTANT / "product.yaml").read_text()))


@pytest.fixture(scope="session")
def flight_store(tmp_path_factory: pytest.TempPathFactory) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path_factory.mktemp("flights"))


@pytest.fixture(scope="session")
def flight_snapshot(flight_product: Product, flight_store: LocalArtifactStore) -> Artifact:
    """The whole real data as of 2013-02-15."""
    return take_snapshot(flight_product, date(2013, 2, 15), flight_store)
