"""One generation on its way through the engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_platform.families.lora.adapter_weights import AdapterWeights


class Outcome(StrEnum):
    """How a generation ended; `stop` and `length` are OpenAI's words for an end of turn and a cut."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(eq=False)
class Job:
    """A prompt, at most `limit` tokens of answer, and what came of it so far; moments are those of time.monotonic().

    `tell` is called in the event loop: after each token for a stream, and once when there is an outcome. The thread
    of the model alone writes tokens, moments and outcome; `cancelled` is written by whoever lost interest.
    """

    prompt: list[int]
    limit: int
    adapter: "AdapterWeights | None"
    tell: Callable[[], None]
    streams: bool
    submitted: float
    started: float | None = None
    first_token: float | None = None
    tokens: list[int] = field(default_factory=list)
    outcome: Outcome | None = None
    cancelled: bool = False

    @property
    def queue_ms(self) -> float | None:
        """How long it waited until its prompt was read."""
        return None if self.started is None else (self.started - self.submitted) * 1000.0

    @property
    def first_token_ms(self) -> float | None:
        """How long it took from the request to the first token."""
        return None if self.first_token is None else (self.first_token - self.submitted) * 1000.0
