"""The files of the log: one writer each, sealed when it is done, and whole up to its last sync when that died."""

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ml_platform.lineage.provenance.frames import Kind, Reading, frame_bytes, read_frames

SUFFIX = ".wal"


class Segment:
    """A file that only this process appends to: it holds the lock on it for as long as it is open.

    `synced` bytes are on the disk. Methods raise OSError as the system gives it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.synced = 0
        self._descriptor = descriptor

    @classmethod
    def create(cls, folder: Path) -> "Segment":
        """A new segment under a name that no other machine uses; it has its lock before it has its name."""
        make_folder(folder)
        path = folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}{SUFFIX}"
        hidden = path.with_suffix(".new")
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            hidden.rename(path)
            sync_folder(folder)
        except OSError:
            os.close(descriptor)
            hidden.unlink(missing_ok=True)
            raise
        return cls(path, descriptor)

    def write(self, data: bytes) -> None:
        """Appends bytes; not on the disk yet. After a failure the segment is to be abandoned, with what it holds."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def sync(self) -> None:
        """Returns once everything that was written is on the disk."""
        os.fdatasync(self._descriptor)
        self.synced = os.fstat(self._descriptor).st_size

    def seal(self) -> None:
        """Ends the segment: its last frame says that nothing is missing, and others may take it."""
        try:
            self.write(frame_bytes(Kind.SEAL, b"", self.synced))
            self.sync()
        finally:
            os.close(self._descriptor)

    def abandon(self) -> None:
        """Lets go of the segment as it is, for readers skip what is not whole; one that holds nothing is removed."""
        os.close(self._descriptor)
        if self.synced == 0:
            self.path.unlink(missing_ok=True)


def segments_in(folder: Path) -> tuple[Path, ...]:
    """The segments of a log, oldest first, whoever writes them."""
    return tuple(sorted(folder.glob(f"*{SUFFIX}")))


def read_bytes(path: Path, offset: int = 0) -> bytes:
    """The bytes of a segment from an offset on; none if it is gone."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""


def size_of(path: Path) -> int:
    """How many bytes a segment has, none if it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def read_segment(path: Path, offset: int = 0) -> Reading:
    """What a segment holds from an offset on; nothing if it is gone."""
    return read_frames(read_bytes(path, offset), offset)


@contextmanager
def taking(path: Path) -> Iterator[bool]:
    """Whether the writer of a segment is done or dead: then nothing is added to it, and it is ours within the block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a segment for good."""
    with suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


def set_aside(path: Path) -> None:
    """Keeps a damaged segment under a name that is no segment's."""
    path.rename(path.with_suffix(".damaged"))
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Makes a folder whose name survives a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Returns once the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
