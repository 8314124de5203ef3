"""Work aside: in a thread of its own and waited for so long only, where what may hang must hold nobody up."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from ml_platform.errors import BusyError

T = TypeVar("T")


class Aside:
    """Does one piece of work at a time in a daemon thread, which nobody joins, not even the end of the process.

    What was not waited for to its end goes on by itself; as long as it does, nothing else is begun.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: Future[Any] | None = None

    def do(self, work: Callable[[], T], *, seconds: float) -> T:
        """What the work returns or raises. Raises BusyError when it takes longer, or what was begun before it does."""
        done = self.begin(work)
        wait([done], seconds)
        if not done.done():
            raise BusyError(f"{self._name}: takes longer than {seconds:g} s. Look at the artifact store.")
        return done.result()

    def begin(self, work: Callable[[], T]) -> "Future[T]":
        """What the work will return or raise. Raises BusyError when what was begun before still goes on."""
        if self._last is not None and not self._last.done():
            raise BusyError(f"{self._name}: what was begun earlier still hangs. Look at the artifact store.")
        self._last = done = Future[T]()
        threading.Thread(target=_run, args=(work, done), name=self._name, daemon=True).start()
        return done


def _run(work: Callable[[], T], done: "Future[T]") -> None:
    try:
        done.set_result(work())
    except Exception as error:  # noqa: BLE001 - it is raised where the work is waited for
        done.set_exception(error)
