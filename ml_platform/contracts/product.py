"""A product as its folder describes it: product.yaml and the files it names."""

import re
from datetime import date
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ml_platform.contracts.base import Contract, Name, SemanticVersion, Share
from ml_platform.contracts.report import Decoding

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
    keep_days: Annotated[float, Field(gt=0.0)] = 365.0
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


class SplitSpec(Contract):
    """How examples are split in time order: the newest for test, those before for validation.

    Without a prediction time, the order is that of a hash of the entity.
    """

    validation_share: Annotated[float, Field(gt=0.0, lt=0.5)]
    test_share: Annotated[float, Field(gt=0.0, lt=0.5)]


class ExamplesSpec(Contract):
    """How rows become examples: a hook, or templates over the columns of one source.

    Templates are Python format strings over columns and features, e.g. `"{question}"`. An answer is
    a template for plain text or a mapping of fields to templates for JSON.
    """

    hook: HookPath | None = None
    source: Name | None = None
    entity: str | None = None
    prediction_time: str | None = None
    utterance: str | None = None
    facts: tuple[str, ...] = ()
    answer: dict[str, str] | str | None = None
    slices: tuple[str, ...] = ()
    max_examples: Annotated[int, Field(ge=10)]
    splits: SplitSpec

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        declared = (self.source, self.entity, self.utterance, self.answer)
        if self.hook is None and None in declared:
            raise ValueError("examples need a hook, or all of source, entity, utterance and answer")
        if self.hook is not None and declared != (None, None, None, None):
            raise ValueError("examples have either a hook or source, entity, utterance and answer, not both")
        return self


class TrainingSpec(Contract):
    """Hyperparameters of a LoRA fine-tune; Dagster run config can override each of them."""

    base_model: str
    rank: Annotated[int, Field(ge=1, le=256)]
    alpha: Annotated[int, Field(ge=1)]
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    upper_layers: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0.0)]
    warmup_share: Share = 0.05
    epochs: Annotated[int, Field(ge=1)]
    pack_tokens: Annotated[int, Field(ge=64)]
    packs_per_step: Annotated[int, Field(ge=1)]
    max_example_tokens: Annotated[int, Field(ge=32)]
    evaluations_per_epoch: Annotated[int, Field(ge=1)]
    early_stopping_patience: Annotated[int, Field(ge=1)]
    seed: int


class LabelField(Contract):
    """An answer field whose value must equal the expected one; measured as `<field>_accuracy`."""

    kind: Literal["label"]
    values: Annotated[tuple[str, ...], Field(min_length=2)] | None = None


class TextField(Contract):
    """A free-text answer field; `grounded` demands that its numbers and names stand in the facts."""

    kind: Literal["text"]
    grounded: bool = False


class RecallSpec(Contract):
    """Of the items whose outcome was true, the share whose label field had one of `positive`."""

    field: Name
    positive: Annotated[tuple[str, ...], Field(min_length=1)]
    outcome: Name


class RefusalSpec(Contract):
    """Which label values refuse: `out_of_scope` politely, `attack` because somebody attacks."""

    field: Name
    out_of_scope: tuple[str, ...]
    attack: tuple[str, ...]


class GoldenSpec(Contract):
    """A golden set: a JSONL file of examples, or a hook that reads a public corpus."""

    path: str | None = None
    hook: HookPath | None = None
    version: SemanticVersion

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.path is None) == (self.hook is None):
            raise ValueError("a golden set needs exactly one of path and hook")
        return self


class CostSpec(Contract):
    """What tokens cost, in US dollars a million tokens."""

    input_usd_per_million: Annotated[float, Field(ge=0.0)]
    output_usd_per_million: Annotated[float, Field(ge=0.0)]


class EvaluationSpec(Contract):
    """What is measured of the answers."""

    answer_format: Literal["json", "text"]
    fields: dict[Name, Annotated[LabelField | TextField, Field(discriminator="kind")]] = {}
    recall: dict[Name, RecallSpec] = {}
    refusal: RefusalSpec | None = None
    golden_sets: dict[Name, GoldenSpec] = {}
    max_test_examples: Annotated[int, Field(ge=1)]
    max_reference_examples: Annotated[int, Field(ge=1)]
    latency_requests: Annotated[int, Field(ge=1)]
    decoding: Decoding
    cost: CostSpec

    @model_validator(mode="after")
    def _fields_for_json(self) -> Self:
        if (self.answer_format == "json") != bool(self.fields):
            raise ValueError("fields belong to answer_format json, which needs at least one")
        return self


class ProductFiles(Contract):
    """Paths below the product folder."""

    prompt: str
    promotion_policy: str
    monitor_policy: str
    guardrails: str
    action_policy: str | None = None
    serving: str | None = None
    expectations: str | None = None
    features: str | None = None


class ProductSpec(Contract):
    """product.yaml."""

    name: Name
    title: str
    description: str
    owner: str
    family: Literal["lora"]
    first_as_of: date
    max_staleness_days: Annotated[float, Field(gt=0.0)] | None
    files: ProductFiles
    sources: Annotated[
        dict[Name, Annotated[SourceSpec | AnsweredSpec, Field(discriminator="kind")]], Field(min_length=1)
    ]
    examples: ExamplesSpec
    training: TrainingSpec
    evaluation: EvaluationSpec


class PromptSpec(Contract):
    """The prompt: `system` is a format string in which `{facts}` stands for the lines of facts."""

    version: SemanticVersion
    system: str
    description: str = ""


class TermList(Contract):
    """Words that no answer may hold: a file of an installed package, one term a line or a CSV with a column `text`.

    The digest makes the list part of the release. `least_severity` keeps the rows whose column `severity_rating`
    reaches it.
    """

    package: str
    file: str
    content_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    least_severity: Annotated[float, Field(ge=0.0)] | None = None


class JudgeSpec(Contract):
    """A model that judges besides the rules; where it is served is no part of the release.

    `input` and `output` say what it must refuse, in words; None: it does not look at that stage. An answer that
    does not come in time, or is not understood, lets nothing through.
    """

    model: str
    deadline_ms: Annotated[int, Field(ge=1)]
    input: str | None = None
    output: str | None = None


class GuardrailSpec(Contract):
    """What is checked before and after the model; part of the release.

    `safe_reply` stands for what is blocked, `fallback_reply` for an answer when no release can give one; in a JSON
    answer `safe_labels` fill the label fields beside them. `blocked_patterns` are regular expressions over text in
    lower case without accents, and count as attacks. `out_of_scope` are words and phrases of questions that need no
    model to be declined.
    """

    version: SemanticVersion
    max_utterance_characters: Annotated[int, Field(ge=1)]
    safe_reply: str
    fallback_reply: str = "Sorry, I cannot answer right now. Please try again later."
    safe_labels: dict[Name, str] = {}
    redact: tuple[Literal["email", "phone", "card"], ...] = ()
    blocked_patterns: tuple[str, ...] = ()
    out_of_scope: tuple[str, ...] = ()
    toxic_terms: TermList | None = None
    judge: JudgeSpec | None = None

    @model_validator(mode="after")
    def _patterns_compile(self) -> Self:
        for pattern in self.blocked_patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"the pattern {pattern!r} is no regular expression: {error}") from None
        return self


RESERVED_FEATURE_NAMES = frozenset(
    {"event_timestamp", "created_timestamp", "event_expire_timestamp", "entity_row_id", "entity_row", "rn"}
)
"""Columns that the point-in-time join itself makes."""


class AggregateSpec(Contract):
    """One trailing feature: a function of a column over a window that ends when the feature is known.

    Empty cells count for nothing: `count` counts the filled cells, the others are over filled cells.
    """

    function: Literal["mean", "count", "sum", "min", "max"]
    column: str
    window_hours: Annotated[float, Field(gt=0.0)]


class FeatureViewSpec(Contract):
    """A table of features for one entity.

    With `aggregates`, rows stand at every `every_hours` of a fixed grid and look back; with
    `columns`, rows of the source pass through as they became known. `ttl_hours` is how old a
    value may be and still be used; null: any age.
    """

    source: Name
    entity: Annotated[tuple[str, ...], Field(min_length=1)]
    every_hours: Annotated[float, Field(ge=1 / 60)] | None = None
    aggregates: dict[Name, AggregateSpec] = {}
    columns: dict[Name, str] = {}
    ttl_hours: Annotated[float, Field(gt=0.0)] | None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.aggregates) == bool(self.columns):
            raise ValueError("a feature view has either aggregates or columns")
        if bool(self.aggregates) != (self.every_hours is not None):
            raise ValueError("every_hours belongs to aggregates, which need it")
        if self.every_hours and self.ttl_hours and self.ttl_hours < self.every_hours:
            raise ValueError("ttl_hours is shorter than every_hours: between two rows no value would be valid")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of its features, sorted."""
        return tuple(sorted({**self.aggregates, **self.columns}))


class FeatureSpec(Contract):
    """features.yaml: the feature views and the service that names what the model sees."""

    service: Name
    views: Annotated[dict[Name, FeatureViewSpec], Field(min_length=1)]

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [name for view in self.views.values() for name in view.feature_names]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"feature names must be unique in a product, repeated: {', '.join(repeated)}")
        # Feast's join marks columns that it drops by a final _y, and joins names with a double underscore.
        refused = sorted(n for n in names if n in RESERVED_FEATURE_NAMES or n.endswith("_y") or "__" in n)
        if refused:
            raise ValueError(
                f"feature names that the join needs for itself: {', '.join(refused)}. Rename them: no final '_y', "
                f"no '__', none of {', '.join(sorted(RESERVED_FEATURE_NAMES))}"
            )
        entities = {column for view in self.views.values() for column in view.entity}
        if entities & (set(names) | RESERVED_FEATURE_NAMES):
            clash = sorted(entities & (set(names) | RESERVED_FEATURE_NAMES))
            raise ValueError(f"these are both an entity column and a feature or reserved name: {', '.join(clash)}")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Every feature of the service, sorted: the columns that a join adds."""
        return tuple(sorted(name for view in self.views.values() for name in view.feature_names))

    @property
    def entity_columns(self) -> tuple[str, ...]:
        """Every column that a row needs to be joined, sorted."""
        return tuple(sorted({column for view in self.views.values() for column in view.entity}))
