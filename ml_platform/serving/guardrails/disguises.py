"""Disguises of a text: the readings under which an attack may hide, each found by a cheap sign before any work.

Look-alike letters, invisible characters, letters set apart, leetspeak, reversed text, rot13, base64, base32,
hexadecimal, binary, and escapes. One layer is taken off, of every piece. Each reading is a text to be judged like
any other; none is ever run or stored.
"""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from ml_platform.serving.guardrails.personal_data import visible

_LOOK_ALIKE = str.maketrans("аеорсухіјѕԁһӏԛѡοαενρτυικ", "aeopcyxijsdhlqwoaevptuik")
_LEET = str.maketrans("0134578@$!", "oieastbasi")
_LEET_WORD = re.compile(r"(?<![\w])(?=[a-z]*\d)(?:\d+[a-z]|[a-z]+\d+[a-z])[a-z0-9]*(?!\w)")
_APART = re.compile(r"(?<![^\W_])([^\W\d_])[ .\-_*](?=[^\W\d_](?![^\W_]))")
_BLOB = re.compile(r"(?<![\w+/=-])[A-Za-z0-9+/_-]{20,8000}={0,6}")
_BINARY = re.compile(r"(?<!\d)(?:[01]{8}\s?){4,1000}")
_HEX = re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}[\s:]?){10,4000}(?![0-9A-Fa-f])")
_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")


def folded(text: str) -> str:
    """The text in lower case without accents, look-alike letters and invisible characters; ASCII as far as it goes."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", visible(text).casefold().translate(_LOOK_ALIKE))
    return "".join(character for character in plain if not unicodedata.combining(character))


def rot13(text: str) -> str:
    """The text with each letter thirteen further on; its own inverse."""
    return codecs.encode(text, "rot13")


def readings(text: str, low: str, tokens: Sequence[str]) -> Iterator[str]:
    """Further readings of a text, folded; `low` is the text itself, folded, and `tokens` are its words.

    Reversed text and rot13 are the caller's to see: their signs are words.
    """
    return map(folded, _decoded(text, low, tokens))


def _decoded(text: str, low: str, tokens: Sequence[str]) -> Iterator[str]:
    sizes = list(map(len, tokens))
    odd = [token for token in tokens if not token.isalpha()]
    if len(odd) > 2 and len(_LEET_WORD.findall(low)) > 2:
        yield low.translate(_LEET)
        yield low.translate(_LEET).replace("i", "l")
    if sizes.count(1) > 5:
        yield _APART.sub(r"\1", low)
    if "\\" in text or "%" in text or "&#" in text:
        unescaped = html.unescape(unquote(_UNICODE_ESCAPE.sub(_escaped, text)))
        if unescaped != text:
            yield unescaped
    yield from _unpacked(text, sizes, odd)


def _unpacked(text: str, sizes: Sequence[int], odd: Sequence[str]) -> Iterator[str]:
    """What digits and long runs of letters stand for, where there are any."""
    longest = max(sizes, default=0)
    if any(len(token) >= 8 for token in odd):
        for match in _BINARY.finditer(text):
            yield "".join(chr(int(octet, 2)) for octet in re.findall(r"[01]{8}", match.group()))
    if longest >= 20 or sizes.count(2) > 9:
        for match in _HEX.finditer(text):
            yield _text(bytes.fromhex(re.sub(r"[\s:]", "", match.group())))
    if longest >= 16:
        for match in _BLOB.finditer(text):
            yield from _blob(match.group())


def _escaped(match: re.Match[str]) -> str:
    return chr(int(match[1] or match[2], 16))


def _blob(blob: str) -> Iterator[str]:
    """What a long run of letters decodes to as base64 and as base32, where that is text."""
    bare = blob.rstrip("=")
    standard = bare.replace("-", "+").replace("_", "/")
    for decode, body, unit in ((base64.b64decode, standard, 4), (base64.b32decode, bare, 8)):
        try:
            yield _text(decode(body + "=" * (-len(body) % unit)))
        except (binascii.Error, ValueError):
            continue


def _text(data: bytes) -> str:
    """Bytes as text; what is no text becomes signs that no rule looks for."""
    return data.decode("utf-8", "replace")
