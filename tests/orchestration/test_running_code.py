"""A process that outlives a change of the code signs nothing in the name of the new one."""

from pathlib import Path

import pytest

from ml_platform.errors import IntegrityError
from resources import running_code
from resources.state import StoreResource


def test_a_pull_in_the_middle_of_a_backfill_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "package" / "groundedness.py"
    source.parent.mkdir()
    source.write_text("LIMIT = 1\n")
    monkeypatch.setattr(running_code, "_PACKAGE", source.parent)
    monkeypatch.setattr(running_code, "LOADED", running_code.library_sha256())
    opens = StoreResource(home_path=str(tmp_path / "home")).store
    opens()
    source.write_text("LIMIT = 2\n")
    with pytest.raises(IntegrityError, match=r"changed after this process had loaded them.*Run again"):
        opens()
    source.write_text("LIMIT = 1\n")
    opens()
