"""What a request brings besides its question: the keys of what it is about, read by the types of the sources."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from ml_platform.contracts.provenance import Entity, Scalar
from ml_platform.contracts.serving import LONGEST_BROUGHT, ServingContent
from ml_platform.contracts.source import ColumnType
from ml_platform.errors import InvalidInputError
from ml_platform.serving.guardrails.personal_data import redact, sound

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Brought:
    """The columns of a request: `entity` names what it is about, `row` holds those and the further ones."""

    entity: Entity
    row: dict[str, Any]


def read_brought(content: ServingContent, metadata: Mapping[str, Scalar]) -> Brought:
    """The columns that the release asks for, each of its type; OpenAI's metadata are texts, so texts are read.

    A column that may be empty where it was learnt may be left out or empty: None. Other metadata is left alone. Raises
    InvalidInputError that names the key and never the value.
    """
    spec = content.spec
    row: dict[str, Any] = {}
    for name in (*spec.entity, *spec.given):
        value = metadata.get(name)
        if name in (content.nullable or ()) and (value is None or not str(value).strip()):
            row[name] = None
            continue
        if value is None:
            needed = ", ".join((*spec.entity, *spec.given))
            raise InvalidInputError(f"metadata has no '{name}'. Send in metadata: {needed}.")
        row[name] = _read(name, value, content.types.get(name, ColumnType.STRING))
    return Brought(entity={name: row[name] for name in spec.entity}, row=row)


def without_personal_data(brought: Brought, known: tuple[str, ...], kinds: tuple[str, ...]) -> Brought:
    """The same without personal data in texts, but for the `known` columns, whose values a table holds."""

    def clean(name: str, value: Any) -> Any:
        return redact(value, kinds)[0] if isinstance(value, str) and name not in known else value

    return Brought(
        entity={name: clean(name, value) for name, value in brought.entity.items()},
        row={name: clean(name, value) for name, value in brought.row.items()},
    )


def _read(name: str, value: Scalar, kind: ColumnType) -> Any:
    try:
        return _READERS[kind](value)
    except (ValueError, OverflowError):
        raise InvalidInputError(f"metadata '{name}' is no {kind.value}, or too long. Send {_EXAMPLES[kind]}.") from None


def _text(value: Scalar) -> str:
    text = str(value)
    if not text.strip() or len(text) > LONGEST_BROUGHT or sound(text) != text or "\x00" in text:
        raise ValueError
    return text


def _integer(value: Scalar) -> int:
    if isinstance(value, bool) or not _INTEGER.fullmatch(str(value)):
        raise ValueError
    return int(value)


def _number(value: Scalar) -> float:
    if isinstance(value, bool) or len(str(value)) > LONGEST_BROUGHT or not isfinite(number := float(value)):
        raise ValueError
    return number


def _boolean(value: Scalar) -> bool:
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - it becomes the same message as any other value that does not fit
    return value


def _timestamp(value: Scalar) -> datetime:
    """The moment in UTC, in which tables tell times; facts are learnt as tables tell them."""
    moment = datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError
    return moment.astimezone(UTC)


_READERS: dict[ColumnType, Callable[[Scalar], Any]] = {
    ColumnType.STRING: _text,
    ColumnType.INTEGER: _integer,
    ColumnType.NUMBER: _number,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.TIMESTAMP: _timestamp,
}
_EXAMPLES = {
    ColumnType.STRING: f"a text of 1 to {LONGEST_BROUGHT} characters",
    ColumnType.INTEGER: "a whole number, e.g. 4001",
    ColumnType.NUMBER: "a number, e.g. 2.5",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.TIMESTAMP: "a time with a zone, e.g. 2026-02-02T08:15:00Z",
}
