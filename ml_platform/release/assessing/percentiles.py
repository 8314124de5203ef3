"""Quantiles of numbers, e.g. the 95th percentile of latency: the canary's may be so many times production's."""

import math

import numpy as np

from ml_platform.contracts.monitor_policy import QuantileMetric
from ml_platform.contracts.monitoring import ArmReading, MetricReading
from ml_platform.release.assessing.compared import Comparison
from ml_platform.release.assessing.strata import Floats, Strata
from ml_platform.release.assessing.verdicts import Found, Levels, judge, judge_alone
from ml_platform.release.sequential.quantiles import log_e_fewer, quantile_bounds, users_for_bound
from ml_platform.release.sequential.rates import Events, log_mean_exp

THRESHOLDS: Floats = 0.8 ** np.arange(22.0, -3.0, -1.0)
"""Where values are called slow, as parts of the policy's `at_most`, ascending: from 1/136 to one and a half."""
NEAR = 3
"""So many thresholds, from the first that production's values seldom exceed, tell of the quantile."""


def quantile_against(metric: QuantileMetric, compared: Comparison, levels: Levels) -> MetricReading:
    """The canary against production, each user's first answer.

    Bounds are those of both arms, each at half of the level, over as many users of either arm at each exposure: so both
    saw the same weather. Harm is proven by randomization, see `log_e_slower`.
    """
    first = compared.first(metric.signal)
    alike = balanced(first)
    sides = {canary: np.sort(alike.of(canary)) for canary in (False, True)}
    arms = {canary: _arm(metric, compared, sides[canary], canary, levels.alpha / 2.0) for canary in (False, True)}
    passing = {canary: quantile_bounds(sides[canary], metric.quantile, levels.beta / 2.0) for canary in (False, True)}
    effect = _ratio(arms[True].value, arms[False].value)
    lower = _ratio(arms[True].lower, arms[False].upper)
    limit = 1.0 + metric.margin
    found = Found(
        production=arms[False],
        canary=arms[True],
        effect=effect,
        lower=lower,
        upper=_ratio(passing[True][2], passing[False][1]),
        limit=limit,
        harm=log_e_slower(first, metric),
        smallest_visible=None if effect is None or not lower else limit * max(1.0, effect / lower),
        high=_too_high(metric, arms[True]),
        needed=_needed(metric, levels, arms[True].users),
        show=lambda value: f"{value:.4g}",
        show_effect=lambda ratio: f"{ratio:.2f} times",
    )
    return judge(metric, compared, levels, found)


def quantile_alone(metric: QuantileMetric, production: Comparison, levels: Levels) -> MetricReading:
    """Production by itself: how many values exceed `at_most` says it without estimating the quantile."""
    values = np.sort(production.first(metric.signal).of(canary=False))
    arm = _arm(metric, production, values, False, levels.alpha)
    n, below = len(values), int((values <= metric.at_most).sum())
    above = log_e_fewer(below, n, metric.quantile) >= -math.log(levels.alpha)
    under = log_e_fewer(n - below, n, 1.0 - metric.quantile) >= -math.log(levels.beta)
    return judge_alone(metric, production, levels, arm, (above, under), lambda value: f"{value:.4g}")


def balanced(first: Strata) -> Strata:
    """As many users of either arm at each exposure, about: of the larger arm those with the smallest draws.

    Where the canary changes nothing, both arms then are draws from one mixture of all moments. Pooled as they come,
    production has most of its users at the first step, the canary at the last: another weather, not another release.
    """
    odds = first.exposure / (1.0 - first.exposure)
    return first.drawn(np.minimum(1.0, np.where(first.canary > 0.0, 1.0 / odds, odds)))


def log_e_slower(first: Strata, metric: QuantileMetric) -> float:
    """The logarithm of the evidence that the canary is slower than `1 + margin` times production near the quantile.

    At a threshold t fixed before, a user of production is slow above t, one of the canary above (1 + margin) t. Where
    the canary is at most so much slower, slow users are in it with a probability of at most the exposure, so `Events`
    gives an e-process; the mean over all thresholds is one, too, and what is left out of it can only make it smaller:
    thresholds that production exceeds more often than twice as often as the quantile says, and those far above.
    """
    slow = _slow(first, THRESHOLDS * metric.at_most, 1.0 + metric.margin)
    production = first.canary == 0.0
    seldom = (
        slow[production].sum(axis=0)
        <= 2.0 * (1.0 - metric.quantile) * first.sums(np.ones_like(first.x))[production].sum()
    )
    if not seldom.any():
        return -math.inf
    start = int(np.argmax(seldom))
    near = range(start, min(start + NEAR, len(THRESHOLDS)))
    logs = [Events(first.exposures, *first.arms(slow[:, place])).log_e for place in near]
    return log_mean_exp(np.array(logs + [-math.inf] * (len(THRESHOLDS) - len(logs))))


def _slow(first: Strata, thresholds: Floats, allowed: float) -> Floats:
    """How many users of each stratum exceed each threshold, the canary's after a division by what is allowed."""
    if not len(first.x):
        return np.zeros((len(first.strata), len(thresholds)))
    passed = np.searchsorted(thresholds, np.where(first.in_canary, first.x / allowed, first.x), side="left")
    size = len(thresholds) + 1
    counts = np.bincount(first.number * size + passed, minlength=len(first.strata) * size).reshape(-1, size)
    return counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:].astype(np.float64)


def _arm(metric: QuantileMetric, compared: Comparison, ordered: Floats, canary: bool, level: float) -> ArmReading:
    value, low, high = quantile_bounds(ordered, metric.quantile, level)
    answers = compared.answers(metric.signal, canary)
    return ArmReading(users=len(ordered), answers=answers, value=value, lower=low, upper=high)


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below


def _needed(metric: QuantileMetric, levels: Levels, users: int) -> int | None:
    """Users of the canary until its quantile has an upper bound; half as many again where that alone is not enough."""
    least = users_for_bound(metric.quantile, levels.beta / 2.0)
    return least if users < least else math.ceil(1.5 * users)


def _too_high(metric: QuantileMetric, canary: ArmReading) -> str | None:
    if canary.lower is not None and canary.lower > metric.at_most:
        return f"a canary that is not above {metric.at_most:.4g}, the most that any release may have"
    return None
