"""From the log to the store: as often as it takes, from any process, with nothing lost or doubled."""

import fcntl
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml_platform.errors import MlPlatformError, StorageError
from ml_platform.lineage.provenance.frames import Kind, Reading
from ml_platform.lineage.provenance.segments import (
    make_folder,
    read_segment,
    remove,
    segments_in,
    set_aside,
    size_of,
    taking,
)
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.writing import Progress

logger = logging.getLogger(__name__)

FRAMES_AT_ONCE = 500
EVERY_S = 0.1
"""A controller acts on what is in the store: a release that breaks has users until its answers have come there."""
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Shipped:
    """What one turn did: frames that went to the store, conflicts that are new, segments that are done."""

    frames: int = 0
    conflicts: int = 0
    segments: int = 0


class Shipper:
    """Ships the segments of a folder, those that are still written to as well; one process does it at a time.

    A segment's rows and how far it is shipped are one transaction. Its file is removed once all of it is in the store
    and its writer is done or dead; one with damage is kept under another name. Killed anywhere, the next turn goes on.
    """

    def __init__(self, folder: Path, store: ProvenanceStore, *, every_s: float = EVERY_S) -> None:
        self._folder = folder
        self._store = store
        self._every_s = every_s
        self._sizes: dict[str, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._ship_until_stopped, name="provenance-shipper", daemon=True)

    def ship(self) -> Shipped:
        """One turn over all segments; nothing when another process is at it. Raises StorageError and BusyError."""
        frames = found = done = 0
        with self._at_it_alone() as alone:
            for path in segments_in(self._folder) if alone else ():
                with taking(path) as ended:
                    reading, new = self._ship_segment(path)
                    frames += sum(frame.kind is not Kind.SEAL for frame in reading.frames)
                    found += new
                    if ended:
                        done += 1
                        self._put_away(path)
        return Shipped(frames, found, done)

    def start(self) -> None:
        """Ships in the background, ten times a second, less often while the store is down."""
        self._thread.start()

    def stop(self) -> None:
        """Ends what `start` began, after a last turn. What the store does not take stays in the log."""
        self._stopping.set()
        self._thread.join()
        self._turn()

    def _ship_segment(self, path: Path) -> tuple[Reading, int]:
        size = size_of(path)
        if self._sizes.get(path.name) == size:
            # Nothing was added, so nobody is asked how far it is shipped: most turns find most segments like this.
            return Reading((), (), size), 0
        offset = self._store.shipped_until(path.name)
        reading = read_segment(path, offset)
        new = 0
        for first in range(0, len(reading.frames), FRAMES_AT_ONCE):
            frames = reading.frames[first : first + FRAMES_AT_ONCE]
            damage = tuple(bad for bad in reading.damage if offset <= bad.start < frames[-1].end)
            new += self._store.write(Progress(path.name, frames, damage, frames[-1].end))
            offset = frames[-1].end
        if new:
            logger.error("%s: %d conflicts: kept beside what is stored, see the conflicts of the store", path.name, new)
        self._sizes[path.name] = size
        return reading, new

    def _put_away(self, path: Path) -> None:
        """The file goes first: the other way round, a kill in between would ship all of it again."""
        if read_segment(path).damage:
            set_aside(path)
        else:
            remove(path)
        self._store.forget(path.name)
        self._sizes.pop(path.name, None)

    def _ship_until_stopped(self) -> None:
        pause_s = self._every_s
        while not self._stopping.wait(pause_s):
            pause_s = self._every_s if self._turn() else min(2 * pause_s, LONGEST_PAUSE_S)

    def _turn(self) -> bool:
        try:
            self.ship()
        except MlPlatformError as error:
            logger.warning("answers wait in the log %s: %s", self._folder, error)
            return False
        except Exception:
            logger.exception("answers wait in the log %s: a mistake of ours", self._folder)
            return False
        return True

    @contextmanager
    def _at_it_alone(self) -> Iterator[bool]:
        try:
            make_folder(self._folder)
            with (self._folder / "shipping.lock").open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield False
                else:
                    yield True
        except OSError as error:
            raise StorageError(f"log {self._folder}: {error}. Nothing is lost; it is shipped later.") from error


def ship_until_terminated(folder: Path, url: str) -> None:
    """A process that ships until SIGTERM or SIGINT, and then once more.

    It is made for a process of its own: in a gateway's, the parsing of records would hold up answers.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    store = ProvenanceStore(url)
    shipper = Shipper(folder, store)
    shipper.start()
    ended.wait()
    shipper.stop()
    store.close()
