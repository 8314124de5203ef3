"""A feature store that breaks: every read says so, none mixes, and the next publication heals it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.serving import LookupSpec
from ml_platform.errors import MlPlatformError, OperationError, StorageError
from ml_platform.features import lookups, reading
from ml_platform.features.publication import CURRENT, current_publication
from ml_platform.features.reading import OnlineReader
from ml_platform.features.store import LOOKUPS_FILE, ONLINE_FILE
from tests.samples.online import ROW, minute, publish, reader_of, shelf

LOOKUPS = {"reading": LookupSpec(source="readings", key=("sensor", "site"), columns=("value",))}
TWO = ({"at": 0, "known": 0, "value": 1.0}, {"at": 60, "known": 60, "value": 2.0})


def value_of(reader: OnlineReader) -> tuple[Any, Any]:
    """The value as a feature and as looked up, from one publication."""
    pinned = reader.pinned()
    found = pinned.look_up("reading", ROW)
    return pinned.read(ROW, None).values["value"], found and found["value"]


def eventually(found: Callable[[], Any], expected: Any, seconds: float = 20.0) -> None:
    """Asks again until the answer is as expected; what breaks meanwhile is an answer too."""
    ends, last = time.monotonic() + seconds, None
    while time.monotonic() < ends:
        try:
            last = found()
        except MlPlatformError as error:
            last = error
        if last == expected:
            return
        time.sleep(0.02)
    raise AssertionError(f"still {last!r}, expected {expected!r}")


def error_of(reader: OnlineReader) -> type[Exception] | None:
    try:
        value_of(reader)
    except MlPlatformError as error:
        return type(error)
    return None


def current_folder(built: Any) -> Path:
    publication = current_publication(shelf(built))
    assert publication is not None
    return shelf(built) / publication.folder


@pytest.fixture
def built(plant: Any) -> Any:
    return plant(*TWO, lookups=LOOKUPS)


def test_a_new_publication_is_noticed_by_itself(built: Any) -> None:
    publish(built, minute(30))
    reader = reader_of(built)
    assert value_of(reader) == (1.0, 1.0)
    publish(built, minute(90))
    eventually(lambda: value_of(reader), (2.0, 2.0))
    assert reader.published_at() == minute(90)


@pytest.mark.parametrize("name", [ONLINE_FILE, LOOKUPS_FILE])
@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda p: p.write_bytes(b"not a database" * 1000), lambda p: os.truncate(p, 100)]
)
def test_files_that_were_damaged_before_they_are_opened_are_named(built: Any, name: str, damage: Any) -> None:
    publish(built, minute(30))
    damage(current_folder(built) / name)
    reader = reader_of(built)
    with pytest.raises(StorageError, match=f"{name}.*Publish them again"):
        value_of(reader)
    publish(built, minute(90))
    eventually(lambda: value_of(reader), (2.0, 2.0))


@pytest.mark.parametrize("damage", [Path.unlink, lambda p: p.write_bytes(b"not a database" * 1000)])
def test_files_that_vanish_or_change_under_a_reader_are_noticed_and_healed(built: Any, damage: Any) -> None:
    publish(built, minute(30))
    reader = reader_of(built)
    assert value_of(reader) == (1.0, 1.0)
    damage(current_folder(built) / ONLINE_FILE)
    eventually(lambda: error_of(reader), StorageError)
    publish(built, minute(90))
    eventually(lambda: value_of(reader), (2.0, 2.0))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"not a database")])
def test_publishing_the_same_moment_again_replaces_what_was_damaged(built: Any, damage: Any) -> None:
    publish(built, minute(30))
    damage(current_folder(built) / ONLINE_FILE)
    publish(built, minute(30))
    assert value_of(reader_of(built)) == (1.0, 1.0)


def test_a_damaged_publication_leaves_the_former_in_use(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(built, minute(30))
    reader = reader_of(built)
    assert value_of(reader) == (1.0, 1.0)
    monkeypatch.setattr(reading, "LOOK_EVERY_SECONDS", 1000.0)
    publish(built, minute(90))
    (current_folder(built) / ONLINE_FILE).write_bytes(b"half a file")
    reader.refresh()
    assert value_of(reader) == (1.0, 1.0)
    publish(built, minute(100))
    reader.refresh()
    assert value_of(reader) == (2.0, 2.0)


def test_a_shelf_that_vanishes_whole_is_told(built: Any) -> None:
    import shutil

    publish(built, minute(30))
    reader = reader_of(built)
    assert value_of(reader) == (1.0, 1.0)
    shutil.rmtree(shelf(built))
    eventually(lambda: error_of(reader), OperationError)
    publish(built, minute(90))
    eventually(lambda: value_of(reader), (2.0, 2.0))


@pytest.mark.parametrize("data", [b'{"half": ', b"", b'{"format": 2}', b"\xff\xfe\x00"])
def test_a_damaged_current_file_is_named_and_healed(built: Any, data: bytes) -> None:
    publish(built, minute(30))
    (shelf(built) / CURRENT).write_bytes(data)
    reader = reader_of(built)
    with pytest.raises(StorageError, match=CURRENT):
        value_of(reader)
    publish(built, minute(30))
    eventually(lambda: value_of(reader), (1.0, 1.0))


def test_publications_that_come_faster_than_readers_look_leave_them_whole(built: Any) -> None:
    publish(built, minute(30))
    reader = reader_of(built)
    assert value_of(reader) == (1.0, 1.0)
    for number in range(5):
        publish(built, minute(90 + number))
        value, looked_up = value_of(reader)
        assert value == looked_up
    eventually(reader.published_at, minute(94))


def test_many_threads_read_whole_publications_while_they_are_replaced(built: Any) -> None:
    publish(built, minute(30))
    reader, done, seen = reader_of(built), threading.Event(), set[Any]()
    wrong: list[BaseException] = []

    def ask() -> None:
        try:
            while not done.is_set():
                seen.add(value_of(reader))
        except BaseException as error:  # noqa: BLE001 - told below
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(4):
        at = minute(90 if number % 2 == 0 else 30)
        publish(built, at, going_back=True)
        eventually(reader.published_at, at)
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert seen == {(1.0, 1.0), (2.0, 2.0)}


def test_what_is_remembered_stays_within_its_bound(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "REMEMBERED", 10)
    built = plant(*({"at": 0, "known": 0, "site": n, "value": float(n)} for n in range(50)), lookups=LOOKUPS)
    publish(built, minute(30))
    pinned = reader_of(built).pinned()
    for _ in range(2):
        for n in range(60):
            row = {"sensor": "a", "site": n}
            expected = float(n) if n < 50 else None
            found = pinned.look_up("reading", row)
            assert pinned.read(row, None).values["value"] == expected
            assert (found and found["value"]) == expected
    assert max(len(view.known) for view in pinned._views) <= 10
    assert len(pinned._lookups._found["reading"]) <= 10


PUBLISHER = """
import pickle, sys
from datetime import datetime
from pathlib import Path
from tests.samples.online import minute, publish
built = pickle.loads(Path(sys.argv[1]).read_bytes())
publish(built, minute(30), going_back=True)
print("ready", flush=True)
number = 0
while True:
    number += 1
    publish(built, minute(90 if number % 2 else 30), going_back=True)
"""


def test_a_publisher_killed_at_any_moment_leaves_a_whole_publication(built: Any, tmp_path: Path) -> None:
    import pickle

    root = Path(__file__).parents[3]
    (tmp_path / "built.pickle").write_bytes(pickle.dumps(built))
    for number in range(4):
        command = [sys.executable, "-c", PUBLISHER, str(tmp_path / "built.pickle")]
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.13 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        value, looked_up = value_of(reader_of(built))
        assert value == looked_up
        assert value in (1.0, 2.0)
    publish(built, minute(91))
    assert not list(shelf(built).glob(".unfinished-*"))
    assert value_of(reader_of(built)) == (2.0, 2.0)
