"""One process of this machine at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusively(lock: Path) -> Iterator[None]:
    """Waits until nobody else is between the same two lines; whoever dies there lets go. `lock` is a file's path.

    The file is made and stays. Threads exclude each other, too. Raises OSError when it cannot be made.
    """
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
