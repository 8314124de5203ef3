"""What produced an answer, and what people and the world said of it later."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, ValidationError, model_validator
from pydantic_core import PydanticSerializationError

from ml_platform.contracts.base import Column, Contract, Finite, Name, Sha256, Share
from ml_platform.contracts.canonical import canonical_bytes, digest
from ml_platform.contracts.explain import explain
from ml_platform.contracts.guardrails import GuardrailVerdict
from ml_platform.contracts.release import VersionedPart
from ml_platform.contracts.routing import Cohort, RouteReason
from ml_platform.errors import ContractError, IntegrityError

ResponseId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{7,63}$")]
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=128)]
Scalar = bool | int | Finite | str
Entity = dict[Column, int | str]
Milliseconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class LoggedContract(Contract):
    """A value that is logged before an answer leaves, so the writing of it must be quick."""

    def log_bytes(self) -> bytes:
        """The value as JSON, three times as fast as its canonical bytes; what is stored, and named by its digest.

        Raises ContractError for text with half a surrogate pair, which is no UTF-8.
        """
        try:
            return self.__pydantic_serializer__.to_json(self)
        except PydanticSerializationError:
            raise ContractError(
                f"a {type(self).__name__} holds text with half a surrogate pair, which no file can hold. Replace it "
                "where the text comes in."
            ) from None

    @classmethod
    def from_log(cls, data: bytes | str) -> Self:
        """The value that `log_bytes` wrote. Raises IntegrityError for anything else."""
        try:
            return cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            raise IntegrityError(explain(cls, error, None, f"a logged {cls.__name__}")) from None


class UnrecordedPolicy(StrEnum):
    """What a product wants when an answer cannot be recorded, e.g. because the disk is full."""

    REFUSE = "refuse"
    ANSWER_UNRECORDED = "answer_unrecorded"


class FeaturesRead(Contract):
    """What the online store said: each value and when it was true, by the name of the feature.

    `keys` are the entity keys that were looked up, so that `skew` can ask the same again; `features_sha256` are the
    features that were online, as known at `published_at`. A value that was missing is None, and NaN is no value:
    whoever reads a store turns it into None.
    """

    service: str
    definitions_sha256: Sha256
    features_sha256: Sha256 | None = None
    published_at: AwareDatetime | None = None
    read_at: AwareDatetime
    keys: Entity
    values: dict[Name, Scalar | None]
    event_at: dict[Name, AwareDatetime | None]

    @model_validator(mode="after")
    def _a_time_for_each_value(self) -> Self:
        if self.values.keys() != self.event_at.keys():
            odd = sorted(self.values.keys() ^ self.event_at.keys())
            raise ValueError(f"values and event_at name the same features, but these stand in one only: {odd}")
        return self


class RecordedError(Contract):
    """What went wrong on the way to the answer; `kind` is what figures are counted by."""

    kind: Name
    message: str


class Timings(Contract):
    """Where the time went, in milliseconds; None for what was never reached."""

    queue_ms: Milliseconds | None = None
    features_ms: Milliseconds | None = None
    first_token_ms: Milliseconds | None = None
    total_ms: Milliseconds


class ProvenanceRecord(LoggedContract):
    """Everything that produced one answer; durable before the answer is sent.

    `cohort`, `route_reason`, `exposure` and `user_draw` are those of the route; `release_id` is None where no release
    answered. `user_sha256` is salted, and `utterance` is as it was after
    redaction: neither tells who asked. `entity` is what the question was about in the words of outcomes, e.g.
    {"flight_id": ...}; an outcome that names the same entity is joined to it. `facts` are those of the prompt: with
    prompt and utterance they are all that the model was shown. A shadow's record names the response
    that it ran beside.
    """

    format: Literal[1] = 1
    response_id: ResponseId
    answered_at: AwareDatetime
    product: Name
    release_id: Sha256 | None
    epoch: Count
    cohort: Cohort
    route_reason: RouteReason
    exposure: Share
    user_draw: Share | None = None
    shadow_of: ResponseId | None = None
    user_sha256: Sha256 | None
    entity: Entity = {}
    utterance: str
    facts: dict[Column, Scalar | None] = {}
    features: FeaturesRead | None
    prompt: VersionedPart | None
    guardrails: VersionedPart | None
    verdicts: tuple[GuardrailVerdict, ...] = ()
    adapter: str | None
    answer: str
    input_tokens: Count
    output_tokens: Count
    cost_usd: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    timings: Timings
    code_commit: str | None
    errors: tuple[RecordedError, ...] = ()

    @model_validator(mode="after")
    def _cohort_fits(self) -> Self:
        if (self.cohort is Cohort.SHADOW) != (self.shadow_of is not None):
            raise ValueError("shadow_of belongs to cohort shadow, which needs it")
        if (self.release_id is None) != (self.route_reason is RouteReason.NOTHING_SERVES):
            raise ValueError(f"release_id {self.release_id} contradicts route_reason '{self.route_reason}'")
        return self

    @property
    def entity_key(self) -> str | None:
        """The entity as text to join by, None for none."""
        return entity_key(self.entity)


class _Said(LoggedContract):
    """What was said about an answer, once: the idempotency key names it, whatever how often it is sent.

    It is joined by the response or by the entity. `received_at` is when we heard of it first, and no part of what was
    said: sent again later, it is the same.
    """

    idempotency_key: IdempotencyKey
    product: Name
    response_id: ResponseId | None = None
    entity: Entity = {}
    received_at: AwareDatetime

    @model_validator(mode="after")
    def _about_something(self) -> Self:
        if self.response_id is None and not self.entity:
            raise ValueError("name what this is about: a response_id or an entity")
        return self

    @property
    def entity_key(self) -> str | None:
        """The entity as text to join by, None for none."""
        return entity_key(self.entity)

    @property
    def said_sha256(self) -> str:
        """The digest of what was said, which is the same each time it is sent."""
        return digest(self.model_dump(mode="json", exclude={"received_at"}))


class FeedbackKind(StrEnum):
    """What a person said of an answer, or did after it."""

    THUMBS_UP = "thumbs_up"
    THUMBS_DOWN = "thumbs_down"
    CORRECTION = "correction"
    REPHRASED = "rephrased"
    COPIED = "copied"
    ABANDONED = "abandoned"

    @property
    def explicit(self) -> bool:
        """Whether it was said, not only done."""
        return self in (FeedbackKind.THUMBS_UP, FeedbackKind.THUMBS_DOWN, FeedbackKind.CORRECTION)


class Feedback(_Said):
    """What a person thought of an answer; `text` is redacted, and a correction needs one."""

    kind: FeedbackKind
    text: str | None = None
    given_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _correction_says_what(self) -> Self:
        if self.kind is FeedbackKind.CORRECTION and not self.text:
            raise ValueError("a correction needs its text")
        return self


class Outcome(_Said):
    """What happened in the end, e.g. {"arrival_delay_min": 42}; it may come days late, and before its response."""

    occurred_at: AwareDatetime
    values: Annotated[dict[Name, Scalar | None], Field(min_length=1)]


def entity_key(entity: Entity) -> str | None:
    """An entity as text: equal entities have equal texts, whatever the order of their keys; None for none."""
    return canonical_bytes(entity).decode() if entity else None
