"""Answering: one question becomes one reply whose record is durable, whatever breaks on the way.

The deployment is taken once, so that a swap in mid-answer changes nothing. A release that fails is left for the one
that routing gives next, which starts anew with its own prompt, guardrails, features and adapter; when none is left,
the product's fallback reply leaves, marked as such.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ml_platform.contracts.provenance import RecordedError, UnrecordedPolicy
from ml_platform.contracts.routing import Route
from ml_platform.contracts.serving import SHARE_OF_DEADLINE
from ml_platform.errors import InvalidInputError, NotServingError, StorageError, UnknownProductError
from ml_platform.lineage.provenance.recorder import Recorder
from ml_platform.serving.attempt import Attempt, Draft, ReleaseFailureError
from ml_platform.serving.breakers import Breakers
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.deployment import Deployments
from ml_platform.serving.journey import Journey, Rung, nothing_serves
from ml_platform.serving.loaded import LoadedRelease
from ml_platform.serving.question import Question, Reply
from ml_platform.serving.records import RecordWriter
from ml_platform.serving.shadow import Shadow

if TYPE_CHECKING:
    from ml_platform.serving.engine_client import EngineClient

logger = logging.getLogger(__name__)

RESERVED_SECONDS = 0.05
"""Kept from every attempt for the record, without which no answer leaves."""
ALMOST = 0.9
"""A release with this share of the time that it usually has is late by its own fault; less is the asker's haste."""
RECORD_SECONDS = 1.0
"""An answer that is there waits so long for its record even past the deadline; a disk that hangs takes longer."""


class Answerer:
    """Answers questions of all products in one event loop.

    `monotonic` is the clock of deadlines, `clock` tells when an answer was given. `listen` is told every reply.
    """

    def __init__(
        self,
        deployments: Deployments,
        engine: "EngineClient",
        recorder: Recorder,
        *,
        user_salt: bytes,
        code_commit: str | None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        listen: Callable[[Reply], None] | None = None,
    ) -> None:
        self._deployments, self._engine, self._recorder = deployments, engine, recorder
        self._records = RecordWriter(user_salt, code_commit)
        self._clock, self._monotonic, self._listen = clock, monotonic, listen
        self.breakers = Breakers(deployments)
        self.shadow = Shadow(engine, recorder, self._records, self.breakers, clock=clock, monotonic=monotonic)
        self._leaving: set[asyncio.Task[bool]] = set()

    async def answer(self, question: Question) -> Reply:
        """The reply, whose record is on the disk or which the product lets leave without one.

        Raises UnknownProductError, NotServingError when no release is loaded, RefusedError for an override that is
        not allowed, InvalidInputError for what the question is about, and StorageError when the answer cannot be
        recorded and the product refuses such answers. A cancelled call leaves a record that says so.
        """
        deployment = self._deployments.of(question.product)
        if deployment is None:
            raise UnknownProductError(f"no product '{question.product[:64]}' serves here. Ask for one of /v1/models.")
        if not deployment.releases:
            raise NotServingError(f"no release of '{question.product}' is loaded here yet. Try again in a few seconds.")
        journey = Journey(question, deployment, self._monotonic())
        try:
            reply = await self._reply(journey)
            await self._record(reply, journey)
        except asyncio.CancelledError:
            self._leave(journey)
            raise
        self._tell(reply)
        if journey.route is not None and journey.route.shadow_release_id is not None:
            self.shadow.offer(question, deployment, journey.route)
        return reply

    async def drain(self) -> None:
        """Waits for the records of clients that hung up, and for the copies that the shadow still answers."""
        await self.shadow.drain()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _reply(self, journey: Journey) -> Reply:
        while rung := self._next_rung(journey):
            probe = self.breakers.admit(rung.loaded, self._monotonic())
            if probe is None:
                journey.leave(rung)
                continue
            try:
                draft = await self._attempt(journey, rung)
                reply = self._made(journey, rung.route, rung.loaded, draft)
            except ReleaseFailureError as failure:
                journey.leave(rung, failure)
                failed = True if failure.blamed else None
                self.breakers.record(rung.loaded, failed=failed, probe=probe, now=self._monotonic())
                if failure.hopeless:
                    break
                continue
            except InvalidInputError:
                self.breakers.record(rung.loaded, failed=None, probe=probe, now=self._monotonic())
                raise
            failed = False if draft.asked_model else None
            self.breakers.record(rung.loaded, failed=failed, probe=probe, now=self._monotonic())
            return reply
        taken = journey.route
        assert taken is not None  # noqa: S101 - the loop above has asked for a route
        return self._made(journey, nothing_serves(taken), journey.spokesman, journey.fallback())

    def _next_rung(self, journey: Journey) -> Rung | None:
        now = self._monotonic()
        return journey.next_rung(self.breakers.shut(journey.deployment, now), now)

    async def _attempt(self, journey: Journey, rung: Rung) -> Draft:
        now = self._monotonic()
        share = SHARE_OF_DEADLINE if journey.another(rung) else 1.0
        end = Deadline(journey.question.deadline.at - RESERVED_SECONDS)
        end = end.within(end.remaining(now) * share, now)
        usual = (journey.usual_seconds - RESERVED_SECONDS) * share
        journey.attempt = Attempt(journey.question, rung.loaded, self._engine, self._monotonic)
        try:
            return await journey.attempt.run(end, patient=end.remaining(now) >= ALMOST * usual)
        except (ReleaseFailureError, InvalidInputError):
            raise
        except Exception as error:
            # Only where, never what: the words of an error may hold the question.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("answer %s: %s\n%s", journey.question.response_id, type(error).__name__, where)  # noqa: TRY400
            raise ReleaseFailureError("internal_error", type(error).__name__) from error

    def _made(self, journey: Journey, taken: Route, loaded: LoadedRelease, draft: Draft) -> Reply:
        try:
            record = self._records.record(
                journey.question,
                taken,
                loaded,
                draft,
                answered_at=self._clock(),
                total_ms=(self._monotonic() - journey.started) * 1000.0,
                errors=tuple(journey.errors),
            )
        except ValidationError as error:
            wrong = ", ".join(sorted({str(one["loc"][0]) for one in error.errors() if one["loc"]}))
            raise ReleaseFailureError("unrecordable", f"no record can hold what it gave: {wrong}") from None
        return Reply(record, draft.answer, draft.status)

    async def _record(self, reply: Reply, journey: Journey) -> None:
        policy = journey.spokesman.admitted.serving.spec.unrecorded
        seconds = max(journey.question.deadline.remaining(self._monotonic()), RECORD_SECONDS)
        # From here on the log has the record, even if the client hangs up.
        journey.recording = True
        try:
            async with asyncio.timeout(seconds):
                await self._recorder.record(reply.record, policy)
        except TimeoutError:
            what = f"answer {reply.record.response_id}: its record was not on the disk after {seconds:.1f} s"
            if policy is UnrecordedPolicy.REFUSE:
                raise StorageError(f"{what}. Look at the disk of the provenance log.") from None
            logger.critical("%s; it leaves without", what)
            self._recorder.unrecorded += 1

    def _leave(self, journey: Journey) -> None:
        """Records that the client hung up, beside the call that is being cancelled."""
        rung, attempt = journey.rung, journey.attempt
        if journey.recording or rung is None or attempt is None:
            return
        journey.errors.append(
            RecordedError(kind="client_gone", message="the client hung up before there was an answer")
        )
        utterance = journey.stored_utterance()
        draft = replace(attempt.draft, utterance=utterance, answer="", stored_answer="")
        try:
            reply = self._made(journey, rung.route, rung.loaded, draft)
        except ReleaseFailureError:
            reply = self._made(journey, rung.route, rung.loaded, Draft(utterance=utterance))
        recorded = self._recorder.record(reply.record, UnrecordedPolicy.ANSWER_UNRECORDED)
        task = asyncio.get_running_loop().create_task(recorded)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _tell(self, reply: Reply) -> None:
        if self._listen is None:
            return
        try:
            self._listen(reply)
        except Exception:  # an answer never fails because nobody could count it
            logger.exception("answer %s could not be counted", reply.record.response_id)
