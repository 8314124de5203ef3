"""What a canary waits for before it may go on: time, users, proof, a signature; pure."""

import math

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import MetricReading
from ml_platform.contracts.routing import Cohort
from ml_platform.release.situation import Situation

ARMS = (Cohort.PRODUCTION, Cohort.CANARY)


def cool_down(situation: Situation) -> list[str]:
    """The rest of the time in which nothing but a stop follows a move."""
    cool, since = situation.policy.moves.cool_down_minutes, situation.past.since_move
    if cool == 0:
        return []
    if since is None:
        return ["answers since the last move, with which its cool-down begins"]
    return [f"the cool-down after the last move: {cool - since:.0f} minutes more"] if since < cool else []


def step(situation: Situation) -> list[str]:
    """The rest of the present step: its minutes, and users in each arm."""
    waits, past, plan = [], situation.past, situation.plan.canary
    least = plan.min_minutes_per_step if plan else math.inf
    if past.step_minutes is None:
        waits.append("answers at this step, with which it begins")
    elif past.step_minutes < least:
        waits.append(f"the step: {least - past.step_minutes:.0f} minutes more")
    wanted = situation.policy.moves.min_users
    for arm in ARMS:
        if (found := past.users.get(arm, 0)) < wanted:
            waits.append(f"users of the {arm} at this step: {found} of {wanted}")
    return waits


def measurements(situation: Situation, *, last: bool) -> list[str]:
    """What measurements are not good enough for: at the last step every metric must be proven to be no worse.

    Before, nothing may be suspicious or unreadable: a canary goes on without proof, but never against doubt. Doubt
    begins at the square root of what stops it, so that one that is nearly stopped is not given more users.
    """
    found = {reading.metric: reading for reading in situation.findings.readings}
    waits = []
    for name in (metric.metric for metric in situation.policy.metrics):
        reading = found.get(name)
        if reading is None:
            waits.append(f"{name}: measurements")
        elif last and reading.verdict is not Verdict.PASS:
            waits.append(f"{name}: {_lacks(reading)}")
        elif reading.verdict is Verdict.ERROR:
            waits.append(f"{name}: {reading.reason}")
        elif _is_suspicious(reading):
            waits.append(f"{name}: more answers, to tell harm (evidence {reading.e_value:.1f}) from chance")
    return waits


def sign_off(situation: Situation) -> list[str]:
    """The signature that the promotion needs and lacks."""
    why = _why_signed(situation)
    if not why or situation.past.signed_off:
        return []
    return [f"an operator's signature, since {why}: `mlp sign-off {situation.state.product} --reason …`"]


def _why_signed(situation: Situation) -> str:
    asked = situation.policy.sign_off
    if asked.always:
        return "every promotion needs one"
    if asked.cost_rises_by is None:
        return ""
    costs = [one for one in situation.findings.readings if one.signal is Signal.COST_USD and one.kind == "mean"]
    if not costs:
        return "no metric tells whether the cost rises"
    rises = [_rise(one) for one in costs]
    if any(not math.isfinite(rise) for rise in rises):
        return "nobody can tell by how much the cost rises"
    worst = max(rises)
    return f"the mean cost rises by {worst:.0%}" if worst >= asked.cost_rises_by else ""


def _rise(cost: MetricReading) -> float:
    """By what share an answer costs more; NaN where it cannot be told."""
    before = cost.production.value if cost.production else None
    after = cost.canary.value if cost.canary else None
    if before is None or after is None or before < 0:
        return math.nan
    if before == 0:
        return math.inf if after > 0 else 0.0
    return after / before - 1.0


def _lacks(reading: MetricReading) -> str:
    """What a metric still waits for, and what it could see by now."""
    lacks = reading.waits_for or reading.reason
    if reading.smallest_visible is None:
        return lacks
    return f"{lacks} (the smallest harm that could be seen by now is {reading.smallest_visible:.3g})"


def _is_suspicious(reading: MetricReading) -> bool:
    if reading.e_value is None or reading.e_threshold is None:
        return False
    return reading.e_value >= math.sqrt(max(reading.e_threshold, 1.0))
