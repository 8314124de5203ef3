"""How a release serves: what questions are about, what happens when something is missing, and the code that says it.

All of it is part of the release and kept with it, so that a gateway needs no product folder, and an old release
answers with the schema, the feature definitions and the hooks that it was judged with.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from ml_platform.contracts.base import Column, Contract, GrowingContract, Name, SemanticVersion, Share
from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.provenance import UnrecordedPolicy
from ml_platform.contracts.source import ColumnType, HookPath

SHARE_OF_DEADLINE = 0.7
"""What one release may take of the time that is left while another could still answer. Decisions on live traffic hold
every release to it, the one too that nobody stands behind: else a canary would seem worse for being given less time."""

LONGEST_BROUGHT = 512
"""Characters of a text that a request may bring, as in OpenAI's metadata. What is longer is not learnt from either."""


class UnknownFacts(StrEnum):
    """What a product wants when feature values are missing or too old, or the store is down."""

    REFUSE = "refuse"
    ANSWER_AND_SAY = "answer_and_say"


class ServingTime(StrEnum):
    """What time it is for a product: the clock's, or that of its newest features, where history is replayed."""

    CLOCK = "clock"
    FEATURES = "features"


class LookupSpec(Contract):
    """Rows of a source that serving finds by key, published beside the features: plans, catalogues, master data.

    Rows whose event lies further back than `keep_hours` are not published; null: all are.
    """

    source: Name
    key: Annotated[tuple[str, ...], Field(min_length=1)]
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    keep_hours: Annotated[float, Field(gt=0.0, le=876_000.0)] | None = None


class BreakerSpec(Contract):
    """When a release counts as broken: more than this share of errors in the window, and at least so many answers."""

    error_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    window_seconds: Annotated[float, Field(gt=0.0)] = 60.0
    min_count: Annotated[int, Field(ge=1)] = 20


class ServingSpec(Contract):
    """serving.yaml: how a product is served.

    `entity` names the keys that a request says what it is about with, in the words of outcomes; `given` are further
    columns that it brings and that identify nothing. `lookups` add columns to them, in their order; with those and the
    features the hook `facts` makes the facts of the prompt: `facts(row: Mapping) -> Mapping[str, FactValue]`, where
    `row` holds entity, given and looked-up columns, and every feature, None where it is not known. Without a hook, the
    facts are those that the examples name. The hook `replay` makes the traffic of past days that `mlp replay` plays.
    """

    version: SemanticVersion
    entity: tuple[Column, ...] = ()
    given: tuple[Column, ...] = ()
    lookups: dict[Name, LookupSpec] = {}
    facts: HookPath | None = None
    replay: HookPath | None = None
    unknown_facts: UnknownFacts = UnknownFacts.REFUSE
    unrecorded: UnrecordedPolicy = UnrecordedPolicy.REFUSE
    time: ServingTime = ServingTime.CLOCK
    deadline_ms: Annotated[int, Field(ge=1)] = 10_000
    shadow_share: Share = 0.0
    breaker: BreakerSpec = BreakerSpec()


class ServingContent(GrowingContract):
    """All that serving needs of a product and that no other part of the release holds.

    `types` are those of the columns that a request brings, `facts` the names of the examples' facts, `sources` the
    Python files of the hooks by path below the product's folder. `nullable` are the columns that a request may leave
    out, as the rows that were learnt from do; None where there are none.
    """

    came_later: ClassVar[tuple[str, ...]] = ("nullable",)

    spec: ServingSpec
    evaluation: EvaluationSpec
    features: FeatureSpec | None
    types: dict[Column, ColumnType] = {}
    facts: tuple[str, ...] = ()
    sources: dict[str, str] = {}
    nullable: tuple[Column, ...] | None = None

    @model_validator(mode="after")
    def _hook_is_there(self) -> Self:
        if self.spec.facts is not None and self.spec.facts.partition(":")[0] not in self.sources:
            raise ValueError(f"the hook '{self.spec.facts}' is in none of the product's Python files")
        for name in self.spec.entity:
            if self.types.get(name, ColumnType.STRING) not in (ColumnType.STRING, ColumnType.INTEGER):
                raise ValueError(f"the entity '{name}' is of type {self.types[name]}, expected string or integer")
        return self
