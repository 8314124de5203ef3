"""What is seen of live traffic, what it shows, and what is decided about it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from ml_platform.contracts.base import Contract, Finite, Name, Sha256, Share
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.routing import Cohort

Users = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer as decisions see it.

    `at` is when it was given in the product's own time, which replay plays faster than ours (serving.yaml, `time`);
    `answered_at` in ours. `user` is the salted digest, or the response where nobody said who asked. `exposure` is the
    canary's share of users then. `signals` has what is known of the answer; one that needs an outcome is in there once
    its label is mature. `mature` says whether the label age is over, `labelled` whether an outcome had come by then.
    """

    response_id: str
    release_id: str | None
    cohort: Cohort
    epoch: int
    exposure: float
    at: datetime
    answered_at: datetime
    user: str
    signals: dict[Signal, float]
    mature: bool
    labelled: bool


class ArmReading(Contract):
    """One arm of one metric: users and answers that count, the estimate, and its bounds at every look at once.

    `coverage` is the share of mature answers with a label, None for metrics that need none.
    """

    users: Users
    answers: Users
    value: Finite | None
    lower: Finite | None
    upper: Finite | None
    coverage: Share | None = None


class MetricReading(Contract):
    """What one metric shows of the canary against production, or of production alone, which then is no `canary`.

    `kind` is the metric's in the monitor policy: a quantile's effect is a ratio, and reads otherwise.

    FAIL is a crossed bound: harm is proven. PASS is non-inferiority: the effect is inside the margin. INCONCLUSIVE
    waits, and says for what; ERROR could not be read. `effect` is canary minus production, or their ratio for a
    quantile, with bounds that hold at every look; `limit` is what `effect_upper` must stay below to pass.
    `smallest_visible` is the least harm that could be proven by now, in the unit of the effect. `e_value` is the
    evidence of harm, which stops the canary at `e_threshold`.
    """

    metric: Name
    signal: Signal
    kind: Literal["rate", "quantile", "mean"]
    verdict: Verdict
    reason: str
    production: ArmReading | None
    canary: ArmReading | None
    effect: Finite | None
    effect_lower: Finite | None
    effect_upper: Finite | None
    limit: Finite
    e_value: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    e_threshold: Finite | None = None
    smallest_visible: Finite | None = None
    waits_for: str | None = None


class Breach(Contract):
    """A hard limit that a release broke: so many bad answers of so many within its window."""

    release_id: Sha256
    signal: Signal
    bad: Users
    answers: Users
    at_most: Share
    window_seconds: Finite

    @property
    def sentence(self) -> str:
        """For people."""
        return f"{self.bad} of {self.answers} users within {self.window_seconds:g} s: {self.signal}"


class Action(StrEnum):
    """What may be decided at one look."""

    HOLD = "hold"
    OPEN = "open"
    STEP_UP = "step_up"
    PROMOTE = "promote"
    PAUSE = "pause"
    ABORT = "abort"
    ROLL_BACK = "roll_back"
    FREEZE = "freeze"

    @property
    def stops(self) -> bool:
        """Whether it takes users away from a release."""
        return self in (Action.ABORT, Action.ROLL_BACK)


class Decision(Contract):
    """What is done at one look, why, and on what.

    `release_id` is the release that it is about. `waits_for` says what would have to come for more than a hold.
    `incident` is the sentence of an incident that it raises, None for none. `at` is the product's time.
    """

    product: Name
    action: Action
    release_id: Sha256 | None
    reason: str
    epoch: Annotated[int, Field(ge=0)]
    at: AwareDatetime
    waits_for: tuple[str, ...] = ()
    readings: tuple[MetricReading, ...] = ()
    breaches: tuple[Breach, ...] = ()
    incident: str | None = None
    monitor_policy_sha256: Sha256 | None = None


class Look(Contract):
    """One look of a controller, as `mlp status` and the console show it: what serves, what was decided, by whom."""

    product: Name
    looked_at: AwareDatetime
    controller: str
    production: Sha256 | None
    canary: Sha256 | None
    shadow: Sha256 | None
    exposure: Share
    step: Annotated[int, Field(ge=0)]
    frozen: str | None
    decision: Decision
