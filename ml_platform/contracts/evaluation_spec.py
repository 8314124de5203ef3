"""What is measured of a product's answers: their fields, golden sets, decoding and what tokens cost."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ml_platform.contracts.base import Contract, Name, SemanticVersion
from ml_platform.contracts.labels import is_among
from ml_platform.contracts.report import Decoding
from ml_platform.contracts.source import HookPath


class LabelField(Contract):
    """An answer field whose value must equal the expected one; measured as `<field>_accuracy`."""

    kind: Literal["label"]
    values: Annotated[tuple[str, ...], Field(min_length=2)] | None = None

    def allows(self, label: str | int | float) -> bool:
        """Whether a label is one of `values`, which are texts; Python's own `True` and `False` may stand there too."""
        return self.values is None or is_among(label, self.values)


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

    @model_validator(mode="after")
    def _golden_sets_beside_splits(self) -> Self:
        if taken := sorted({"train", "validation", "test"} & self.golden_sets.keys()):
            raise ValueError(f"golden set '{taken[0]}' is called as a split, whose place it would take; rename it")
        return self
