"""The ear of a follower: wakes it when the ledger's bell rings, and listens anew when the connection breaks."""

import asyncio

from ml_platform.errors import MlPlatformError
from ml_platform.lineage.bell import Bell
from ml_platform.serving.problems import Problems
from ml_platform.serving.threads import CallThreads

AT_ONCE_SECONDS = 5.0
"""How long a thread waits before it asks again; longer than that, nobody notices that the connection is gone."""

SLOWEST_SECONDS = 30.0


class Ear:
    """Listens to the ledger at `url`, in threads; `listening` tells whether the bell would be heard."""

    def __init__(self, url: str, threads: CallThreads, problems: Problems, wake: asyncio.Event) -> None:
        self._url, self._threads, self._problems, self._wake = url, threads, problems, wake
        self.listening = False

    async def listen(self) -> None:
        """Listens until it is cancelled."""
        while True:
            try:
                bell = await self._threads.call(lambda: Bell(self._url), timeout_seconds=SLOWEST_SECONDS)
                self.listening = True
                self._problems.succeeded("the bell")
                await self._hear(bell)
            except (MlPlatformError, TimeoutError) as error:
                self.listening = False
                await asyncio.sleep(self._problems.failed("the bell", error))

    async def _hear(self, bell: Bell) -> None:
        try:
            while True:
                if await self._threads.call(lambda: bell.wait(AT_ONCE_SECONDS), timeout_seconds=SLOWEST_SECONDS):
                    self._wake.set()
        finally:
            bell.close()
