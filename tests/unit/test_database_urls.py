"""URLs of databases: what cannot be read is refused in a sentence, and no password of any is ever shown."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ml_platform.contracts.home import Home
from ml_platform.errors import ContractError
from ml_platform.lineage.answered import AnswerHistory
from ml_platform.lineage.bell import rings
from ml_platform.lineage.databases import shown
from ml_platform.lineage.ledger_schema import open_engine
from ml_platform.lineage.looks import LookStore
from ml_platform.lineage.looks_schema import open_looks
from ml_platform.lineage.provenance.schema import open_store

UNREADABLE = (
    "postgresql//u:secret@h/db",
    "postgresql://u:secret@h:5432x/db",
    "postgresql://u:secret@[::1/db",
    "secret",
    "",
)
OPENERS: tuple[Callable[[str], object], ...] = (
    open_engine,
    open_looks,
    open_store,
    rings,
    lambda url: LookStore(url).products(),
)


@pytest.mark.parametrize("url", UNREADABLE)
def test_a_url_that_cannot_be_read_is_refused_and_not_repeated(url: str) -> None:
    for opener in OPENERS:
        with pytest.raises(ContractError, match=r"URL: cannot be read\. It is not shown") as refused:
            opener(url)
        assert "secret" not in str(refused.value)
    assert shown(url) == "at a URL that cannot be read"


def test_answers_at_a_url_that_cannot_be_read_are_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_PROVENANCE_URL", UNREADABLE[0])
    with pytest.raises(ContractError, match="store URL: cannot be read"), AnswerHistory.at(Home(tmp_path)):
        pass


@pytest.mark.parametrize("opener", [open_engine, open_looks, open_store])
def test_a_url_of_another_database_is_refused_without_its_password(opener: Callable[[str], object]) -> None:
    for url in ("mysql://u:secret@h/db", "mysql://h/db?password=secret"):
        with pytest.raises(ContractError, match=r"mysql://.*expected a file") as refused:
            opener(url)
        assert "secret" not in str(refused.value)
