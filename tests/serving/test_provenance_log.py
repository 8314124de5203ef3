"""An append that returned is on the disk; appends that wait together share one fsync; a full disk is told."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ml_platform.contracts.provenance import UnrecordedPolicy
from ml_platform.errors import StorageError
from ml_platform.lineage.provenance import wal
from ml_platform.lineage.provenance.frames import LARGEST_PAYLOAD, Kind
from ml_platform.lineage.provenance.recorder import Recorder
from ml_platform.lineage.provenance.segments import Segment, read_segment, segments_in, taking
from ml_platform.lineage.provenance.wal import WriteAheadLog
from tests.samples.provenance import make_feedback, make_record

ROOT = Path(__file__).resolve().parents[2]


def logged(folder: Path) -> list[bytes]:
    frames = [frame for path in segments_in(folder) for frame in read_segment(path).frames]
    return [frame.payload for frame in frames if frame.kind is not Kind.SEAL]


class SlowDisk:
    """The real fdatasync, which waits until it may go on, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.began = threading.Event()
        self.may_end = threading.Event()
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        self.began.set()
        assert self.may_end.wait(60)
        self._real(descriptor)


def test_an_append_is_durable_when_it_returns_and_before_the_log_is_closed(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path)
    assert segments_in(tmp_path) == ()
    log.submit(b"one").result(60)
    assert logged(tmp_path) == [b"one"]
    log.close()
    assert read_segment(segments_in(tmp_path)[0]).sealed


def test_nobody_is_told_before_the_sync_and_all_that_wait_share_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    log = WriteAheadLog(tmp_path)
    first = log.submit(b"first")
    assert disk.began.wait(60)
    others = [log.submit(b"%d" % number) for number in range(100)]
    assert not any(future.done() for future in (first, *others))
    disk.may_end.set()
    for future in (first, *others):
        future.result(60)
    assert disk.calls == 2
    log.close()
    assert logged(tmp_path) == [b"first", *(b"%d" % number for number in range(100))]


def test_coroutines_wait_for_the_same_sync_and_one_that_is_cancelled_stays_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    log = WriteAheadLog(tmp_path)

    async def ask() -> None:
        waiting = [asyncio.create_task(log.append(b"%d" % number)) for number in range(50)]
        await asyncio.sleep(0)
        waiting[7].cancel()
        disk.may_end.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [number for number, result in enumerate(results) if result is not None] == [7]

    asyncio.run(ask())
    log.close()
    assert sorted(logged(tmp_path)) == sorted(b"%d" % number for number in range(50))
    assert disk.calls <= 3


def test_a_loop_that_is_gone_stops_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch)
    log = WriteAheadLog(tmp_path)

    async def leave() -> None:
        task = asyncio.create_task(log.append(b"left"))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    stays = log.submit(b"stays")
    disk.may_end.set()
    stays.result(60)
    log.close()
    assert logged(tmp_path) == [b"left", b"stays"]


def test_segments_roll_and_each_but_the_last_is_sealed_and_free(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path, segment_bytes=100)
    for number in range(9):
        log.submit(b"%d" % number * 40).result(60)
    paths = segments_in(tmp_path)
    assert len(paths) == 5
    assert [read_segment(path).sealed for path in paths] == [True] * 4 + [False]
    for path in paths:
        with taking(path) as ended:
            assert ended == (path != paths[-1])
    log.close()
    assert logged(tmp_path) == [b"%d" % number * 40 for number in range(9)]


def test_a_new_start_never_writes_to_what_an_earlier_one_left(tmp_path: Path) -> None:
    left = Segment.create(tmp_path)
    left.write(b"half a fra")
    os.close(left._descriptor)
    log = WriteAheadLog(tmp_path)
    log.submit(b"new").result(60)
    log.close()
    assert left.path.read_bytes() == b"half a fra"
    assert logged(tmp_path) == [b"new"]


def test_a_stuck_disk_refuses_at_once_instead_of_filling_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    log = WriteAheadLog(tmp_path, pending_bytes=100)
    first = log.submit(b"x" * 100)
    assert disk.began.wait(60)
    second = log.submit(b"y" * 100)
    with pytest.raises(StorageError, match=r"100 bytes wait for the disk"):
        log.submit(b"z")
    disk.may_end.set()
    first.result(60)
    second.result(60)
    log.submit(b"z").result(60)
    log.close()


def test_a_closed_log_and_a_giant_record_are_refused(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path)
    with pytest.raises(StorageError, match="at most"):
        log.submit(bytes(LARGEST_PAYLOAD + 1))
    log.close()
    with pytest.raises(StorageError, match="is closed"):
        log.submit(b"late")


def test_after_a_failed_sync_its_segment_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = WriteAheadLog(tmp_path)
    log.submit(b"before").result(60)
    real = os.fdatasync

    def fail(descriptor: int) -> None:
        monkeypatch.setattr(os, "fdatasync", real)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        log.submit(b"lost").result(60)
    log.submit(b"after").result(60)
    log.close()
    paths = segments_in(tmp_path)
    assert len(paths) == 2
    assert logged(tmp_path) == [b"before", b"lost", b"after"], "more than was acknowledged may be there, never less"


def test_whatever_breaks_in_the_writer_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = WriteAheadLog(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(wal, "frame_bytes", lambda *_: 1 / 0)
        with pytest.raises(StorageError, match="ZeroDivisionError"):
            log.submit(b"x").result(60)
    log.submit(b"y").result(60)
    log.close()


FULL_DISK = """
import asyncio, logging, resource, sys
from pathlib import Path
from ml_platform.contracts.provenance import UnrecordedPolicy
from ml_platform.errors import StorageError
from ml_platform.lineage.provenance.recorder import Recorder
from ml_platform.lineage.provenance.wal import WriteAheadLog
from tests.samples.provenance import make_record

# No file may grow beyond this: the system refuses in the middle of a write, as a full disk does.
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
folder, policy = Path(sys.argv[1]), UnrecordedPolicy(sys.argv[2])

async def serve():
    log = WriteAheadLog(folder)
    recorder = Recorder(log)
    big = {"answer": "x" * 30_000}
    print("small", await recorder.record(make_record(1), policy))
    for number in (2, 3):
        try:
            print("big", await recorder.record(make_record(number, **big), policy))
        except StorageError as error:
            print("refused", str(error))
    print("small", await recorder.record(make_record(4), policy))
    print("unrecorded", recorder.unrecorded)
    log.close()

logging.basicConfig(format="%(levelname)s %(message)s")
asyncio.run(serve())
"""


def serve_on_a_full_disk(folder: Path, policy: UnrecordedPolicy) -> tuple[list[str], str]:
    command = [sys.executable, "-c", FULL_DISK, str(folder), policy.value]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    return ran.stdout.splitlines(), ran.stderr


def test_a_full_disk_refuses_the_answer_where_the_policy_says_so(tmp_path: Path) -> None:
    told, aloud = serve_on_a_full_disk(tmp_path, UnrecordedPolicy.REFUSE)
    assert (told[0], told[3], told[4]) == ("small True", "small True", "unrecorded 0")
    assert all(line.startswith("refused") and "Free some space" in line for line in told[1:3])
    assert aloud.count("CRITICAL answer resp_") == aloud.count("is refused") == 2
    assert logged(tmp_path) == [make_record(1).log_bytes(), make_record(4).log_bytes()]


def test_a_full_disk_answers_aloud_where_the_policy_says_so(tmp_path: Path) -> None:
    told, aloud = serve_on_a_full_disk(tmp_path, UnrecordedPolicy.ANSWER_UNRECORDED)
    assert told == ["small True", "big False", "big False", "small True", "unrecorded 2"]
    assert aloud.count("leaves without a record") == 2
    assert make_record(2).utterance not in aloud
    assert logged(tmp_path) == [make_record(1).log_bytes(), make_record(4).log_bytes()]


def test_feedback_goes_through_the_same_log(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path)
    asyncio.run(Recorder(log).take(make_feedback(1)))
    log.close()
    assert read_segment(segments_in(tmp_path)[0]).frames[0].kind is Kind.FEEDBACK
