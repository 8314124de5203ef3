"""Loading: admitted releases staged, loaded into the engine, warmed up, and kept there when the engine forgets them."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ml_platform.contracts.release import Release
from ml_platform.contracts.report import Decoding
from ml_platform.errors import (
    AdapterMissingError,
    DeadlineError,
    EngineBusyError,
    EngineError,
    MlPlatformError,
    NotEligibleError,
    OperationError,
)
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.deployment import AdmittedRelease
from ml_platform.serving.problems import backoff_seconds
from ml_platform.serving.pulse import Pulse
from ml_platform.serving.staging import Staging
from ml_platform.serving.threads import CallThreads

if TYPE_CHECKING:
    from ml_platform.serving.engine_client import EngineClient
    from ml_platform.serving.loaded import LoadedRelease

log = logging.getLogger(__name__)

Load = Callable[[AdmittedRelease], Awaitable["LoadedRelease"]]
Work = Callable[[], Awaitable["LoadedRelease"]]

STAGE_SECONDS = 300.0
ENGINE_SECONDS = 120.0
WARM_UP_SECONDS = 30.0
UNLOAD_AFTER_SECONDS = 60.0
"""How long the adapter of a release that nothing names any more stays in the engine, for answers under way; and how
long until the engine is asked again to let go of what it did not."""

WARM_UP = ({"role": "user", "content": "Are you there?"},)
WARM_UP_DECODING = Decoding(max_new_tokens=4, batch_size=1)


@dataclass(frozen=True)
class Failure:
    """Why a release is not loaded, and when it is tried again; `refused` is the release's fault and nobody else's."""

    reason: str
    refused: bool
    tries: int
    retry_at: float


class Loading:
    """The loaded releases of all products. Call it in the event loop only; `changed` is called after every change."""

    def __init__(
        self,
        staging: Staging,
        engine: "EngineClient",
        load: Load,
        threads: CallThreads,
        changed: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._staging, self._engine, self._load = staging, engine, load
        self._threads, self._changed, self._monotonic = threads, changed, monotonic
        self._pulse = Pulse(engine, monotonic)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._handed: dict[str, str] = {}
        """Adapters by release that the engine may hold: noted before it gets them, until it says that they are gone."""
        self._unwanted_since: dict[str, float] = {}
        self._closed = False
        self.loaded: dict[str, LoadedRelease] = {}
        self.failures: dict[str, Failure] = {}

    @property
    def busy(self) -> bool:
        """Whether any release is being loaded."""
        return bool(self._tasks)

    def tried(self, release_id: str) -> bool:
        """Whether a release is loaded, or was tried in vain."""
        return release_id in self.loaded or release_id in self.failures

    def want(self, releases: Mapping[str, Release]) -> None:
        """Begins to load what is missing and not just failed; gives up what nobody wants any more."""
        if self._closed:
            return
        for release_id, task in self._tasks.items():
            if release_id not in releases:
                task.cancel()
        for release_id in [one for one in self.failures if one not in releases]:
            del self.failures[release_id]
        for release_id, release in releases.items():
            if not (release_id in self.loaded or release_id in self._tasks or self._waits(release_id)):
                self._begin(release_id, partial(self._bring_up, release))
        for release_id in self._handed:
            self._unwanted_since.setdefault(release_id, self._monotonic())
            if release_id in releases:
                del self._unwanted_since[release_id]

    async def look_after(self) -> None:
        """Loads again what the engine has lost, takes from it what nobody wants any more, and feels its pulse.

        Raises EngineError when the engine does not say what it holds, or no token comes out of it.
        """
        held = set(await self._engine.models(timeout_seconds=5.0))
        for release_id, one in self.loaded.items():
            lost = one.admitted.adapter_name not in held and release_id not in self._unwanted_since
            if lost and release_id not in self._tasks and not self._waits(release_id):
                log.warning("the engine has lost release %s: it is loaded again", release_id[:12])
                self._begin(release_id, partial(self._bring_back, one))
        await self._let_go()
        await self._pulse.feel()

    async def idle(self) -> None:
        """Waits until nothing is being loaded."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def close(self) -> None:
        """Stops what is under way; what is loaded stays in the engine, which others use too."""
        self._closed = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _waits(self, release_id: str) -> bool:
        failure = self.failures.get(release_id)
        return failure is not None and self._monotonic() < failure.retry_at

    def _begin(self, release_id: str, work: Work) -> None:
        task = asyncio.create_task(self._finish(release_id, work), name=f"load {release_id[:12]}")
        self._tasks[release_id] = task
        task.add_done_callback(lambda _: self._ended(release_id))

    def _ended(self, release_id: str) -> None:
        del self._tasks[release_id]
        self._changed()

    async def _finish(self, release_id: str, work: Work) -> None:
        try:
            self.loaded[release_id] = await work()
            self.failures.pop(release_id, None)
        except Exception as error:  # noqa: BLE001 - a release's own code may raise anything, and must stop nobody
            self._failed(release_id, error, refused=await self._to_blame(error))

    def _failed(self, release_id: str, error: Exception, *, refused: bool) -> None:
        known = isinstance(error, MlPlatformError | TimeoutError)
        reason = str(error) if known and str(error) else f"{type(error).__name__}: {error}"
        tries = self.failures[release_id].tries + 1 if release_id in self.failures else 1
        wait = backoff_seconds(tries, refused=refused)
        if tries == 1 or self.failures[release_id].reason != reason:
            log.error("release %s was not loaded: %s", release_id[:12], reason, exc_info=None if known else error)
        self.failures[release_id] = Failure(reason, refused, tries, self._monotonic() + wait)

    async def _to_blame(self, error: Exception) -> bool:
        """Whether it is the release's fault: not what a store, a disk or a sick engine did."""
        if isinstance(error, EngineBusyError | DeadlineError | TimeoutError):
            return False
        if isinstance(error, EngineError):
            return await self._engine.healthy(timeout_seconds=5.0)
        return not isinstance(error, OperationError)

    async def _bring_up(self, release: Release) -> "LoadedRelease":
        admitted = await self._threads.call(lambda: self._staging.stage(release), timeout_seconds=STAGE_SECONDS)
        await self._hand_over(admitted)
        return await self._load(admitted)

    async def _bring_back(self, lost: "LoadedRelease") -> "LoadedRelease":
        release = lost.admitted.release
        await self._threads.call(lambda: self._staging.verify(release), timeout_seconds=STAGE_SECONDS)
        await self._hand_over(lost.admitted)
        return lost

    async def _hand_over(self, admitted: AdmittedRelease) -> None:
        """Gives the engine an adapter that was verified just now, and lets it answer once."""
        base = admitted.release.model.base_model
        held = await self._engine.models(timeout_seconds=5.0)
        if base not in held:
            raise NotEligibleError(
                f"release {admitted.release_id[:12]} is an adapter of {base}, which this engine does not serve. "
                f"It holds {', '.join(held) or 'nothing'}. Start an engine with that base model."
            )
        name, path = admitted.adapter_name, admitted.adapter_path
        self._handed[admitted.release_id] = name
        await self._engine.load(name, path, timeout_seconds=ENGINE_SECONDS)
        deadline = Deadline.after(WARM_UP_SECONDS, self._monotonic())
        answer = await self._engine.generate(name, WARM_UP, WARM_UP_DECODING, deadline=deadline)
        if not answer.tokens_out:
            raise EngineError(f"{name[:60]}: generated no token when it was warmed up. Look at the engine.")

    async def _let_go(self) -> None:
        """Takes from the engine what it got and nobody has wanted for long, loaded or not."""
        now = self._monotonic()
        for release_id, since in list(self._unwanted_since.items()):
            # While the engine was busy with the one before, this one may have become wanted again.
            still = self._unwanted_since.get(release_id) == since and release_id not in self._tasks
            if still and now - since > UNLOAD_AFTER_SECONDS:
                self.loaded.pop(release_id, None)
                await self._take_away(release_id)

    async def _take_away(self, release_id: str) -> None:
        """Unloads an adapter that no other release uses; it is forgotten only once the engine says that it is gone."""
        name = self._handed[release_id]
        try:
            if name not in [other for one, other in self._handed.items() if one != release_id]:
                await self._engine.unload(name, timeout_seconds=5.0)
        except AdapterMissingError:
            log.debug("another worker, or a new start of the engine, took %s away", name)
        except EngineError as error:
            log.warning("the engine keeps %s, which nothing names any more, and is asked again: %s", name, error)
            if release_id in self._unwanted_since:
                self._unwanted_since[release_id] = self._monotonic()
            return
        if self._unwanted_since.pop(release_id, None) is not None:
            del self._handed[release_id]
