"""Glances: what a store last said, asked at most so often, by one at a time, and never waited for for long."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ml_platform.errors import MlPlatformError
from ml_platform.serving.threads import CallThreads

T = TypeVar("T")
logger = logging.getLogger(__name__)

COSTS_AT_MOST = 0.05
"""The share of the time that asking may take: who answers slowly is asked less often."""

FORGOTTEN_SECONDS = 60.0
"""A call that has not come back for so long is given up, and another one is tried."""


@dataclass(frozen=True)
class Said(Generic[T]):
    """What a store said: None if it never did. `problem` is what is wrong with it now, None for nothing.

    With a problem, the value is as old as `age_seconds`.
    """

    value: T | None
    problem: str | None
    age_seconds: float | None


class Glance(Generic[T]):
    """One question to one store. It runs beside the event loop, in threads of the console's own.

    A store that is down costs those who look `patience_seconds` at most, and then nothing until it is asked again.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[[], T],
        threads: CallThreads,
        *,
        every_seconds: float = 1.0,
        patience_seconds: float = 2.0,
    ) -> None:
        self._name, self._ask, self._threads = name, ask, threads
        self._every, self._patience = every_seconds, patience_seconds
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        self._value: T | None = None
        self._said_at: float | None = None
        self._problem: str | None = None
        self._took = 0.0

    async def look(self) -> Said[T]:
        """What it says, or what it said and why it says nothing now."""
        now = time.monotonic()
        if self._asking is None and now - self._asked_at >= max(self._every, self._took / COSTS_AT_MOST):
            self._asked_at = now
            self._asking = asyncio.create_task(self._refresh(), name=f"console: {self._name}")
        if self._asking is not None:
            # Who waited once for a store that hangs does not wait again: his page says that it hangs.
            patience = self._patience if now - self._asked_at < self._patience else 0.0
            await asyncio.wait((self._asking,), timeout=patience)
        age = None if self._said_at is None else time.monotonic() - self._said_at
        problem = self._problem if self._asking is None else f"{self._name} does not answer."
        return Said(self._value, problem, age)

    def ask_anew(self) -> None:
        """Lets the next look ask, however short the last one is ago."""
        self._asked_at = float("-inf")

    async def _refresh(self) -> None:
        began = time.monotonic()
        try:
            self._value = await self._threads.call(self._ask, timeout_seconds=FORGOTTEN_SECONDS)
            self._said_at, self._problem = time.monotonic(), None
            self._took = min(self._said_at - began, FORGOTTEN_SECONDS * COSTS_AT_MOST)
        except TimeoutError:
            self._problem = f"{self._name} does not answer."
        except MlPlatformError as error:
            self._problem = f"{self._name} cannot be read: {error}"
        except Exception:
            said = f"{self._name} cannot be read; the gateway's log says why."
            if said != self._problem:
                logger.exception("the console cannot read %s", self._name)
            self._problem = said
        finally:
            self._asking = None
