"""Signals that end a process, heard whatever stood in their way."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_heard() -> Iterator[Callable[[], int]]:
    """A question for the main thread: how many signals to end came since it was asked before.

    Dagster answers one with a run that failed, as any other does, and tells nobody that somebody asked for the end.
    """
    ours, handlers = os.pipe()
    os.set_blocking(ours, False)
    os.set_blocking(handlers, False)
    before = signal.set_wakeup_fd(handlers, warn_on_full_buffer=False)

    def heard() -> int:
        with suppress(BlockingIOError):
            return sum(number in ENDING for number in os.read(ours, 4096))
        return 0

    try:
        yield heard
    finally:
        signal.set_wakeup_fd(before)
        os.close(ours)
        os.close(handlers)
