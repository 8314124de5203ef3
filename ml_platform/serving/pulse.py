"""The engine's pulse: whether tokens still come out of it, felt now and then."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ml_platform.errors import EngineError

if TYPE_CHECKING:
    from ml_platform.serving.engine_client import EngineClient

PROBE_EVERY_SECONDS = 10.0
"""An idle engine makes a token for every probe of every worker; one that answers somebody makes none for it."""

PROBE_SECONDS = 6.0
"""Longer than our engine waits for its token, so that it is the engine that says so."""

MISSES = 2
"""One pass through the model may take longer than a probe: an engine that is busy is not called down for that."""


class Pulse:
    """Feels whether an engine that is there still works: its thread of the model may hang while all else answers."""

    def __init__(self, engine: "EngineClient", monotonic: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._monotonic = engine, monotonic
        self._missed, self._due = 0, float("-inf")

    async def feel(self) -> None:
        """Probes when it is time to, and at every call after a probe that failed.

        Raises EngineError when no token came out for several probes in a row.
        """
        if not self._missed and self._monotonic() < self._due:
            return
        self._due = self._monotonic() + PROBE_EVERY_SECONDS
        self._missed = 0 if await self._engine.healthy(timeout_seconds=PROBE_SECONDS) else self._missed + 1
        if self._missed >= MISSES:
            raise EngineError("the engine is there, but no token comes out of it. Restart it; its log may say why.")
