"""How commands answer: tables for people, one JSON document for programs."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]

COLOURS = {
    "PASS": "green",
    "FAIL": "red",
    "INCONCLUSIVE": "yellow",
    "ERROR": "red",
    "canary": "cyan",
    "production": "green",
    "eligible": "cyan",
    "held": "yellow",
    "aborted": "red",
    "rolled_back": "red",
}
"""Words that carry a colour; the word itself always stands there too."""


def print_json(value: Any) -> None:
    """Prints one JSON document; dates and contracts as their canonical text."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain))


def console(*, stderr: bool = False) -> "Console":
    """Where people read; as wide as the terminal, and wide enough for tables where there is none."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=160)


def print_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table; None is shown as a dash."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console().print(table)


def print_pairs(pairs: Iterable[tuple[str, Any]]) -> None:
    """Prints names and values below each other."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, _cell(value))
    console().print(table)


def short(digest: str) -> str:
    """The first 12 digits, by which people call a release."""
    return digest[:12]


def percent(share: float) -> str:
    """A share in per cent with as many digits as it has: `5 %`, `0.5 %`."""
    return f"{share * 100:g} %"


def _cell(value: Any) -> str:
    from rich.markup import escape

    text = "–" if value is None else str(value)
    colour = COLOURS.get(text)
    return f"[{colour}]{escape(text)}[/{colour}]" if colour else escape(text)


def _plain(value: Any) -> Any:
    from pydantic import BaseModel

    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
