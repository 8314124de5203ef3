"""A tiny product of its own for every session, and an instance and a home for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, Definitions

from benchmarks.tiny_product import write_tiny_product
from definitions import platform_definitions
from tests.samples.retraining import write_watched_product


@pytest.fixture(scope="session")
def tiny_product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the parcel desk; tests that change a product copy it first."""
    return write_tiny_product(tmp_path_factory.mktemp("products"))


@pytest.fixture(scope="session")
def watched_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a product that sensors watch; nobody changes it."""
    return write_watched_product(tmp_path_factory.mktemp("watched"))


@pytest.fixture(scope="session")
def watched_defs(watched_folder: Path) -> Definitions:
    """What Dagster loads of that product."""
    return platform_definitions([watched_folder])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home that ML_PLATFORM_HOME names."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("ML_PLATFORM_HOME", str(path))
    return path


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance that forgets everything."""
    with DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral
