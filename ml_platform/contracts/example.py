"""One example: what the model is shown, what it must answer, and what then really happened."""

from typing import Any, Literal

from pydantic import AwareDatetime

from ml_platform.contracts.base import Contract

FactValue = str | int | float | bool | None


class Example(Contract):
    """A question with its facts and the expected answer; one line of a JSONL file.

    `entity` is what must never stand in both training and a golden set. `slices` are the
    dimensions of the report. `outcome` is what really happened, kept out of the prompt.
    """

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
