"""The prompt: an example as the turns of a chat, the same in training, evaluation and serving."""

import json
from collections.abc import Mapping
from typing import Any

from ml_platform.contracts.example import Example, FactValue
from ml_platform.contracts.product import PromptSpec

FACTS = "{facts}"
CONTROL, HARMLESS = "<|", "< |"
"""How the control tokens of chat templates begin, and how texts of users and sources may say it."""


def messages(prompt: PromptSpec, example: Example, with_answer: bool) -> list[dict[str, str]]:
    """The turns `system` and `user`, and `assistant` where the answer is wanted: `role` and `content` each.

    `{facts}` in the system text stands for one line a fact; every other brace stands for itself, and a
    system text without `{facts}` shows none. Texts of users and sources cannot end their own turn.
    """
    turns = [
        {"role": "system", "content": prompt.system.replace(FACTS, fact_lines(example.facts))},
        {"role": "user", "content": _harmless(example.utterance)},
    ]
    if with_answer:
        turns.append({"role": "assistant", "content": answer_text(example.answer)})
    return turns


def fact_lines(facts: Mapping[str, FactValue]) -> str:
    """One line a fact in the order given, `airport late=23`; a fact without a value has none."""
    lines = (f"{name.replace('_', ' ')}={_spoken(value)}" for name, value in facts.items() if value not in (None, ""))
    return _harmless("\n".join(lines))


def answer_text(answer: Mapping[str, Any] | str) -> str:
    """What the model must say: plain text as it is, fields as compact JSON in the order that they have."""
    if isinstance(answer, str):
        return answer
    return json.dumps(dict(answer), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _spoken(value: FactValue) -> str:
    """One line, however the value was written: true, 23, 0.5, or the words of a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return " ".join(str(value).split())


def _harmless(text: str) -> str:
    return text.replace(CONTROL, HARMLESS)
