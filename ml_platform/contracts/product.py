"""A product as its folder describes it: product.yaml and the files it names."""

import re
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ml_platform.contracts.base import Contract, Name, SemanticVersion, Share
from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.source import AnsweredSpec, ColumnType, HookPath, SourceSpec


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
    seed: Annotated[int, Field(ge=0, lt=2**32)]


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
    max_staleness_days: Annotated[float, Field(gt=0.0, le=36_500.0)] | None
    files: ProductFiles
    sources: Annotated[
        dict[Name, Annotated[SourceSpec | AnsweredSpec, Field(discriminator="kind")]], Field(min_length=1)
    ]
    examples: ExamplesSpec
    training: TrainingSpec
    evaluation: EvaluationSpec

    @model_validator(mode="after")
    def _asked_at_a_time(self) -> Self:
        source, asked = self.sources.get(self.examples.source or ""), self.examples.prediction_time
        kind = source.columns.get(asked) if source and asked is not None else None
        if kind not in (None, ColumnType.TIMESTAMP):
            raise ValueError(f"examples.prediction_time '{asked}' is of type {kind}, expected a timestamp")
        return self


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
