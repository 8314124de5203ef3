"""Templates: `{column}` in a text, filled from a row; columns may have any name that YAML can write."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ml_platform.errors import ContractError
from ml_platform.snapshots.spelling import spoken

__all__ = ["Template", "nearest_hint", "spoken"]


@dataclass(frozen=True)
class _Field:
    column: str
    form: str


@dataclass(frozen=True)
class Template:
    """A text with fields. What a row holds is never read as a template again."""

    parts: tuple[str | _Field, ...]

    @classmethod
    def parse(cls, text: str, columns: Collection[str], where: str) -> "Template":
        """The template in `text`, whose fields must be among `columns`; `where` is what errors call it.

        `{Column Name}` is a field, `{price:.2f}` and `{at:%H:%M}` ones with a Python format, `{{` and `}}` are braces.
        Raises ContractError for an unknown column, with the nearest known one, and for an open brace.
        """
        parts: list[str | _Field] = []
        literal, position = "", 0
        while position < len(text):
            two = text[position : position + 2]
            if two in ("{{", "}}"):
                literal, position = literal + two[0], position + 2
            elif two[0] != "{":
                literal, position = literal + two[0], position + 1
            else:
                end = text.find("}", position)
                if end < 0:
                    raise ContractError(f"{where}: '{text}' opens a brace that nothing closes. Write {{{{ for a brace.")
                parts += [literal, _field(text[position + 1 : end], columns, where)]
                literal, position = "", end + 1
        return cls(tuple(part for part in [*parts, literal] if part != ""))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads, in order."""
        return tuple(part.column for part in self.parts if isinstance(part, _Field))

    def is_told_by(self, question: "Template", columns: Collection[str]) -> bool:
        """Whether a question shows each of its fields: in the same format, or whole among `columns`."""
        fields = [part for part in self.parts if isinstance(part, _Field)]
        told = {*question.parts, *(_Field(column, "") for column in columns)}
        return bool(fields) and told.issuperset(fields)

    def text(self, row: Mapping[str, Any]) -> str:
        """The text for a row; an empty cell gives nothing.

        Raises ContractError when a format does not fit the value.
        """
        return "".join(part if isinstance(part, str) else _filled(part, row[part.column]) for part in self.parts)

    def value(self, row: Mapping[str, Any]) -> Any:
        """The cell itself, with its type, when the template is a single field; otherwise the text."""
        if len(self.parts) == 1 and isinstance(self.parts[0], _Field) and not self.parts[0].form:
            cell = row[self.parts[0].column]
            return cell if isinstance(cell, bool | int | float) else spoken(cell)
        return self.text(row)


def nearest_hint(name: str, known: Collection[str]) -> str:
    """The nearest known name as a question, or all of them."""
    nearest = difflib.get_close_matches(name.strip().lower(), [one.lower() for one in known], n=1)
    matching = [one for one in known if one.lower() in nearest]
    return f"did you mean '{matching[0]}'?" if matching else f"known columns: {', '.join(known)}."


def _field(inside: str, columns: Collection[str], where: str) -> _Field:
    """The longest known column before a colon wins: a column may have colons of its own, and so may a format."""
    if inside in columns:
        return _Field(inside, "")
    column, _, form = inside.rpartition(":")
    while column and column not in columns:
        column, _, before = column.rpartition(":")
        form = f"{before}:{form}"
    if column in columns:
        return _Field(column, form)
    raise ContractError(
        f"{where}: there is no column '{inside}': {nearest_hint(inside, columns)} "
        "For a brace that is no field, write {{ or }}."
    )


def _filled(field: _Field, value: Any) -> str:
    if value is None or not field.form:
        return spoken(value)
    try:
        return format(value, field.form)
    except (ValueError, TypeError) as error:
        raise ContractError(
            f"column '{field.column}': the format '{field.form}' does not fit {value!r} ({error}). "
            "Correct the template."
        ) from None
