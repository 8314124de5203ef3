"""Stores of answers and labels on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform.lineage.labels import LabelStore
from ml_platform.lineage.provenance.store import ProvenanceStore
from tests.samples.postgres import make_database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'provenance.sqlite'}"
    return make_database(request.getfixturevalue("postgres"))


@pytest.fixture
def answers(url: str) -> Iterator[ProvenanceStore]:
    opened = ProvenanceStore(url)
    yield opened
    opened.close()


@pytest.fixture
def labels(url: str) -> Iterator[LabelStore]:
    opened = LabelStore(url)
    yield opened
    opened.close()
