"""Rates: the share of users to whom something bad happens."""

import numpy as np

from ml_platform.contracts.monitor_policy import RateMetric
from ml_platform.contracts.monitoring import ArmReading, MetricReading
from ml_platform.release.assessing.compared import Comparison
from ml_platform.release.assessing.strata import Floats, Strata
from ml_platform.release.assessing.verdicts import Found, Levels, judge, judge_alone, users_needed
from ml_platform.release.sequential.betting import Users, effect_bounds, log_e_above
from ml_platform.release.sequential.rates import Events, log_mean_exp, share_bounds


def rate_against(metric: RateMetric, compared: Comparison, levels: Levels) -> MetricReading:
    """The canary against production.

    Harm is counted by the first bad answer of each user, the effect by the first answer of each that shows the signal.
    The mean of e-processes is one, so three share what is believed: in what is rare, in what is rare outside of
    outages, which are a thousand bets that are lost, and in the effect. Where it happens to every second user, it says
    more of the canary to how many it does not happen than to how many it does.
    """
    first = compared.first(metric.signal)
    bad = first.sums(first.x)
    arms = {canary: _arm(metric, compared, first, canary, levels.alpha) for canary in (False, True)}
    canary = arms[True]
    centres = (0.0, metric.at_most / 2.0)
    users_seen = _users(first, bad)
    lower, upper = effect_bounds(users_seen, centres, levels.alpha, levels.beta)
    effect = first.effect(first.x)
    happened, in_calm = (_events(compared.first_bad(metric.signal, calm=calm)) for calm in (None, metric.at_most))
    _, users = first.by_exposure(np.ones_like(first.x))
    found = Found(
        production=arms[False],
        canary=canary,
        effect=effect,
        lower=lower,
        upper=upper,
        limit=metric.margin,
        harm=log_mean_exp(np.array([happened.log_e, in_calm.log_e, log_e_above(users_seen, 0.0, centres)])),
        smallest_visible=happened.smallest_visible(users, levels.threshold),
        high=_too_high(metric, canary),
        needed=None if effect is None else users_needed(canary.users, effect, upper, metric.margin),
        show=lambda share: f"{share:.1%}",
        show_effect=lambda rise: f"{100.0 * rise:.1f} points",
    )
    return judge(metric, compared, levels, found)


def rate_alone(metric: RateMetric, production: Comparison, levels: Levels) -> MetricReading:
    """Production by itself."""
    arm = _arm(metric, production, production.first(metric.signal), False, levels.alpha)
    above = arm.lower is not None and arm.lower > metric.at_most
    below = arm.upper is not None and arm.upper <= metric.at_most
    return judge_alone(metric, production, levels, arm, (above, below), lambda share: f"{share:.1%}")


def _arm(metric: RateMetric, compared: Comparison, first: Strata, canary: bool, level: float) -> ArmReading:
    values = first.of(canary)
    n = len(values)
    low, high = share_bounds(float(values.sum()), n, level)
    return ArmReading(
        users=n,
        answers=compared.answers(metric.signal, canary),
        value=float(values.mean()) if n else None,
        lower=low if n else None,
        upper=high if n else None,
        coverage=compared.coverage(canary) if metric.signal.labelled else None,
    )


def _events(first_bad: Strata) -> Events:
    return Events(first_bad.exposures, *first_bad.by_exposure(np.ones_like(first_bad.x)))


def _users(first: Strata, bad: Floats) -> Users:
    """Each stratum's users to whom it happened, and those to whom it did not."""
    good = first.sums(np.ones_like(first.x)) - bad
    ones, canary, exposure = np.ones_like(bad), first.canary, first.exposure
    return Users(
        np.concatenate([ones, 0.0 * ones]), np.tile(canary, 2), np.tile(exposure, 2), np.concatenate([bad, good])
    )


def _too_high(metric: RateMetric, canary: ArmReading) -> str | None:
    if canary.value == 1.0:
        return "a user of the canary to whom it does not happen"
    if canary.lower is not None and canary.lower > metric.at_most:
        return f"a canary that is not above {metric.at_most:.1%}, the most that any release may have"
    return None
