"""Personal data in free text: found by shape, and taken out before anything is stored.

It knows e-mail addresses, payment cards (13 to 19 digits that pass Luhn's check), and telephone numbers: nine digits
or more that begin with `+`, a bracket or 0, or ten in North America's groups. Names, addresses and other numbers
(`612 345 678`) have no shape of their own and are not found: whoever must keep those out needs the judge, or must
not keep the texts.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["email", "phone", "card"]
ALL_KINDS: tuple[Kind, ...] = ("email", "card", "phone")

# Every repetition is bounded: the time stays linear in the text, whatever somebody sends.
_EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[^\W_](?:[\w-]{0,62})\.){1,6}[^\W\d_]{2,24}(?![^\W\d_])")
_CARDS = (
    re.compile(r"(?<!\w)[2-6](?:[ -]?\d){12,18}(?!\w)"),
    # In the groups that are printed on cards, more may stand between them, and a date or a code behind.
    re.compile(r"(?<!\w)(?:[2-6]\d{3}(?:[ .-]{0,2}\d{4}){3}|3\d{3}[ .-]{0,2}\d{6}[ .-]{0,2}\d{5})(?!\w)"),
)
_PREFIXED = re.compile(r"(?<![\w.])(?:\+\s?\d|\(\d|0(?!\.\d))(?:[ ().\-/]{0,3}\d){8,14}(?!\w)")
_NORTH_AMERICAN = re.compile(r"(?<![\w.])(?:1[ .-]?)?[2-9]\d{2}[ .-]?[2-9]\d{2}[ .-]?\d{4}(?!\w)")
_MANY_DIGITS = re.compile(r"\d(?:[ ().\-/]{0,3}\d){8}")
_DATE_FIRST = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)|\d{1,2}[/.-]\d{1,2}[/.-]\d{4}(?!\d)")
_INVISIBLE = [0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF, *range(0x202A, 0x202F)]
_DASHES = [*range(0x2010, 0x2016), 0x2212]
_AS_SEEN = dict.fromkeys(_INVISIBLE, "") | dict.fromkeys(_DASHES, "-")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Found:
    """One piece of personal data and where it stands in the text."""

    kind: Kind
    start: int
    end: int


def sound(text: str) -> str:
    """The text with a mark in place of halves of characters, which no file and no database takes."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def visible(text: str) -> str:
    """The text as a reader sees it: one spelling for each character, one dash, and no invisible ones."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_AS_SEEN)


def find_personal_data(text: str, kinds: Iterable[str] = ALL_KINDS) -> tuple[Found, ...]:
    """What of the kinds stands in the text, in order; where two overlap, the one that is more surely so."""
    found: list[Found] = []
    digits = _MANY_DIGITS.search(text) is not None
    wanted = set(kinds)
    for kind in ALL_KINDS:
        if kind in wanted and ("@" in text if kind == "email" else digits):
            for start, end in _SEARCHES[kind](text):
                if all(end <= other.start or start >= other.end for other in found):
                    found.append(Found(kind, start, end))
    return tuple(sorted(found, key=lambda one: one.start))


def redact(text: str, kinds: Iterable[str] = ALL_KINDS) -> tuple[str, dict[str, int]]:
    """The text with `[email]`, `[phone]`, `[card]` in place of what was found, and how many of each.

    Text in which nothing is found comes back as it was; other text comes back as `visible`.
    """
    seen = visible(text)
    found = find_personal_data(seen, kinds)
    if not found:
        return text, {}
    parts, at = [], 0
    for one in found:
        parts += [seen[at : one.start], f"[{one.kind}]"]
        at = one.end
    return "".join([*parts, seen[at:]]), dict(Counter(one.kind for one in found))


def _emails(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _EMAIL.finditer(text)]


def _cards(text: str) -> list[tuple[int, int]]:
    return [match.span() for shape in _CARDS for match in shape.finditer(text) if passes_luhn(match.group())]


def _phones(text: str) -> list[tuple[int, int]]:
    """Numbers that begin as telephone numbers do, or are ten digits in North America's groups."""
    prefixed = [match.span() for match in _PREFIXED.finditer(text) if not _DATE_FIRST.match(match.group())]
    return prefixed + [match.span() for match in _NORTH_AMERICAN.finditer(text)]


_SEARCHES = {"email": _emails, "card": _cards, "phone": _phones}


def passes_luhn(number: str) -> bool:
    """Whether the digits pass the check of ISO/IEC 7812-1, which nine numbers of ten that are no card fail."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1
