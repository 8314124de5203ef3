"""What guardrails said of a question or an answer: verdicts that are recorded, and the text that may be stored."""

from collections import Counter
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from ml_platform.contracts.base import Contract, Name
from ml_platform.contracts.evidence import Verdict


class Stage(StrEnum):
    """Before the model or after it."""

    INPUT = "input"
    OUTPUT = "output"


class GuardrailVerdict(Contract):
    """What one guardrail said; only PASS lets a text through.

    `reason` is for people and never holds what it found: it is stored where the text itself may not be.
    """

    guardrail: Name
    stage: Stage
    verdict: Verdict
    reason: str = ""
    latency_ms: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0


class GuardrailReport(Contract):
    """All verdicts on one text.

    `text` is the text without personal data: the only one that may be stored, logged or shown to a model.
    `redacted` counts what was taken out, by kind.
    """

    stage: Stage
    verdicts: tuple[GuardrailVerdict, ...]
    text: str
    redacted: dict[str, Annotated[int, Field(ge=1)]] = {}

    @model_validator(mode="after")
    def _one_stage(self) -> Self:
        if any(one.stage is not self.stage for one in self.verdicts):
            raise ValueError(f"a report on the {self.stage.value} holds verdicts of the other stage")
        return self

    @property
    def passed(self) -> bool:
        """Whether every guardrail passed it; no verdict at all is no pass."""
        return bool(self.verdicts) and not self.blocked_by

    @property
    def blocked_by(self) -> tuple[GuardrailVerdict, ...]:
        """The verdicts that stop this text."""
        return tuple(one for one in self.verdicts if one.verdict is not Verdict.PASS)

    def and_also(self, later: "GuardrailReport") -> "GuardrailReport":
        """One report of this one and of what somebody said of the text that this one left."""
        return GuardrailReport(
            stage=self.stage,
            verdicts=(*self.verdicts, *later.verdicts),
            text=later.text,
            redacted=dict(Counter(self.redacted) + Counter(later.redacted)),
        )
