"""Groundedness: every number, time and code in a reply must stand in the facts or in the question.

Spelling is forgiven, arithmetic is not: `1,234` is 1234, `05:15` is `5:15 am`, `21st` and
`twenty-one` are 21, `5k` and `five thousand` are 5000, `2½` is 2.5, and `23 %` may stand as 23 or
0.23 in the facts; a rounded or a computed number is not grounded. Names in words (`Newark`,
`United`) are not checked, only codes (`EWR`, `UA1545`, `1Z999AA1`, `ord77b`).
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from ml_platform.contracts.example import FactValue

_UNITS = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty",
)
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_WORDS = {**{word: value for value, word in enumerate(_UNITS)}, **_TENS, **_SCALES}
_TIMES = {**_SCALES, "k": 1_000, "m": 1_000_000, "bn": 1_000_000_000}
_SCALE = r"(?i:hundred|thousand|million|billion|bn)\b"

# Shouted words and common abbreviations that no list of facts would hold.
_NO_CODES = frozenset(
    re.findall(
        r"\w+",
        "OK AM PM UTC GMT TV US USA UK EU ID FAQ URL AI IT IS IN ON AT TO OF OR AND BUT FOR THE NOT NO YES YOU ARE CAN "
        "ALL ANY NOW NEW YOUR MY WE BE DO SO IF AS BY UP AN WILL MAY MUST ONLY VERY THIS THAT WITH FROM HAVE ITS",
    )
)

_TIME = re.compile(
    r"(?<![\d:.])(\d{1,2}):(\d{2})(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})?(?:\s*([ap]\.?m\b))?(?![\d:])",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"(?<![\d:.,])(\d{1,2})\s*([ap]\.?m\b)", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)(\d{4})-(\d{2})-(\d{2})(?!\d)T?")
_CODE = re.compile(
    r"(?<![A-Za-z0-9])(?:(?=[A-Z0-9]*[A-Z])[A-Z0-9]{2,64}|(?=[A-Za-z]+\d|\d+[A-Za-z]+\d)[A-Za-z0-9]{3,64})(?![A-Za-z0-9])"
)
_PAIR = re.compile(r"(?<![A-Za-z0-9])((?=[A-Z0-9]*[A-Z])[A-Z0-9]{2})[ -]?(\d{1,4})(?![A-Za-z0-9]|[:.]\d)")
_MEASURE = re.compile(r"^\d+(?:F|C|K|M|MPH|KM|MI|KT|KTS|USD|EUR|GB|MB)$")
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]])[-\u2212\u2013])?[$€£]?(?P<digits>"
    r"(?<![A-Z\d])(?<!\d\.)(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?<![A-Z\d.])\.\d+)"
    rf"(?P<scale>(?:[\s-]?{_SCALE})+|[kKM]\b)?(?:\s?(?P<percent>%|percent\b|per cent\b))?"
)
_WORD = re.compile(
    rf"(?<![\w-])(?P<word>{'|'.join(sorted(_WORDS, key=len, reverse=True))})(?:[- ](?P<unit>{'|'.join(_UNITS[1:10])}))?"
    rf"(?P<scale>(?:[\s-]{_SCALE})+)?(?:\s(?P<percent>percent|per cent)\b)?(?![\w-])",
    re.IGNORECASE,
)
_FRACTION = re.compile("(\\d{0,9})([\u00bc-\u00be\u2150-\u215e])")
_RAISED = re.compile("(?<=[^\\W\\d_\u00b2\u00b3\u00b9\u2070-\u2089])[\u00b2\u00b3\u00b9\u2070-\u2089]+")
_IN_SCALE = re.compile(r"\b(thousand|million|billion)s?\b", re.IGNORECASE)
_ONE_BEFORE = re.compile(r"\b(?:no|this|that|which|each|every|any|some|the|another|the other)\s$", re.IGNORECASE)


@dataclass(frozen=True)
class Mentions:
    """What a text mentions: plain numbers, percentages, times in minutes since midnight, codes."""

    numbers: frozenset[Decimal]
    percentages: frozenset[Decimal]
    times: frozenset[int]
    codes: frozenset[str]


def is_grounded(reply: str, facts: Mapping[str, FactValue], utterance: str) -> bool:
    """Whether everything checkable in `reply` stands in the facts or the utterance; an empty reply does not."""
    return bool(reply.strip()) and not ungrounded(reply, facts, utterance)


def ungrounded(reply: str, facts: Mapping[str, FactValue], utterance: str) -> tuple[str, ...]:
    """What the reply mentions and neither the facts nor the utterance hold, in words for people, sorted."""
    said = mentions(reply)
    known = [_fact(name, value) for name, value in facts.items() if value is not None]
    stated = {_plain(str(value)).strip().upper() for value in facts.values() if value is not None}
    missing = _missing(said, known, stated)
    # A question only ever grounds more, and most replies need no more than the facts.
    return _missing(said, [*known, _known(utterance)], stated) if missing else ()


def _missing(said: Mentions, known: Sequence["_Known"], stated: set[str]) -> tuple[str, ...]:
    numbers = {number for one in known for number in one.numbers}
    numbers |= {-number for number in numbers if number < 0}  # "5 minutes early" for -5
    times = {time for one in known for time in one.times}
    pairs = {pair for one in known for pair in one.pairs}
    codes = {code for one in known for code in one.codes} | {carrier + digits for carrier, digits in pairs}
    parts = {part for pair in pairs if pair[0].isalpha() or len(pair[1]) > 1 for part in pair}  # C91 is a gate
    numbers |= {Decimal(part) for part in parts if part.isdigit()}
    missing = [f"{number:f}" for number in said.numbers - numbers]
    missing += [f"{p:f} %" for p in said.percentages if p not in numbers and p / 100 not in numbers]
    missing += [f"{time // 60:02d}:{time % 60:02d}" for time in said.times - times]
    missing += [code for code in said.codes if not _code_known(code, codes | parts, stated)]
    return tuple(sorted(missing))


def mentions(text: str) -> Mentions:
    """The numbers, percentages, times and codes in a text. Dates also give their year, month and day."""
    numbers: set[Decimal] = set()
    rest = text = _plain(text)
    if "-" in text:
        numbers = {Decimal(int(part)) for match in _DATE.finditer(text) for part in match.groups()}
        rest = _DATE.sub(" ", text)
    times: set[int] = set()
    # Every answer that is served comes by here: patterns that cannot match are not tried.
    for pattern in (_TIME, _CLOCK) if ":" in rest else (_CLOCK,):
        if pattern.search(rest) is None:
            continue
        times |= {time for match in pattern.finditer(rest) if (time := _minutes(match)) is not None}
        rest = pattern.sub(lambda match: match.group() if _minutes(match) is None else " ", rest)
    codes, rest = _take_codes(rest)
    percentages: set[Decimal] = set()
    for pattern in (_NUMBER, _WORD):
        for match in pattern.finditer(rest):
            value = _value(match, rest)
            if value is not None:
                (percentages if match["percent"] else numbers).add(value)
        rest = pattern.sub(" ", rest)  # the million of "5 million" is no number of its own
    return Mentions(frozenset(numbers), frozenset(percentages), frozenset(times), frozenset(codes))


@dataclass(frozen=True)
class _Known:
    """What a fact or a question grounds: its numbers, percentages among them, times, words that may be codes, pairs."""

    numbers: frozenset[Decimal]
    times: frozenset[int]
    codes: frozenset[str]
    pairs: frozenset[tuple[str, str]]


def _known(text: str) -> _Known:
    said, text = mentions(text), _plain(text)
    codes = frozenset(code.upper() for code in re.findall(r"[A-Za-z0-9]+", text))
    return _Known(said.numbers | said.percentages, said.times, codes, frozenset(_PAIR.findall(text.upper())))


@lru_cache(maxsize=8192, typed=True)
def _fact(name: str, value: FactValue) -> _Known:
    """Kept, because every answer that is served is checked and facts repeat; by type, because 1 is not True."""
    return _known(_spoken(name, value))


def _plain(text: str) -> str:
    """The text with one spelling for each digit; `½` is 0.5, and what is raised behind letters (`km²`) is no number."""
    if text.isascii():
        return text
    halves = _FRACTION.sub(lambda match: f" {int(match[1] or 0) + unicodedata.numeric(match[2])}", text)
    return unicodedata.normalize("NFKC", _RAISED.sub("", halves))


def _take_codes(text: str) -> tuple[set[str], str]:
    codes: set[str] = set()

    def pair(match: re.Match[str]) -> str:
        if match[1] in _NO_CODES:
            return match.group()
        codes.add(match[1] + match[2])
        return " "

    def single(match: re.Match[str]) -> str:
        code = match.group()
        if code in _NO_CODES or _MEASURE.match(code) or (code.isalpha() and len(code) > 4):
            return code
        codes.add(code.upper())
        return " "

    rest = _PAIR.sub(pair, text)
    return codes, _CODE.sub(single, rest)


def _code_known(code: str, codes: set[str], stated: set[str]) -> bool:
    if code in codes:
        return True
    pair = _PAIR.fullmatch(code)
    return pair is not None and {pair[1], pair[2].lstrip("0") or "0"} <= stated


def _minutes(match: re.Match[str]) -> int | None:
    parts = match.groups()
    hour, minute = int(parts[0]), int(parts[1]) if len(parts) == 3 else 0
    half = (parts[-1] or "").lower().replace(".", "")
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "pm" else 0)
    return hour * 60 + minute if hour <= 24 and minute < 60 else None


def _value(match: re.Match[str], text: str) -> Decimal | None:
    groups = match.groupdict()
    scale = math.prod(_TIMES[word.lower()] for word in re.findall(r"[A-Za-z]+", groups["scale"] or ""))
    if "word" in groups:
        word = groups["word"].lower()
        before, after = text[max(0, match.start() - 12) : match.start()], text[match.end() : match.end() + 8]
        if word == "one" and scale == 1 and (_ONE_BEFORE.search(before) or re.match(r"\s*of\b", after, re.IGNORECASE)):
            return None
        unit = _WORDS[groups["unit"].lower()] if groups["unit"] and word in _TENS else 0
        return Decimal((_WORDS[word] + unit) * scale)
    try:
        number = Decimal(groups["digits"].replace(",", "")) * scale
    except InvalidOperation:
        return None
    return (-number if groups["sign"] else number).normalize()


def _spoken(name: str, value: FactValue) -> str:
    """A fact as a text: its name counts too, so that `late_rate_30d` grounds "in the last 30 days".

    A number whose name says millions is that many millions too.
    """
    words = re.sub(r"(?<=\D)(?=\d)|_", " ", name)
    if isinstance(value, bool):
        return words
    said = f"{Decimal(repr(value)):f}" if isinstance(value, float) else str(value)
    scale = None if isinstance(value, str) else _IN_SCALE.search(words)
    return f"{words} {said}" if scale is None else f"{words} {said}, {said} {scale[1]}"
