"""Post-mortems that the controller wrote, listed and read back for people; whatever stands in them is text."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

SHOWN = 8
MOST_BYTES = 256 << 10
_NAME = re.compile(r"[0-9]{6,12}-[a-z_]{1,40}")
_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")

Words = tuple[tuple[str, str], ...]
"""A line in parts: each plain, `code` or `bold`, with its text."""


@dataclass(frozen=True)
class PostMortem:
    """One incident: its file's name without ending, and its title."""

    name: str
    title: str


@dataclass(frozen=True)
class Block:
    """A part of a page: a `heading`, a `text`, a `list` of lines, or a `table` of rows, whose first is its head."""

    kind: str
    lines: tuple[Words, ...] = ()
    rows: tuple[tuple[Words, ...], ...] = ()


def newest_incidents(folder: Path, product: str) -> tuple[PostMortem, ...]:
    """The newest post-mortems of a product, the last one first; those of a controller elsewhere lie elsewhere."""
    below = folder / product
    names = sorted((path.stem for path in below.glob("*.md") if _NAME.fullmatch(path.stem)), reverse=True)
    return tuple(PostMortem(name, _title(below / f"{name}.md", product)) for name in names[:SHOWN])


def read_incident(folder: Path, product: str, name: str) -> tuple[Block, ...] | None:
    """A post-mortem as blocks, None where there is none of that name."""
    path = folder / product / f"{name}.md"
    if not _NAME.fullmatch(name) or not path.is_file():
        return None
    return tuple(_blocks(_text(path).splitlines()))


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MOST_BYTES).decode("utf-8", "replace")


def _title(path: Path, product: str) -> str:
    first = _text(path).partition("\n")[0]
    return first.removeprefix("# ").removeprefix(f"{product}: ") or path.stem


def _blocks(lines: Iterable[str]) -> Iterator[Block]:
    """The little of Markdown that post-mortems are written in; all else is text."""
    for kind, run in groupby(lines, key=_kind):
        same = [line.strip() for line in run]
        if kind == "heading":
            yield from (Block("heading", (_words(line.lstrip("# ")),)) for line in same)
        elif kind == "table":
            rows = [line.strip("|").split("|") for line in same if set(line) - set("|-: ")]
            yield Block("table", rows=tuple(tuple(_words(cell.strip()) for cell in row) for row in rows))
        elif kind == "list":
            yield Block("list", tuple(_words(line.removeprefix("- ")) for line in same))
        elif kind == "text":
            yield Block("text", tuple(_words(line) for line in same))


def _kind(line: str) -> str:
    if not line.strip():
        return "nothing"
    starts = {"#": "heading", "|": "table", "-": "list"}
    return starts.get(line[0], "text")


def _words(line: str) -> Words:
    found: list[tuple[str, str]] = []
    place = 0
    for match in _INLINE.finditer(line):
        found.append(("plain", line[place : match.start()]))
        found.append(("code", match[1]) if match[1] else ("bold", match[2]))
        place = match.end()
    return (*(part for part in found if part[1]), ("plain", line[place:]))
