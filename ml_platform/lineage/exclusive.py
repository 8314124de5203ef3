"""One process of this machine at a time."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PATIENCE_SECONDS = 60.0
"""How long those wait for their turn who can do without it."""

BETWEEN_TRIES_SECONDS = 0.05


@contextmanager
def exclusively(lock: Path, *, within_seconds: float | None = None) -> Iterator[None]:
    """Waits until nobody else is between the same two lines; whoever dies there lets go. `lock` is a file's path.

    The file is made and stays. Threads exclude each other, too. Raises OSError when it cannot be made, and
    TimeoutError, which is one, where somebody else still holds it when `within_seconds` are over.
    """
    with lock.open("w") as file:
        if within_seconds is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _take(file, within_seconds)
        yield


def _take(file: IO[str], within_seconds: float) -> None:
    over = time.monotonic() + within_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= over:
                raise TimeoutError(f"another process has held {file.name} for {within_seconds:g} s.") from None
            time.sleep(BETWEEN_TRIES_SECONDS)
        else:
            return
