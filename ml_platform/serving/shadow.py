"""The shadow: a release that answers copies of questions beside the real answers, which nobody sees.

It never delays or changes an answer: it begins when the answer has left, few copies run at a time, and what is too
much is dropped and counted.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from ml_platform.contracts.provenance import RecordedError, UnrecordedPolicy
from ml_platform.contracts.routing import Route, RouteReason
from ml_platform.errors import MlPlatformError
from ml_platform.lineage.provenance.recorder import Recorder
from ml_platform.serving.attempt import Attempt, ReleaseFailureError
from ml_platform.serving.breakers import Breakers
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.deployment import Deployment
from ml_platform.serving.loaded import LoadedRelease
from ml_platform.serving.question import Question
from ml_platform.serving.records import RecordWriter

if TYPE_CHECKING:
    from ml_platform.serving.engine_client import EngineClient

logger = logging.getLogger(__name__)

AT_A_TIME = 2


class Shadow:
    """Answers copies, at most `at_a_time` at once; `dropped` counts those that were too many."""

    def __init__(
        self,
        engine: "EngineClient",
        recorder: Recorder,
        records: RecordWriter,
        breakers: Breakers,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        at_a_time: int = AT_A_TIME,
    ) -> None:
        self._engine, self._recorder, self._records, self._breakers = engine, recorder, records, breakers
        self._clock, self._monotonic, self._limit = clock, monotonic, at_a_time
        self._running: set[asyncio.Task[None]] = set()
        self.dropped = 0

    def offer(self, question: Question, deployment: Deployment, route: Route) -> None:
        """Begins to answer a copy of the question with the shadow that the route names, or drops it."""
        loaded = deployment.releases.get(route.shadow_release_id or "")
        if loaded is None:
            return
        if len(self._running) >= self._limit:
            self.dropped += 1
            return
        taken = route.model_copy(update={"release_id": loaded.release_id, "reason": RouteReason.ASSIGNED})
        copy = replace(question, response_id=shadow_id(question.response_id))
        task = asyncio.get_running_loop().create_task(self._answer(copy, question.response_id, loaded, taken))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def drain(self) -> None:
        """Waits for the copies that are being answered."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _answer(self, copy: Question, shadow_of: str, loaded: LoadedRelease, route: Route) -> None:
        started = self._monotonic()
        probe = self._breakers.admit(loaded, started)
        if probe is None:
            self.dropped += 1
            return
        attempt = Attempt(copy, loaded, self._engine, self._monotonic)
        deadline = Deadline.after(loaded.admitted.serving.spec.deadline_ms / 1000.0, started)
        errors: tuple[RecordedError, ...] = ()
        blamed = True
        try:
            await attempt.run(deadline)
        except ReleaseFailureError as failure:
            errors, blamed = (failure.recorded(loaded.release_id),), failure.blamed
        except MlPlatformError:
            self._breakers.record(loaded, failed=None, probe=probe, now=self._monotonic())
            return
        except Exception as error:  # noqa: BLE001 - a copy must never be heard of by the one who asked
            errors = (RecordedError(kind="internal_error", message=type(error).__name__),)
        failed = bool(errors) if attempt.draft.asked_model and blamed else None
        self._breakers.record(loaded, failed=failed, probe=probe, now=self._monotonic())
        record = self._records.record(
            copy,
            route,
            loaded,
            attempt.draft,
            answered_at=self._clock(),
            total_ms=(self._monotonic() - started) * 1000.0,
            errors=errors,
            shadow_of=shadow_of,
        )
        await self._recorder.record(record, UnrecordedPolicy.ANSWER_UNRECORDED)


def shadow_id(response_id: str) -> str:
    """The id of the copy of a response: the same each time, and of no other."""
    return "shadow_" + hashlib.blake2b(response_id.encode(), digest_size=16, person=b"mlp.shadow").hexdigest()
