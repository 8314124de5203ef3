"""From what the data of one metric show to its verdict, with the sentences that tell why and what it waits for."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Metric, MonitorPolicy
from ml_platform.contracts.monitoring import ArmReading, MetricReading
from ml_platform.release.assessing.compared import Comparison

LARGEST_LOG = 700.0
"""An e-value beyond exp(700) is reported as that: a float holds no more."""


@dataclass(frozen=True)
class Levels:
    """The chances of error that one metric may spend over all looks: of a false alarm, and of a false pass."""

    alpha: float
    beta: float
    min_coverage: float
    label_age_hours: float

    @classmethod
    def of(cls, policy: MonitorPolicy) -> "Levels":
        """A policy's, for each of its metrics.

        `alpha` is split, since any metric stops a release. `beta` is not: promotion needs all of them to pass, so a
        release that is worse by a margin is let through only where that one metric errs (intersection-union test:
        Berger 1982, "Multiparameter hypothesis testing and acceptance sampling").
        """
        alpha = policy.alpha / len(policy.metrics)
        return cls(alpha, policy.beta, policy.min_coverage, policy.label_age_hours)

    @property
    def threshold(self) -> float:
        """The e-value that is proof of harm."""
        return 1.0 / self.alpha


@dataclass(frozen=True)
class Found:
    """What the data show of one metric, before they are judged.

    `show` words a value of the metric, `show_effect` an effect. `harm` is the logarithm of the evidence of harm.
    `high` tells why the canary may not pass whatever production does, None where nothing speaks against it.
    `needed` says how many users of the canary the bound of the effect is likely to take, None where nobody can say.
    """

    production: ArmReading
    canary: ArmReading
    effect: float | None
    lower: float | None
    upper: float | None
    limit: float
    harm: float
    smallest_visible: float | None
    high: str | None
    needed: int | None
    show: Callable[[float], str]
    show_effect: Callable[[float], str]


def judge(metric: Metric, compared: Comparison, levels: Levels, found: Found) -> MetricReading:
    """FAIL where harm is proven; ERROR where arms or values are none; PASS where the effect is inside the margin.

    Proven harm stops, however small: the margin is how much may remain unproven. Whatever lacks is INCONCLUSIVE.
    """
    verdict, reason, waits_for = _verdict(metric, compared, levels, found)
    return MetricReading(
        metric=metric.metric,
        kind=metric.kind,
        signal=metric.signal,
        verdict=verdict,
        reason=reason,
        production=found.production,
        canary=found.canary,
        effect=found.effect,
        effect_lower=found.lower,
        effect_upper=found.upper,
        limit=found.limit,
        e_value=math.exp(min(found.harm, LARGEST_LOG)),
        e_threshold=levels.threshold,
        smallest_visible=found.smallest_visible,
        waits_for=waits_for,
    )


def _verdict(metric: Metric, compared: Comparison, levels: Levels, found: Found) -> tuple[Verdict, str, str | None]:
    what = _what_is_seen(found)
    if misassigned := compared.misassigned():
        words = f"the arms cannot be compared, there are {misassigned}: answers are missing or came twice"
        return (
            Verdict.ERROR,
            f"{words[0].upper()}{words[1:]}.",
            "all answers of both arms: open the rollout anew once they come",
        )
    uncovered = _uncovered(metric, levels, found.production, found.canary)
    if found.harm >= -math.log(levels.alpha) and not uncovered:
        evidence = math.exp(min(found.harm, LARGEST_LOG))
        proof = f"the evidence of harm reached {evidence:.3g}, and {levels.threshold:.3g} prove it"
        return Verdict.FAIL, f"{what}: {proof}.", None
    if unreadable := compared.unreadable(metric.signal):
        words = f"{unreadable:,} answer(s) have a value of '{metric.signal}' that is none, so nothing passes"
        return (
            Verdict.ERROR,
            f"{words[0].upper()}{words[1:]}.",
            "answers that can be read: open the rollout anew once they can",
        )
    lacking = _lacking(metric, found) or uncovered or found.high
    if lacking:
        return Verdict.INCONCLUSIVE, f"{what}: {lacking}.", lacking
    if found.upper is not None and found.upper < found.limit:
        inside = f"at most {found.show_effect(found.upper)} worse, inside the margin {found.show_effect(found.limit)}"
        return Verdict.PASS, f"{what}: {inside}.", None
    at_most = "any effect is" if found.upper is None else f"up to {found.show_effect(found.upper)} worse is"
    words = f"{at_most} possible, the margin is {found.show_effect(found.limit)}"
    return Verdict.INCONCLUSIVE, f"{what}: {words}.", _more_users(found)


def _what_is_seen(found: Found) -> str:
    arms = (("the canary", found.canary), ("production", found.production))
    told = [
        f"{'nothing' if arm.value is None else found.show(arm.value)} in {name} ({arm.users:,} users)"
        for name, arm in arms
    ]
    return ", ".join(told)


def _lacking(metric: Metric, found: Found) -> str | None:
    empty = [name for name, arm in (("canary", found.canary), ("production", found.production)) if not arm.users]
    if not empty:
        return None
    kind = "labels that are mature" if metric.signal.labelled else "answers that show it"
    return f"users of the {' and of '.join(empty)} with {kind}"


def _uncovered(metric: Metric, levels: Levels, *arms: ArmReading) -> str | None:
    """What labels are missing, in an arm that has mature answers; None where enough of them have one."""
    if not metric.signal.labelled:
        return None
    low = min((arm.coverage for arm in arms if arm.coverage is not None), default=0.0)
    if low >= levels.min_coverage:
        return None
    asked = f"labels for {levels.min_coverage:.0%} of the answers older than {levels.label_age_hours:g} h"
    return f"{asked}, {low:.0%} have one"


def _more_users(found: Found) -> str:
    if found.needed is None:
        return "more users, or an effect further inside the margin: at the one seen, no number of users would prove it"
    more = max(1, found.needed - found.canary.users)
    return f"about {more:,} more users in the canary"


def users_needed(users: int, effect: float, upper: float, limit: float) -> int | None:
    """About how many users it takes until the bound lies inside the margin: its distance shrinks with their root."""
    if effect >= limit or not users:
        return None
    return math.ceil(users * max(1.0, (upper - effect) / (limit - effect)) ** 2)


def judge_alone(
    metric: Metric,
    production: Comparison,
    levels: Levels,
    arm: ArmReading,
    proven: tuple[bool, bool],
    show: Callable[[float], str],
) -> MetricReading:
    """Production against `at_most`: FAIL where it is proven to be above, PASS where it is proven not to be.

    `proven` says of both, in this order.
    """
    what = f"{'nothing' if arm.value is None else show(arm.value)} ({arm.users:,} users)"
    most = f"at most {show(metric.at_most)} is allowed"
    uncovered = _uncovered(metric, levels, arm)
    above, below = proven
    waits_for = None
    if above and not uncovered:
        verdict, words = Verdict.FAIL, f"{most}, and it is proven to be above"
    elif unreadable := production.unreadable(metric.signal):
        verdict, words = Verdict.ERROR, f"{unreadable:,} answer(s) have a value that is none"
    elif not arm.users or uncovered:
        verdict, words = Verdict.INCONCLUSIVE, uncovered or "nobody was seen yet"
        waits_for = uncovered or "users of production"
    elif below:
        verdict, words = Verdict.PASS, f"{most}, and it is proven to be below"
    else:
        verdict, words = Verdict.INCONCLUSIVE, f"{most}, and neither is proven"
        waits_for = "more users of production"
    return MetricReading(
        metric=metric.metric,
        kind=metric.kind,
        signal=metric.signal,
        verdict=verdict,
        reason=f"{what}: {words}.",
        production=arm,
        canary=None,
        effect=None,
        effect_lower=None,
        effect_upper=None,
        limit=metric.at_most,
        waits_for=waits_for,
    )
