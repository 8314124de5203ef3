"""What guardrails are: they read a question or an answer and report. Rules and a judge do, and a chain of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ml_platform.contracts.example import FactValue
from ml_platform.contracts.guardrails import GuardrailReport


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer answers: the question as the model saw it, which is redacted, and the facts of the prompt."""

    utterance: str
    facts: Mapping[str, FactValue]


class Guardrails(Protocol):
    """Checks of one release. They never raise for what they read: what cannot be checked is not passed."""

    async def check_input(self, utterance: str, *, timeout_seconds: float) -> GuardrailReport:
        """The report on a question; its `text` is the question as it may be stored and shown to the model."""
        ...

    async def check_output(self, answer: str, asked: Asked, *, timeout_seconds: float) -> GuardrailReport:
        """The report on an answer; its `text` is the answer as it may be stored."""
        ...


@dataclass(frozen=True, slots=True)
class GuardrailChain:
    """One implementation after the other, until one does not pass: a judge is only shown what the rules let through.

    The later one reads the text as the earlier one left it, without personal data.
    """

    first: Guardrails
    then: Guardrails

    async def check_input(self, utterance: str, *, timeout_seconds: float) -> GuardrailReport:
        """See Guardrails."""
        report = await self.first.check_input(utterance, timeout_seconds=timeout_seconds)
        if not report.passed:
            return report
        return report.and_also(await self.then.check_input(report.text, timeout_seconds=timeout_seconds))

    async def check_output(self, answer: str, asked: Asked, *, timeout_seconds: float) -> GuardrailReport:
        """See Guardrails."""
        report = await self.first.check_output(answer, asked, timeout_seconds=timeout_seconds)
        if not report.passed:
            return report
        return report.and_also(await self.then.check_output(report.text, asked, timeout_seconds=timeout_seconds))
