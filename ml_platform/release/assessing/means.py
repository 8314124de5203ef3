"""Means of numbers that are bounded by a ceiling, e.g. the cost of an answer."""

import numpy as np

from ml_platform.contracts.monitor_policy import MeanMetric
from ml_platform.contracts.monitoring import ArmReading, MetricReading
from ml_platform.release.assessing.compared import Comparison
from ml_platform.release.assessing.strata import Floats, Strata
from ml_platform.release.assessing.verdicts import Found, Levels, judge, judge_alone, users_needed
from ml_platform.release.sequential.betting import Users, effect_bounds, log_e_above
from ml_platform.release.sequential.rates import share_bounds

GRAINS = 512
"""Values are counted in so many parts of the ceiling; bounds are wider by one, which is all that this can cost."""


def mean_against(metric: MeanMetric, compared: Comparison, levels: Levels) -> MetricReading:
    """The canary against production, each user's first answer. Harm is a rise of more than the margin.

    A rise within it is a price that the policy allows to be paid, so it is no harm.
    """
    first = compared.first(metric.signal).ascending
    scaled = np.minimum(first.x / metric.ceiling, 1.0)
    arms = {canary: _arm(metric, compared, first, canary, levels.alpha) for canary in (False, True)}
    if levels_alike := first.levels(scaled * metric.ceiling):
        # Pooled, production's would be of the first steps, the canary's of the last: a rise would be the weather's.
        arms = {arm: arms[arm].model_copy(update={"value": levels_alike[arm]}) for arm in arms}
    canary, margin = arms[True], metric.margin / metric.ceiling
    users, centres, grain = _users(first, scaled), (0.0, min(1.0, metric.at_most / metric.ceiling) / 2.0), 1.0 / GRAINS
    low, high = effect_bounds(users, centres, levels.alpha, levels.beta)
    lower, upper = max(-1.0, low - grain) * metric.ceiling, min(1.0, high + grain) * metric.ceiling
    effect = first.effect(scaled * metric.ceiling)
    found = Found(
        production=arms[False],
        canary=canary,
        effect=effect,
        lower=lower,
        upper=upper,
        limit=metric.margin,
        harm=log_e_above(users, min(1.0, margin + grain), centres),
        smallest_visible=None if effect is None else metric.margin + max(0.0, effect - lower),
        high=_too_high(metric, canary),
        needed=None if effect is None else users_needed(canary.users, effect, upper, metric.margin),
        show=lambda value: f"{value:.4g}",
        show_effect=lambda rise: f"{rise:.3g}",
    )
    return judge(metric, compared, levels, found)


def mean_alone(metric: MeanMetric, production: Comparison, levels: Levels) -> MetricReading:
    """Production by itself."""
    arm = _arm(metric, production, production.first(metric.signal).ascending, False, levels.alpha)
    above = arm.lower is not None and arm.lower > metric.at_most
    below = arm.upper is not None and arm.upper <= metric.at_most
    return judge_alone(metric, production, levels, arm, (above, below), lambda value: f"{value:.4g}")


def _arm(metric: MeanMetric, compared: Comparison, first: Strata, canary: bool, level: float) -> ArmReading:
    values = np.minimum(first.of(canary), metric.ceiling)
    n = len(values)
    low, high = share_bounds(float(values.sum() / metric.ceiling), n, level)
    return ArmReading(
        users=n,
        answers=compared.answers(metric.signal, canary),
        value=float(values.mean()) if n else None,
        lower=low * metric.ceiling if n else None,
        upper=high * metric.ceiling if n else None,
    )


def _users(first: Strata, scaled: Floats) -> Users:
    """How many users of each stratum have a value of so many grains."""
    grains = np.rint(scaled * GRAINS).astype(np.int64)
    counts = np.bincount(first.number * (GRAINS + 1) + grains, minlength=0)
    kinds = np.flatnonzero(counts)
    strata, values = np.divmod(kinds, GRAINS + 1)
    return Users(values / GRAINS, first.canary[strata], first.exposure[strata], counts[kinds].astype(np.float64))


def _too_high(metric: MeanMetric, canary: ArmReading) -> str | None:
    if canary.lower is not None and canary.lower > metric.at_most:
        return f"a canary that is not above {metric.at_most:.4g}, the most that any release may have"
    return None
