"""Prompt injection, by rules: the first line, cheap enough to stand before every question.

It finds what says openly, or in a plain disguise, that it wants other instructions, hidden text or another
persona. It cannot find an attack that is told as a story or in a language that it does not know; the second line is the
model, which is trained to decline and whose refusals the promotion policy measures, and behind both there is nothing to
steal: the prompt holds no secret and the answer must be grounded JSON.
"""

import re
from collections.abc import Iterable

from ml_platform.serving.guardrails.disguises import folded, readings, rot13
from ml_platform.serving.guardrails.injection_rules import FOREIGN_RULES, RULES, Rule

_WORD = re.compile(r"[^\W_]+")


def _by_word(rules: Iterable[Rule]) -> dict[str, tuple[Rule, ...]]:
    found: dict[str, tuple[Rule, ...]] = {}
    for rule in rules:
        for word in rule.words:
            found[word] = (*found.get(word, ()), rule)
    return found


_ALL = (*RULES, *FOREIGN_RULES)
_RULES = _by_word(_ALL)
_WORDS = frozenset(_RULES)
_SIGNS = frozenset({"ignore", "ignoring", "instructions", "previous", "reveal", "prompt", "disregard", "restrictions"})
_REVERSED = frozenset(word[::-1] for word in _SIGNS)
_ROTATED = frozenset(rot13(word) for word in _SIGNS)


def find_injection(text: str) -> str | None:
    """What an attack in the text does, in a few words for a record, or None when no rule finds one."""
    low = folded(text)
    tokens = _WORD.findall(low)
    words = frozenset(tokens)
    said = _says(low, words)
    if said is None and not words.isdisjoint(_REVERSED):
        said = _hidden(low[::-1], "reversed")
    if said is None and not words.isdisjoint(_ROTATED):
        said = _hidden(rot13(low), "in rot13")
    if said is None:
        hidden = (_hidden(reading, "in a disguise") for reading in readings(text, low, tokens))
        said = next((one for one in hidden if one is not None), None)
    return said


def _hidden(reading: str, how: str) -> str | None:
    said = _says(reading, frozenset(_WORD.findall(reading)))
    return None if said is None else f"{said}, {how}"


def _says(low: str, words: frozenset[str]) -> str | None:
    hit = words & _WORDS
    if not hit:
        return None
    candidates = {id(rule): rule for word in hit for rule in _RULES[word]}
    # In the order of the list, so that the reason does not depend on the order of a set.
    return next((rule.says for rule in _ALL if id(rule) in candidates and rule.pattern.search(low)), None)
