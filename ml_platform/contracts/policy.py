"""What must hold: promotion and action policies, with no defaults for any threshold."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ml_platform.contracts.base import Column, Contract, Finite, GrowingContract, Name, SemanticVersion, Share
from ml_platform.contracts.example import FactValue

MANDATORY_GATES = frozenset(
    {"schema_valid", "no_leakage", "not_worse_than_production", "cost_within_budget", "latency_within_budget"}
)
"""Gates that no promotion policy may leave out, whatever the product."""


class CheckGate(Contract):
    """Passes when the named check of the chain found nothing wrong (`schema_valid`, `no_leakage`)."""

    kind: Literal["check"]
    gate: Name
    claim: str
    check: Name


class ThresholdGate(Contract):
    """Passes when the one-sided confidence bound of a metric is on the right side of a threshold.

    `at_least` is compared with the lower bound, `at_most` with the upper one; exactly one is given.
    Fewer than `min_n` items are INCONCLUSIVE.
    """

    kind: Literal["threshold"]
    gate: Name
    claim: str
    metric: Name
    at_least: Finite | None = None
    at_most: Finite | None = None
    min_n: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"gate '{self.gate}' needs exactly one of at_least and at_most")
        return self


class SliceGate(Contract):
    """Passes when a metric holds on every slice of the named dimensions that has `min_n` items.

    A slice fails when its upper confidence bound is below `at_least`: proven bad, not merely small.
    `min_slices` slices must have enough items, or the verdict is INCONCLUSIVE.
    """

    kind: Literal["slices"]
    gate: Name
    claim: str
    metric: Name
    dimensions: Annotated[tuple[Column, ...], Field(min_length=1)]
    at_least: Finite
    min_n: Annotated[int, Field(ge=1)]
    min_slices: Annotated[int, Field(ge=1)]


class PairedGate(Contract):
    """Passes when, for each metric, the candidate is not worse than the reference by the margin or more.

    The one-sided lower bound of the paired difference must exceed `-margin`. When the test could
    not have seen a difference of the margin, the verdict is INCONCLUSIVE, unless the bound shows that
    the candidate is no worse at all. Metrics are shares, of which more is better.
    """

    kind: Literal["paired"]
    gate: Name
    claim: str
    metrics: Annotated[tuple[Name, ...], Field(min_length=1)]
    margin: Annotated[float, Field(gt=0.0, lt=1.0)]
    min_n: Annotated[int, Field(ge=1)]


class BudgetGate(Contract):
    """Passes when a measured value is at most a budget (`latency_p95_ms`, `cost_per_request_usd`)."""

    kind: Literal["budget"]
    gate: Name
    claim: str
    metric: Name
    at_most: Finite
    min_n: Annotated[int, Field(ge=1)]


Gate = Annotated[CheckGate | ThresholdGate | SliceGate | PairedGate | BudgetGate, Field(discriminator="kind")]


class CanaryPlan(Contract):
    """The exposure steps of a canary; monitoring and decisions use the rest of the plan."""

    steps: Annotated[tuple[Share, ...], Field(min_length=1)]
    min_minutes_per_step: Annotated[float, Field(gt=0.0, le=525_600.0)]

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.steps) != sorted(set(self.steps)) or self.steps[0] <= 0.0:
            raise ValueError(f"canary steps must rise and start above 0, found {list(self.steps)}")
        return self


class QuarantineRule(Contract):
    """How long a release that was aborted or rolled back stays out: twice as long each time, in the end for good."""

    first_hours: Annotated[float, Field(gt=0.0, le=8760.0)]
    for_good_after: Annotated[int, Field(ge=1, le=10)]

    def hours(self, falls: int) -> float | None:
        """The hours after the last of so many falls, None for good; 0 without any."""
        if falls >= self.for_good_after:
            return None
        return self.first_hours * 2.0 ** (falls - 1) if falls else 0.0


class PromotionPolicy(Contract):
    """Which gates a release must pass, at which thresholds; nothing in it has a default."""

    version: SemanticVersion
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    evidence_valid_days: Annotated[float, Field(gt=0.0, le=36_500.0)]
    gates: tuple[Gate, ...]
    canary: CanaryPlan
    quarantine: QuarantineRule

    @model_validator(mode="after")
    def _complete(self) -> Self:
        names = [gate.gate for gate in self.gates]
        missing = sorted(MANDATORY_GATES - set(names))
        if missing:
            raise ValueError(f"the policy lacks the gates {', '.join(missing)}. Add them with thresholds")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"the policy names these gates more than once: {', '.join(repeated)}")
        return self

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The names of the required gates, in the policy's order."""
        return tuple(gate.gate for gate in self.gates)


class FactRule(Contract):
    """True when the fact is there and at least, or at most, a number; exactly one is given."""

    fact: Column
    at_least: Finite | None = None
    at_most: Finite | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"the rule on '{self.fact}' needs exactly one of at_least and at_most")
        return self

    def holds(self, facts: Mapping[str, object]) -> bool:
        """Whether the rule is true of these facts; a missing fact makes it false."""
        value = facts.get(self.fact)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most


class ActionLevel(Contract):
    """A level that applies when any of its rules holds."""

    level: Column
    any: Annotated[tuple[FactRule, ...], Field(min_length=1)]


class ActionPolicy(GrowingContract):
    """How facts become the level that the answer must carry: the first level that applies.

    `shown_as` names the fact by which the model is told the level, in training as in serving. Without it the model has
    to learn the rules from examples.
    """

    came_later: ClassVar[tuple[str, ...]] = ("shown_as",)

    version: SemanticVersion
    field: Column
    levels: Annotated[tuple[ActionLevel, ...], Field(min_length=1)]
    otherwise: Column
    shown_as: Column | None = None

    @model_validator(mode="after")
    def _shown_beside_what_it_follows(self) -> Self:
        if self.shown_as in {rule.fact for level in self.levels for rule in level.any}:
            raise ValueError(f"shown_as '{self.shown_as}' is a fact that the levels follow from: give it another name")
        return self

    def show(self, facts: Mapping[str, FactValue]) -> dict[str, FactValue]:
        """The facts as the model is shown them: last among them their level, where `shown_as` names it."""
        if self.shown_as is None:
            return dict(facts)
        told = {name: value for name, value in facts.items() if name != self.shown_as}
        return told | {self.shown_as: self.level(told)}

    def level(self, facts: Mapping[str, object]) -> str:
        """The level of these facts: the first whose any rule holds, else `otherwise`."""
        for level in self.levels:
            if any(rule.holds(facts) for rule in level.any):
                return level.level
        return self.otherwise


class SlotName(StrEnum):
    """Where a release can serve."""

    PRODUCTION = "production"
    CANARY = "canary"
    SHADOW = "shadow"
