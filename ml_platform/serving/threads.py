"""Threads for calls that may hang: few, daemons, and gone when idle, so that a dead store holds nobody up."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ml_platform.errors import BusyError

T = TypeVar("T")

IDLE_SECONDS = 10.0


class CallThreads:
    """Runs blocking calls beside the event loop, at most `threads` at a time and `waiting` behind them.

    A call that is not waited for any more ends whenever it ends; nobody joins its thread, not even the end of the
    process, which is what a ThreadPoolExecutor would do. Once every thread has been stuck for `stuck_seconds`, calls
    are refused at once until one comes back.
    """

    def __init__(self, name: str, *, threads: int = 4, waiting: int = 256, stuck_seconds: float = 1.0) -> None:
        self._name, self._limit, self._waiting, self._stuck_seconds = name, threads, waiting, stuck_seconds
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._begun: dict[int, float] = {}

    async def call(self, function: Callable[[], T], *, timeout_seconds: float) -> T:
        """What the function returns or raises.

        Raises TimeoutError when it takes longer, BusyError when all threads are stuck or too many calls wait.
        """
        if self._calls.qsize() >= self._waiting or self._stuck():
            raise BusyError(f"calls to the {self._name} hang, or too many wait for it. Look at where its files lie.")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put((future, function))
        self._start_if_needed()
        async with asyncio.timeout(timeout_seconds):
            return await future

    def _stuck(self) -> bool:
        with self._lock:
            long_ago = time.monotonic() - self._stuck_seconds
            return len(self._begun) == self._limit and max(self._begun.values()) < long_ago

    def _start_if_needed(self) -> None:
        with self._lock:
            if self._started == self._limit or self._started > len(self._begun) + self._calls.qsize():
                return
            self._started += 1
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        here = threading.get_ident()
        while True:
            try:
                future, function = self._calls.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    # A call may have come in between: whoever put it saw this thread as free.
                    if self._calls.empty():
                        self._started -= 1
                        return
                continue
            with self._lock:
                self._begun[here] = time.monotonic()
            try:
                if not future.cancelled():
                    _run(future, function)
            finally:
                with self._lock:
                    del self._begun[here]
                del future, function


def _run(future: "asyncio.Future[Any]", function: Callable[[], Any]) -> None:
    found, failed = None, None
    try:
        found = function()
    except Exception as error:  # noqa: BLE001 - it is raised where the call is waited for
        failed = error

    def settle() -> None:
        if future.done():
            return
        if failed is None:
            future.set_result(found)
        else:
            future.set_exception(failed)

    try:
        future.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:  # The loop was closed: nobody waits any more.
        return
