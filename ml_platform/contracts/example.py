"""One example: what the model is shown, what it must answer, and what then really happened."""

from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime

from ml_platform.contracts.base import GrowingContract
from ml_platform.contracts.source import Origin

FactValue = str | int | float | bool | None


class Example(GrowingContract):
    """A question with its facts and the expected answer; one line of a JSONL file.

    `entity` is what must never stand in both training and a golden set. `slices` are the
    dimensions of the report. `outcome` is what really happened, kept out of the prompt. `origin` is set for a question
    that was really asked, and says who taught the answer: such an example is only learnt, never measured by.
    """

    came_later: ClassVar[tuple[str, ...]] = ("origin",)

    example_id: str
    kind: Literal["answer", "attack", "benign"] = "answer"
    entity: str
    prediction_time: AwareDatetime | None = None
    utterance: str
    phrasing_id: str = ""
    facts: dict[str, FactValue] = {}
    answer: dict[str, Any] | str
    slices: dict[str, str] = {}
    outcome: dict[str, FactValue] = {}
    origin: Origin | None = None
