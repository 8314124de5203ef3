"""Labels that people give: what the right answer to a recorded question would have been."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from ml_platform.contracts.base import Name
from ml_platform.contracts.canonical import digest
from ml_platform.contracts.provenance import LoggedContract, ResponseId

Labeller = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""Who labelled, by a handle: no '@', so that it is no address."""


class GivenLabel(LoggedContract):
    """What one labeller says the right answer to a recorded question is; the answer it got need not have been wrong.

    `answer` is written as the product answers, JSON or text. None says that nobody could answer it, for `reason`.
    `labelled_at` is by our clock, `known_at` by the product's, which replay plays faster than ours.
    """

    format: Literal[1] = 1
    product: Name
    response_id: ResponseId
    labeller: Labeller
    answer: Annotated[str, Field(min_length=1, max_length=8_000)] | None
    reason: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    labelled_at: AwareDatetime
    known_at: AwareDatetime

    @model_validator(mode="after")
    def _answer_or_why_not(self) -> Self:
        if (self.answer is None) == (self.reason is None):
            raise ValueError("a label has either an answer or the reason why there is none")
        return self

    @property
    def said_sha256(self) -> str:
        """The digest of what was said, whenever it is said."""
        return digest(self.model_dump(mode="json", exclude={"labelled_at", "known_at"}))
