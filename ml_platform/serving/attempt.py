"""One attempt: one release answers one question, from the guardrails before the model to those after it.

Everything comes from the one LoadedRelease that is handed in. What is the release's fault is raised as a failure, so
that the caller can ask the next release, which starts anew.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.example import Example, FactValue
from ml_platform.contracts.guardrails import GuardrailReport, GuardrailVerdict
from ml_platform.contracts.provenance import Entity, FeaturesRead, RecordedError
from ml_platform.contracts.serving import UnknownFacts
from ml_platform.errors import AdapterMissingError, DeadlineError, EngineBusyError, EngineError, PromptTooLongError
from ml_platform.families.lora.prompt import messages
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.facts import FactsError, KnownFacts
from ml_platform.serving.guardrails.personal_data import redact, sound
from ml_platform.serving.guardrails.protocol import Asked
from ml_platform.serving.loaded import LoadedRelease
from ml_platform.serving.question import Question, ReplyStatus

if TYPE_CHECKING:
    from ml_platform.serving.engine_client import EngineClient, Generated

SLACK_SECONDS = 0.05
"""How much later than its deadline an engine may say that it is late, before it counts as hanging."""
LONGEST_MESSAGE = 300


@dataclass(slots=True)
class Draft:
    """What is known of an answer so far: its attempt fills it in, and nobody changes it after that."""

    utterance: str
    status: ReplyStatus = ReplyStatus.FALLBACK
    answer: str = ""
    stored_answer: str = ""
    entity: Entity | None = None
    facts: dict[str, FactValue] | None = None
    features: FeaturesRead | None = None
    verdicts: tuple[GuardrailVerdict, ...] = ()
    errors: tuple[RecordedError, ...] = ()
    asked_model: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    queue_ms: float | None = None
    features_ms: float | None = None
    first_token_ms: float | None = None


class ReleaseFailureError(Exception):
    """Why a release did not answer.

    `blamed` says whether that is its own fault, which its breaker counts; with `hopeless` no other would do better.
    """

    def __init__(self, kind: str, message: str, *, blamed: bool = True, hopeless: bool = False) -> None:
        super().__init__(message)
        self.kind, self.blamed, self.hopeless = kind, blamed, hopeless

    def recorded(self, release_id: str) -> RecordedError:
        """The failure as it is kept: without personal data, and no longer than it needs to be."""
        said, _ = redact(sound(str(self))[:LONGEST_MESSAGE])
        return RecordedError(kind=self.kind, message=f"release {release_id[:12]}: {said}")


class Attempt:
    """One release's try; `draft` is what is known so far, also when the try is cancelled half-way."""

    def __init__(
        self, question: Question, loaded: LoadedRelease, engine: "EngineClient", clock: Callable[[], float]
    ) -> None:
        self._question, self._loaded, self._engine, self._clock = question, loaded, engine, clock
        self.draft = Draft(utterance="")
        self._patient = True

    async def run(self, deadline: Deadline, *, patient: bool = True) -> Draft:
        """The draft of an answer, blocked or not; to be late is the release's fault only if the asker is patient.

        Raises ReleaseFailureError; InvalidInputError for metadata that says nothing of what the question is about.
        """
        loaded, question, self._patient = self._loaded, self._question, patient
        if deadline.passed(self._clock()):
            raise ReleaseFailureError("deadline", "the deadline passed before anything was done", blamed=False)
        report = await loaded.guardrails.check_input(question.utterance, timeout_seconds=self._left(deadline))
        self.draft = Draft(utterance=report.text, verdicts=report.verdicts)
        if not report.passed:
            return self._blocked(loaded.facts.entity_of(question.metadata))
        known = await self._known_facts(deadline)
        if self._refuses(known):
            return self._with(answer=loaded.fallback_reply, stored_answer=loaded.fallback_reply)
        generated = await self._generated(known, deadline)
        asked = Asked(self.draft.utterance, known.facts)
        judged = await loaded.guardrails.check_output(generated.text, asked, timeout_seconds=self._left(deadline))
        self._with(verdicts=(*self.draft.verdicts, *judged.verdicts))
        return self._judged(generated, judged)

    async def _known_facts(self, deadline: Deadline) -> KnownFacts:
        started = self._clock()
        try:
            known = await self._loaded.facts.find(self._question.metadata, timeout_seconds=self._left(deadline))
        except FactsError as error:
            raise ReleaseFailureError("facts_failed", str(error)) from error
        self._with(
            entity=known.entity,
            facts=known.facts,
            features=known.features,
            features_ms=(self._clock() - started) * 1000.0,
        )
        if known.unknown or known.problem:
            said = known.problem or "missing or too old"
            names = f": {', '.join(known.unknown)}" if known.unknown else ""
            self._with(errors=(RecordedError(kind="features_unknown", message=f"{said[:LONGEST_MESSAGE]}{names}"),))
        return known

    def _refuses(self, known: KnownFacts) -> bool:
        """Whether what is unknown is too much for an answer of this product."""
        refuse = self._loaded.admitted.serving.spec.unknown_facts is UnknownFacts.REFUSE
        return not known.answerable or (refuse and bool(known.unknown or known.problem))

    async def _generated(self, known: KnownFacts, deadline: Deadline) -> "Generated":
        admitted = self._loaded.admitted
        # Not validated: its parts are, and it goes no further than the prompt.
        shown = Example.model_construct(
            example_id="", entity="", utterance=self.draft.utterance, facts=known.facts, answer=""
        )
        turns = messages(admitted.prompt, shown, with_answer=False)
        if deadline.passed(self._clock()):
            raise ReleaseFailureError("deadline", "the deadline passed before the model was asked", blamed=False)
        self._with(asked_model=True)
        try:
            async with asyncio.timeout(self._left(deadline) + SLACK_SECONDS):
                generated = await self._engine.generate(
                    admitted.adapter_name, turns, admitted.serving.evaluation.decoding, deadline=deadline
                )
        except EngineBusyError as error:
            # All releases share the engine: asking it again with another would make it busier.
            raise ReleaseFailureError("engine_busy", str(error), blamed=False, hopeless=True) from error
        except (DeadlineError, TimeoutError) as error:
            said = str(error) or "the engine did not answer in time"
            raise ReleaseFailureError("deadline", said, blamed=self._patient) from error
        except PromptTooLongError as error:
            # Characters are limited, tokens are what the asker makes of them; another prompt may leave more room.
            raise ReleaseFailureError("prompt_too_long", str(error), blamed=False) from error
        except AdapterMissingError as error:
            raise ReleaseFailureError("adapter_missing", str(error)) from error
        except EngineError as error:
            raise ReleaseFailureError("engine_error", str(error)) from error
        self._with(
            tokens_in=generated.tokens_in,
            tokens_out=generated.tokens_out,
            queue_ms=generated.queue_ms,
            first_token_ms=generated.first_token_ms,
        )
        return generated

    def _judged(self, generated: "Generated", judged: GuardrailReport) -> Draft:
        """The answer, if all guardrails let it through; an answer that no schema fits is the release's failure."""
        if any(one.guardrail == "schema" and one.verdict is not Verdict.PASS for one in judged.verdicts):
            cut = "" if generated.finished else ", cut at the token limit"
            spent = f"{generated.tokens_in} tokens in, {generated.tokens_out} out{cut}"
            raise ReleaseFailureError("unparsable", f"the answer does not fit the product's schema ({spent})")
        if not judged.passed:
            return self._blocked(self.draft.entity)
        if not generated.finished:
            cut_short = RecordedError(kind="cut_short", message="the answer was cut at the token limit")
            self._with(errors=(*self.draft.errors, cut_short))
        return self._with(status=ReplyStatus.ANSWERED, answer=generated.text, stored_answer=judged.text)

    def _blocked(self, entity: Entity | None) -> Draft:
        reply = self._loaded.safe_reply
        return self._with(status=ReplyStatus.BLOCKED, answer=reply, stored_answer=reply, entity=entity)

    def _with(self, **changes: object) -> Draft:
        for name, value in changes.items():
            setattr(self.draft, name, value)
        return self.draft

    def _left(self, deadline: Deadline) -> float:
        return deadline.remaining(self._clock())
