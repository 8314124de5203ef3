"""A question as the edge hands it in, and the reply that it gets back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ml_platform.contracts.provenance import ProvenanceRecord, Scalar
from ml_platform.serving.deadline import Deadline


class ReplyStatus(StrEnum):
    """A model's answer, the safe reply for what guardrails blocked, or the fallback reply for what nobody answered."""

    ANSWERED = "answered"
    BLOCKED = "blocked"
    FALLBACK = "fallback"


@dataclass(frozen=True, slots=True)
class Question:
    """One request; `metadata` says what it is about, `deadline` is on the clock of `time.monotonic`.

    `utterance` and `metadata` are as they came, so neither is ever logged or stored. `override` is the header of an
    operator, which counts only with `may_override`. `usual_seconds` are those that the product gives a question, for
    clients may ask for less; None: the deadline is the product's own.
    """

    response_id: str
    product: str
    utterance: str
    metadata: Mapping[str, Scalar]
    user_id: str | None
    deadline: Deadline
    received_at: datetime
    override: str | None = None
    may_override: bool = False
    usual_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What leaves, and the record of it; `answer` is the text as judged, the record's the text as it may be stored."""

    record: ProvenanceRecord
    answer: str
    status: ReplyStatus
