"""The local log: an append returns once it is on the disk, and appends that wait at the same moment share one fsync."""

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.errors import StorageError
from ml_platform.lineage.provenance.frames import LARGEST_PAYLOAD, Kind, frame_bytes
from ml_platform.lineage.provenance.segments import Segment

SEGMENT_BYTES = 64 << 20
PENDING_BYTES = 64 << 20
BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class _Waiting:
    kind: Kind
    payload: bytes
    future: "asyncio.Future[None] | Future[None]"
    loop: asyncio.AbstractEventLoop | None


class WriteAheadLog:
    """A folder of segments that any number of processes append to, each to its own.

    One thread writes: it takes all that waits, writes it, syncs once and tells everybody. Segments roll at
    `segment_bytes`. Once `pending_bytes` wait for a slow disk, more is refused at once. Nothing is created before
    the first append; each start begins a new segment, so that what a dead process left is never written to.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, pending_bytes: int = PENDING_BYTES) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._pending_limit = pending_bytes
        self._pending: deque[_Waiting] = deque()
        self._pending_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._segment: Segment | None = None
        self._writer = threading.Thread(target=self._write_until_closed, name="provenance-log", daemon=True)
        self._writer.start()

    async def append(self, payload: bytes, kind: Kind = Kind.RESPONSE) -> None:
        """Returns once the payload is on the disk. Raises StorageError when it is not, and why.

        A caller that is cancelled meanwhile leaves the payload in the log.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._enqueue(_Waiting(kind, payload, future, loop))
        await future

    def submit(self, payload: bytes, kind: Kind = Kind.RESPONSE) -> "Future[None]":
        """The same for threads: a future that is done once the payload is on the disk."""
        future: Future[None] = Future()
        self._enqueue(_Waiting(kind, payload, future, None))
        return future

    @property
    def pending_bytes(self) -> int:
        """How much waits for the disk."""
        return self._pending_bytes

    def close(self) -> None:
        """Writes what waits, seals the segment and refuses more. Raises StorageError when the seal fails."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join()
        segment, self._segment = self._segment, None
        if segment is not None:
            try:
                segment.seal()
            except OSError as error:
                raise StorageError(f"{segment.path}: cannot be sealed: {error}. What was told is safe.") from error

    def _enqueue(self, waiting: _Waiting) -> None:
        if len(waiting.payload) > LARGEST_PAYLOAD:
            raise StorageError(
                f"a record of {len(waiting.payload):,} bytes is not logged: at most {LARGEST_PAYLOAD:,}. "
                "Lower the limits on bodies and answers."
            )
        with self._changed:
            if self._closing:
                raise StorageError(f"log {self.folder}: is closed. Nothing was recorded.")
            if self._pending_bytes + len(waiting.payload) > self._pending_limit:
                raise StorageError(
                    f"log {self.folder}: {self._pending_bytes:,} bytes wait for the disk, which is too slow or stuck. "
                    "Nothing was recorded. Look at the disk."
                )
            self._pending.append(waiting)
            self._pending_bytes += len(waiting.payload)
            self._changed.notify()

    def _write_until_closed(self) -> None:
        while batch := self._next_batch():
            try:
                self._commit(batch)
            except OSError as error:
                _settle(batch, f"log {self.folder}: {error.strerror or error}. Nothing was recorded. Free some space.")
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
                _settle(batch, f"log {self.folder}: {error!r}. Nothing was recorded. This is a mistake of ours.")
            else:
                _settle(batch, None)

    def _next_batch(self) -> list[_Waiting]:
        with self._changed:
            while not self._pending and not self._closing:
                self._changed.wait()
            batch, size = [], 0
            while self._pending and size < BATCH_BYTES:
                batch.append(self._pending.popleft())
                size += len(batch[-1].payload)
            self._pending_bytes -= size
            return batch

    def _commit(self, batch: list[_Waiting]) -> None:
        segment = self._roomy_segment()
        data = b"".join(frame_bytes(waiting.kind, waiting.payload, segment.synced) for waiting in batch)
        try:
            segment.write(data)
            segment.sync()
        except OSError:
            # After a failed fsync no later one of this file can be believed. And bytes are never taken back: a shipper
            # may have read them, and would miss what came to stand in their place.
            self._segment = None
            segment.abandon()
            raise

    def _roomy_segment(self) -> Segment:
        if self._segment is not None and self._segment.synced >= self._segment_bytes:
            full, self._segment = self._segment, None
            full.seal()
        if self._segment is None:
            self._segment = Segment.create(self.folder)
        return self._segment


def _settle(batch: list[_Waiting], problem: str | None) -> None:
    """Tells everybody who waits; event loops are woken once for all that wait in them."""
    in_loops: dict[asyncio.AbstractEventLoop, list[Any]] = {}
    for waiting in batch:
        if waiting.loop is not None:
            in_loops.setdefault(waiting.loop, []).append(waiting.future)
        elif waiting.future.set_running_or_notify_cancel():  # type: ignore[union-attr]
            _finish([waiting.future], problem)
    for loop, futures in in_loops.items():
        try:
            loop.call_soon_threadsafe(_finish, futures, problem)
        except RuntimeError:  # The loop was closed: nobody waits any more.
            continue


def _finish(futures: list[Any], problem: str | None) -> None:
    for future in futures:
        if future.done():
            continue
        if problem is None:
            future.set_result(None)
        else:
            future.set_exception(StorageError(problem))
