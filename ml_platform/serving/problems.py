"""Problems: what does not work right now, said once when it begins and once when it ends, and tried again in time."""

import logging
from collections.abc import Awaitable, Callable

from ml_platform.errors import IntegrityError, MlPlatformError

log = logging.getLogger(__name__)


def backoff_seconds(tries: int, *, refused: bool = False) -> float:
    """How long to wait after so many failures: up to 5 s for what may pass, up to 30 s for what hardly will."""
    return float(min(0.2 * 2.0 ** min(tries, 16), 30.0 if refused else 5.0))


class Problems:
    """Problems by what they concern, e.g. a product or `the ledger`."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._tries: dict[str, tuple[int, float]] = {}
        self.present: dict[str, str] = {}

    def waits(self, what: str) -> bool:
        """Whether it failed so recently that it is not tried again yet."""
        return self._monotonic() < self._tries.get(what, (0, 0.0))[1]

    async def note(self, what: str, work: Awaitable[None]) -> None:
        """Waits for work, and notes whether it failed."""
        try:
            await work
        except (MlPlatformError, TimeoutError) as error:
            self.failed(what, error)
        else:
            self.succeeded(what)

    def failed(self, what: str, error: Exception) -> float:
        """It did not work; returns the seconds to wait before the next try."""
        tries = self._tries.get(what, (0, 0.0))[0] + 1
        # What is damaged stays so until somebody repairs it, and a whole chain is read again at every try.
        wait = backoff_seconds(tries, refused=isinstance(error, IntegrityError))
        self._tries[what] = tries, self._monotonic() + wait
        ours = isinstance(error, (MlPlatformError, TimeoutError))
        reason = str(error) if ours else f"a mistake of our own ({type(error).__name__}: {error})."
        reason = reason or f"{what} did not answer in time."
        if self.present.get(what) != reason:
            trace = None if ours else error
            log.error("what is admitted keeps serving, but %s cannot be followed: %s", what, reason, exc_info=trace)
        self.present[what] = reason
        return wait

    def succeeded(self, what: str) -> None:
        """It works, perhaps again."""
        self._tries.pop(what, None)
        if self.present.pop(what, None):
            log.warning("%s can be followed again", what)
