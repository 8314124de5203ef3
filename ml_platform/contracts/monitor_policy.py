"""The monitor policy: what is watched once a release serves, and what is done about it; it moves with the release."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from ml_platform.contracts.base import Contract, Name, SemanticVersion, Share

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Hours = Annotated[float, Field(gt=0.0, le=876_000.0)]
"""At most a century: no calendar holds much more, and `never` is said in other ways."""
Days = Annotated[int, Field(ge=1, le=36_500)]
Level = Annotated[float, Field(gt=0.0, lt=0.5)]
Some = Annotated[int, Field(ge=1)]


class Signal(StrEnum):
    """What one answer shows: 1 or 0 for something bad that happened or did not, a number for the rest.

    `missed` and `false_alarm` need an outcome, and so count once their label is mature: what `recall` of the product's
    evaluation calls positive was not said and came true, or was said and did not. The others are known at once, but
    for `disliked`, which feedback may bring later: thumbs down, a correction, a question asked again, a walk away.
    """

    ERROR = "error"
    INVALID = "invalid"
    UNGROUNDED = "ungrounded"
    REFUSED = "refused"
    BLOCKED = "blocked"
    UNSAFE = "unsafe"
    DISLIKED = "disliked"
    MISSED = "missed"
    FALSE_ALARM = "false_alarm"
    LATENCY_MS = "latency_ms"
    FIRST_TOKEN_MS = "first_token_ms"  # noqa: S105 - a token of text
    QUEUE_MS = "queue_ms"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    COST_USD = "cost_usd"

    @property
    def labelled(self) -> bool:
        """Whether it takes an outcome to know."""
        return self in (Signal.MISSED, Signal.FALSE_ALARM)

    @property
    def bad_event(self) -> bool:
        """Whether it is 1 or 0: something bad that happened or did not."""
        return not self.value.endswith(("_ms", "_tokens", "_usd"))


class RateMetric(Contract):
    """The share of users to whom something bad happens.

    The canary may exceed production by less than `margin`; above `at_most` no release may stay, whatever it replaced.
    """

    kind: Literal["rate"]
    metric: Name
    signal: Signal
    margin: Annotated[float, Field(gt=0.0, lt=1.0)]
    at_most: Share

    @model_validator(mode="after")
    def _event(self) -> Self:
        if not self.signal.bad_event:
            raise ValueError(f"metric '{self.metric}': '{self.signal}' is a number. Watch it as a quantile or a mean")
        return self


class _NumberMetric(Contract):
    metric: Name
    signal: Signal
    margin: Positive
    at_most: Positive

    @model_validator(mode="after")
    def _number(self) -> Self:
        if self.signal.bad_event:
            raise ValueError(f"metric '{self.metric}': '{self.signal}' is 1 or 0. Watch it as a rate")
        return self


class QuantileMetric(_NumberMetric):
    """A quantile of a number, e.g. the 95th percentile of latency in ms.

    The canary's may be at most `1 + margin` times production's, and never above `at_most`, in the signal's unit.
    """

    kind: Literal["quantile"]
    quantile: Annotated[float, Field(gt=0.0, lt=1.0)]


class MeanMetric(_NumberMetric):
    """The mean of a number, e.g. the cost of an answer; `ceiling` bounds it: what is above counts as the ceiling.

    The canary's may exceed production's by less than `margin`, and never be above `at_most`, in the signal's unit.
    """

    kind: Literal["mean"]
    ceiling: Positive


Metric = Annotated[RateMetric | QuantileMetric | MeanMetric, Field(discriminator="kind")]


class HardLimit(Contract):
    """The fast path: a release with this share of bad answers within a short window goes at once.

    At least `min_count` answers of that release, the newest within `window_seconds`, must have been seen.
    """

    signal: Signal
    at_most: Share
    window_seconds: Annotated[float, Field(gt=0.0, le=86_400.0 * 365)]
    min_count: Some

    @model_validator(mode="after")
    def _known_at_once(self) -> Self:
        if not self.signal.bad_event or self.signal.labelled or self.signal is Signal.DISLIKED:
            raise ValueError(f"hard limit on '{self.signal}': expected something bad that shows at once")
        return self


class MovePolicy(Contract):
    """What keeps automatic moves rare: the rest is for people.

    After any move nothing but a stop follows within `cool_down_minutes`. More than `max_per_day` automatic moves in 24
    hours freeze the product. A step lasts until `min_users` were seen in each arm, besides the canary plan's minutes.
    """

    cool_down_minutes: Annotated[float, Field(ge=0.0)]
    max_per_day: Some
    min_users: Some


class SignOffPolicy(Contract):
    """When a promotion needs an operator's signature: always, or where the mean cost rises by this share."""

    always: bool
    cost_rises_by: Positive | None


class DriftPolicy(Contract):
    """When the days up to one count as drifted from what production learned from: `window_days` of them.

    A column drifts when its test survives the correction for many columns and its effect is large enough: `psi`,
    `ks` (distance of distributions) or `wasserstein` (in standard deviations). `share_of_columns` of them make drift.
    At most `sample_rows` rows are drawn of either side; fewer than `min_rows` prove nothing.
    """

    window_days: Days
    alpha: Level
    psi: Positive
    ks: Share
    wasserstein: Positive
    embedding: Share
    share_of_columns: Share
    min_rows: Some
    sample_rows: Some


class Deprecation(Contract):
    """A base model or a judge that its makers withdraw on a day; `replacement` is what people should look at."""

    name: str
    ends_at: AwareDatetime
    replacement: str | None


class RetrainPolicy(Contract):
    """When a run of continuous training starts by itself.

    Each trigger may be None for never: drift, a fall of quality, so many new mature labels, so many days, or so many
    days before something is withdrawn. After a failed candidate the next automatic run waits `back_off_hours`, twice
    as long each time, and after `max_failed` in a row for a person.
    """

    on_drift: bool
    on_quality: bool
    new_labels: Some | None
    every_days: Days | None
    days_before_deprecation: Days | None
    deprecations: tuple[Deprecation, ...]
    back_off_hours: Hours
    max_failed: Some


class MonitorPolicy(Contract):
    """What is watched once a release serves, and what is done about it; nothing in it has a default.

    `alpha` is the chance that a harmless canary is ever stopped, `beta` that one which is worse by a margin is ever
    promoted: over all metrics and all looks. Labels count once they are `label_age_hours` old, in every arm alike, and
    prove something where `min_coverage` of the answers of that age have one.
    """

    version: SemanticVersion
    label_age_hours: Hours
    min_coverage: Share
    alpha: Level
    beta: Level
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)]
    hard_limits: tuple[HardLimit, ...]
    moves: MovePolicy
    sign_off: SignOffPolicy
    drift: DriftPolicy
    retrain: RetrainPolicy

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [metric.metric for metric in self.metrics]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the policy names these metrics more than once: {', '.join(repeated)}")
        return self
