"""What may stand and be seen of a product, for decisions: a canary beside production, two metrics, two steps."""

from datetime import UTC, datetime
from typing import Any

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import ArmReading, Breach, MetricReading
from ml_platform.contracts.policy import CanaryPlan, SlotName
from ml_platform.contracts.routing import Cohort
from ml_platform.release.situation import Findings, Past, Plan
from tests.samples.monitoring import monitor_policy

NOW = datetime(2013, 4, 1, 6, 0, tzinfo=UTC)
PRODUCTION, CANARY, LAST, WAITING = "a" * 64, "b" * 64, "c" * 64, "d" * 64
COST = {"kind": "mean", "metric": "cost", "signal": "cost_usd", "ceiling": 1.0, "margin": 0.1, "at_most": 0.5}
ERRORS = {"kind": "rate", "metric": "error_rate", "signal": "error", "margin": 0.05, "at_most": 0.2}
POLICY = monitor_policy(metrics=[ERRORS, COST])
STEPS = CanaryPlan(steps=(0.05, 0.2), min_minutes_per_step=30)
PLAN = Plan(STEPS, POLICY)


def reading(verdict: Verdict, metric: str = "error_rate", **changes: Any) -> MetricReading:
    """What a metric shows."""
    cost = metric == "cost"
    arms = {"production": 0.1, "canary": changes.pop("canary", 0.1)}
    given: dict[str, Any] = {
        "metric": metric,
        "signal": Signal.COST_USD if cost else Signal.ERROR,
        "kind": "mean" if cost else "rate",
        "verdict": verdict,
        "reason": "it was looked at",
        "effect": 0.0,
        "effect_lower": -0.1,
        "effect_upper": 0.1,
        "limit": 0.05,
        "e_value": 1.0,
        "e_threshold": 100.0,
        "smallest_visible": 0.07,
        "waits_for": "40 users more" if verdict is Verdict.INCONCLUSIVE else None,
        **{arm: ArmReading(users=50, answers=60, value=value, lower=0.0, upper=1.0) for arm, value in arms.items()},
    }
    return MetricReading(**given | changes)


def passing(**changes: Any) -> tuple[MetricReading, ...]:
    """Both metrics, proven to be no worse."""
    return reading(Verdict.PASS), reading(Verdict.PASS, "cost", **changes)


def breach(release_id: str, signal: Signal = Signal.ERROR) -> Breach:
    """A hard limit that a release broke."""
    return Breach(release_id=release_id, signal=signal, bad=8, answers=10, at_most=0.5, window_seconds=60)


def standing(step: int = 1, **changes: Any) -> DeploymentState:
    """A canary beside production, and a release to go back to."""
    given: dict[str, Any] = {
        "product": "assistant",
        "epoch": 5,
        "canary_step": step,
        "slots": {SlotName.PRODUCTION: PRODUCTION, SlotName.CANARY: CANARY},
        "exposure": STEPS.steps[step - 1],
        "last_good": LAST,
        "releases": {PRODUCTION: ReleaseState.PRODUCTION, CANARY: ReleaseState.CANARY, LAST: ReleaseState.SUPERSEDED},
    }
    return DeploymentState(**given | changes)


ALONE = {"slots": {SlotName.PRODUCTION: PRODUCTION}, "canary_step": 0, "exposure": 0.0}
GOOD = Past(
    step_minutes=31, users={Cohort.PRODUCTION: 90, Cohort.CANARY: 30}, since_move=31, moves_today=1, signed_off=False
)
FINE = Findings(readings=passing())
UNSURE = Findings(readings=(reading(Verdict.INCONCLUSIVE), reading(Verdict.PASS, "cost")))
HARMFUL = Findings(readings=(reading(Verdict.FAIL), reading(Verdict.PASS, "cost")))
ALONE_BAD = Findings(alone=(reading(Verdict.FAIL, canary=None),))
