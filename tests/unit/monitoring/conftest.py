"""A store of records on each of the databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform.lineage.provenance.store import ProvenanceStore
from tests.samples.postgres import make_database


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProvenanceStore]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'provenance.sqlite'}"
    else:
        url = make_database(request.getfixturevalue("postgres"))
    opened = ProvenanceStore(url)
    yield opened
    opened.close()
