"""What a family shows to those who use its models; how it prepares and trains is its own affair until there are two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ml_platform.contracts.progress import Reporter, silent
from ml_platform.contracts.report import Decoding

Message = dict[str, str]
"""One turn: `role` (system, user or assistant) and `content`."""

Conversation = Sequence[Message]
"""The turns that the model is shown, the last one being the user's."""


@dataclass(frozen=True)
class Generation:
    """One answer: its text without the end-of-turn token, and the tokens that went in and came out.

    `tokens_out` counts the end-of-turn token; `finished` is False when the answer was cut at
    the token limit.
    """

    text: str
    tokens_in: int
    tokens_out: int
    finished: bool = True


class AnswersQuestions(Protocol):
    """A model that answers conversations; evaluation and the embedded engine see no more of a family."""

    def generate(
        self, conversations: Sequence[Conversation], decoding: Decoding, report: Reporter = silent
    ) -> list[Generation]:
        """One answer a conversation, in the order that they were given."""
        ...

    def time_requests(self, conversations: Sequence[Conversation], decoding: Decoding) -> list[float]:
        """The latency of each conversation answered alone, in milliseconds."""
        ...
