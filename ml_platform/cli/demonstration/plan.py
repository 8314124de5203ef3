"""The plan of a demonstration: what differs from the product, which days are played, and what may be planted."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ml_platform.contracts.base import Contract, Name, read_mapping
from ml_platform.errors import InvalidInputError

PLAN = "demo.yaml"
"""Beside product.yaml, where a product has a demonstration."""

Some = Annotated[int, Field(ge=1)]


class Stretch(Contract):
    """Days that are played in a row: at most so many questions, drawn evenly over them."""

    first: date
    last: date
    questions: Some


class Fault(Contract):
    """A release that looks good offline and is bad: what is changed of the tuple, its weights never.

    `sources` replaces text in the hooks that the release keeps, by file; `system` is the prompt's, `padding` is put
    before it so many times; `guardrails` are other values of its keys. `at_once` questions are asked at a time.
    """

    title: str
    seen_by: str
    sources: dict[str, dict[str, str]] = {}
    system: str | None = None
    padding: str = ""
    padding_times: Annotated[int, Field(ge=0)] = 0
    guardrails: dict[str, Any] = {}
    at_once: Some = 12


class Form(Contract):
    """One form of the demonstration, the short or the full one.

    `changes` are merged into the product's files: mappings key by key, lists of gates or metrics by their names;
    `edits` replace text in its other files.
    Features are published at each of `hours` (UTC) of a day that is played. `months` are days with a few questions
    each, `looks` days whose drift is reported, in the order of time; the run that drift starts may take
    `patience_minutes`.
    """

    product: Name
    changes: dict[str, dict[str, Any]] = {}
    edits: dict[str, dict[str, str]] = {}
    as_of: date
    before: Stretch
    planted: Annotated[tuple[Stretch, ...], Field(min_length=1)]
    months: tuple[date, ...]
    month_questions: Some
    looks: tuple[date, ...]
    renewed: Annotated[tuple[Stretch, ...], Field(min_length=1)]
    afterwards: tuple[date, ...]
    last_look: date
    hours: Annotated[tuple[Annotated[int, Field(ge=0, le=23)], ...], Field(min_length=1)]
    users: Some
    at_once: Some
    patience_minutes: Some


class DemoPlan(Contract):
    """demo.yaml."""

    short: Form
    full: Form | None = None
    faults: Annotated[dict[Name, Fault], Field(min_length=1)]

    def fault(self, name: str) -> Fault:
        """The fault of that name. Raises InvalidInputError that names the known ones."""
        if name not in self.faults:
            raise InvalidInputError(f"there is no fault '{name}' in {PLAN}. Choose of: {', '.join(self.faults)}.")
        return self.faults[name]


def read_plan(folder: Path) -> DemoPlan:
    """The plan of the product in a folder; InvalidInputError where it has none, ContractError for a wrong one."""
    path = folder / PLAN
    if not path.is_file():
        raise InvalidInputError(f"{path}: there is no such file, so {folder.name} has no demonstration.")
    return DemoPlan.parse(read_mapping(path), where=str(path))
