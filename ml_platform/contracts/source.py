"""Sources of a product: tables of the snapshot, and where they come from."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ml_platform.contracts.base import Contract, Share

HookPath = Annotated[str, Field(pattern=r"^[\w/]+\.py:[A-Za-z_]\w*$")]


class ColumnType(StrEnum):
    """The types of source columns; a timestamp must carry a zone."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"


class SourceSpec(Contract):
    """One table of the snapshot and where it comes from.

    `event_time` is when a row's fact is about, `known_at` when it became known (None: as soon as its
    event happened; without an event_time, always). `known_ahead` says that rows may be known before
    their event: plans and forecasts; elsewhere such a row is wrong. `nullable` columns may be empty;
    every other column may not. Rows that do not fit are set aside; more than `max_bad_share` of them
    refuse the whole source.
    """

    kind: Literal["csv", "jsonl", "parquet", "hook"]
    path: str | None = None
    hook: HookPath | None = None
    columns: Annotated[dict[str, ColumnType], Field(min_length=1)]
    nullable: tuple[str, ...] = ()
    ignore_columns: tuple[str, ...] = ()
    key: Annotated[tuple[str, ...], Field(min_length=1)]
    event_time: str | None = None
    known_at: str | None = None
    known_ahead: bool = False
    max_bad_share: Share = 0.01

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "hook") != (self.hook is not None) or (self.kind == "hook") == (self.path is not None):
            raise ValueError(
                f"a source of kind '{self.kind}' needs {'hook' if self.kind == 'hook' else 'path'} and nothing else"
            )
        named = [*self.key, *self.nullable, *filter(None, [self.event_time, self.known_at])]
        unknown = sorted(set(named) - set(self.columns))
        if unknown:
            raise ValueError(f"key, nullable, event_time or known_at name unknown columns: {', '.join(unknown)}")
        for time in filter(None, [self.event_time, self.known_at]):
            if self.columns[time] is not ColumnType.TIMESTAMP:
                raise ValueError(f"column '{time}' must be of type timestamp, found {self.columns[time]}")
        return self

    @property
    def known_column(self) -> str | None:
        """The column that tells when a row became known; None for rows that always were."""
        return self.known_at or (None if self.known_ahead else self.event_time)

    @property
    def meaning(self) -> dict[str, Any]:
        """What rows say, and when each was known: what examples, features and leakage checks go by, as plain JSON."""
        return self.model_dump(mode="json", include={"columns", "key", "event_time", "known_at", "known_ahead"})


class Origin(StrEnum):
    """Where the right answer to a question that was answered live comes from.

    A user who corrected the answer, somebody who labelled the question, or what happened in the end.
    """

    CORRECTION = "correction"
    LABEL = "label"
    OUTCOME = "outcome"


ANSWERED_COLUMNS: dict[str, ColumnType] = {
    "said_id": ColumnType.STRING,
    "origin": ColumnType.STRING,
    "response_id": ColumnType.STRING,
    "release_id": ColumnType.STRING,
    "cohort": ColumnType.STRING,
    "entity": ColumnType.STRING,
    "asked_at": ColumnType.TIMESTAMP,
    "known_at": ColumnType.TIMESTAMP,
    "utterance": ColumnType.STRING,
    "facts": ColumnType.STRING,
    "answer": ColumnType.STRING,
    "by_model": ColumnType.BOOLEAN,
    "voice": ColumnType.STRING,
    "nth_of_voice": ColumnType.INTEGER,
    "said": ColumnType.STRING,
}
"""The columns of a source of kind `answered`; docs/labelling.md tells what each holds."""


class AnsweredSpec(SourceSpec):
    """What was answered live and what was then said of it, from the records of answers: nothing needs to be declared.

    One row is one thing that was said, as known when it was heard: by `origins`, of questions asked at most `keep_days`
    before the cutoff, of each origin at most `max_rows`, drawn by a hash. Without any, the table is empty.
    """

    kind: Literal["answered"]  # type: ignore[assignment]  # the discriminator: no source is of two kinds
    origins: tuple[Origin, ...] = (Origin.CORRECTION, Origin.LABEL)
    keep_days: Annotated[float, Field(gt=0.0, le=36_500.0)] = 365.0
    max_rows: Annotated[int, Field(ge=1)] = 2_000
    columns: dict[str, ColumnType] = ANSWERED_COLUMNS
    nullable: tuple[str, ...] = ("release_id", "entity", "said")
    key: tuple[str, ...] = ("said_id",)
    event_time: str | None = "asked_at"
    known_at: str | None = "known_at"
    max_bad_share: Share = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        fixed = ("path", "hook", "columns", "nullable", "ignore_columns", "key", "event_time", "known_at")
        fields = type(self).model_fields
        declared = [name for name in (*fixed, "known_ahead") if getattr(self, name) != fields[name].default]
        if declared:
            raise ValueError(f"a source of kind 'answered' has its own {', '.join(declared)}: leave them out")
        return self
