"""One byte string for one value, and one digest for one set of files."""

import hashlib
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import AwareDatetime

from ml_platform.contracts.base import Contract
from ml_platform.contracts.canonical import canonical_bytes, digest, file_sha256, sources_sha256
from ml_platform.contracts.evidence import Verdict


class Note(Contract):
    day: date
    at: AwareDatetime
    verdict: Verdict
    score: float


def test_the_order_of_keys_does_not_change_the_bytes() -> None:
    assert canonical_bytes({"b": 1, "a": {"d": 2, "c": 3}}) == b'{"a":{"c":3,"d":2},"b":1}'


def test_text_stands_as_utf8_and_not_as_escapes() -> None:
    assert canonical_bytes("Zürich ✈ 東京") == '"Zürich ✈ 東京"'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("-inf")], {"deep": {"er": float("nan")}}])
def test_what_is_no_number_has_no_bytes(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_bytes(value)


@pytest.mark.parametrize("value", [{1: "a"}, {"deep": [{None: 1}]}, {True: 1}])
def test_a_key_that_is_no_text_has_no_bytes_because_two_values_would_share_them(value: object) -> None:
    with pytest.raises(TypeError, match="text keys only"):
        canonical_bytes(value)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", date(2013, 1, 1), object()])
def test_what_json_does_not_know_has_no_bytes(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_bytes(value)


def test_half_a_surrogate_has_no_bytes() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        canonical_bytes("\ud800")


def test_a_contract_has_one_spelling_of_dates_and_enumerations() -> None:
    note = Note(day=date(2013, 3, 31), at=datetime(2013, 3, 31, 12, tzinfo=UTC), verdict=Verdict.PASS, score=1)
    expected = b'{"at":"2013-03-31T12:00:00Z","day":"2013-03-31","score":1.0,"verdict":"PASS"}'
    assert note.canonical_bytes() == expected
    assert note.sha256 == digest(note)


def test_a_moment_keeps_its_zone_so_that_two_spellings_are_two_values() -> None:
    utc = datetime(2013, 3, 31, 12, tzinfo=UTC)
    local = utc.astimezone(timezone(timedelta(hours=-4)))
    notes = [Note(day=date(2013, 3, 31), at=at, verdict=Verdict.PASS, score=1) for at in (utc, local)]
    assert notes[0] == notes[1]
    assert b"-04:00" in notes[1].canonical_bytes()


def test_the_digest_of_a_file_is_that_of_its_bytes_however_long(tmp_path: Path) -> None:
    content = b"abc" * 1_000_000
    path = tmp_path / "long"
    path.write_bytes(content)
    assert file_sha256(path) == hashlib.sha256(content).hexdigest()


def test_sources_have_a_digest_of_names_and_bytes_whatever_their_order(tmp_path: Path) -> None:
    for name, text in (("a.py", "one"), ("pkg/b.py", "two"), ("pkg/note.txt", "three")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = sources_sha256([tmp_path / "a.py", tmp_path / "pkg"], tmp_path)
    assert sources_sha256([tmp_path / "pkg", tmp_path / "a.py", tmp_path / "a.py"], tmp_path) == before
    (tmp_path / "pkg" / "note.txt").write_text("changed, but no Python")
    assert sources_sha256([tmp_path / "a.py", tmp_path / "pkg"], tmp_path) == before
    (tmp_path / "pkg" / "b.py").rename(tmp_path / "pkg" / "c.py")
    assert sources_sha256([tmp_path / "a.py", tmp_path / "pkg"], tmp_path) != before
