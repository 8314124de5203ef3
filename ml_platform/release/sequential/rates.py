"""Does something bad happen to the canary's users more often; how often does it happen in one arm.

Users are assigned to the canary by a salted hash, so with the exposure p at the moment when something bad first happens
to a user, that user is in the canary with probability p wherever the canary changes nothing. Whether bad things are
rare or many, whether they come in a brownout or while the exposure is being raised, is thereby conditioned out.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaln, xlog1py, xlogy

Floats = NDArray[np.float64]

ODDS_RATIOS: Floats = np.geomspace(1.25, 20.0, 12)
"""How much likelier than production the canary may make it."""
_BELIEVED = np.exp(-0.5 * (np.log(ODDS_RATIOS / 2.2) / 0.7) ** 2)
WEIGHTS: Floats = _BELIEVED / _BELIEVED.sum()
"""How much is bet on each: most on about twice as likely, since what is far more likely is soon proven in any case."""
PRIOR = 0.5
"""Both parameters of the beta distribution that bounds of a share are mixed over (Jeffreys)."""
_TOLERANCE = 1e-6
"""How far a bound that is solved for may be off, in relation to itself."""
_ENDS = (1e-300, math.nextafter(1.0, 0.0))
"""Between these a bound is looked for."""


@dataclass(frozen=True)
class Events:
    """To how many users something bad happened, by the exposure p in (0, 1) at that moment: arrays of one length.

    `production` and `canary` count users by the arm they were assigned to, each user once; they need not be whole.
    """

    exposure: Floats
    production: Floats
    canary: Floats

    @cached_property
    def log_e(self) -> float:
        """The logarithm of the evidence that the canary makes it likelier: an e-process against its not doing so.

        e = sum over odds ratios r of weight(r) prod_k r^(canary_k) / (1 - p_k + r p_k)^(production_k + canary_k).
        Where the canary does no harm, each factor has an expectation of at most 1, so by Ville's inequality the
        chance that e ever reaches 1/alpha is at most alpha, however often one looks. It depends on counts only: the
        order of arrival does not matter. Source: Lindon & Malek 2020, arXiv 2011.03567, section 3, for two arms,
        with the mixture over a grid instead of the Dirichlet distribution; Ville 1939.
        """
        if not len(self.exposure):
            return 0.0
        odds = ODDS_RATIOS[:, None]
        weights = 1.0 - self.exposure + odds * self.exposure
        logs = self.canary * np.log(odds) - (self.production + self.canary) * np.log(weights)
        return log_mean_exp(logs.sum(axis=1), WEIGHTS)

    def worse_by(self, rise: float, users: Floats) -> "Events":
        """What would be expected by now of a canary with this rise of the share among so many of its users.

        Without a rise the canary has production's events times the odds p / (1 - p) of being assigned to it.
        """
        usual = self.production * self.exposure / (1.0 - self.exposure)
        return Events(self.exposure, self.production, np.minimum(usual + rise * users, np.maximum(users, usual)))

    def smallest_visible(self, users: Floats, threshold: float) -> float | None:
        """The least rise of the share that could be proven by now, None where even the largest could not.

        `users` counts the canary's by exposure; `threshold` is the e-value that is proof.
        """
        target = math.log(threshold)
        if self.worse_by(1.0, users).log_e < target:
            return None
        if self.worse_by(0.0, users).log_e >= target:
            return 0.0
        return float(brentq(lambda rise: self.worse_by(rise, users).log_e - target, 0.0, 1.0, xtol=1e-5))


def log_e_misassigned(exposure: Floats, production: Floats, canary: Floats) -> float:
    """The logarithm of the evidence that users, each counted when first seen, are not in the arms by the exposure.

    The likelihood of the canary's share mixed over Beta(PRIOR, PRIOR), against the exposure itself, over all exposures:
    an e-process, which shows that answers of one arm are lost or counted twice, so that nothing else can be believed.
    Source: Lindon & Malek 2020, arXiv 2011.03567, section 3 (sample ratio mismatch).
    """
    return sum(
        log_mixture(ours, ours + theirs) - log_likelihood(ours, ours + theirs, p)
        for p, theirs, ours in zip(exposure.tolist(), production.tolist(), canary.tolist(), strict=True)
    )


def share_bounds(total: float, n: float, level: float) -> tuple[float, float]:
    """Bounds of the running mean of n values in [0, 1] with this total, which hold at all n at once.

    All m with B(s + a, n - s + a) / B(a, a) / (m^s (1 - m)^(n - s)) < 1 / level, s the total, a = PRIOR. Each m outside
    is refuted by a beta-binomial mixture, for whatever sequence of conditional means has the mean m: the logarithm of
    1 - m + m exp(l) is concave in m, and exp(l x) lies below its chord. (0, 1) where n is 0. Where totals are not
    whole, as those of costs, few values may refute nothing up to an end: then that is the bound.
    Source: Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
    propositions 2 and 7; Robbins 1970.
    """
    if n <= 0:
        return 0.0, 1.0
    target = log_mixture(total, n) + math.log(level)
    mean = min(total / n, _ENDS[1])

    def refuted(share: float) -> float:
        return target - log_likelihood(total, n, share)

    none_below, none_above = (refuted(end) <= 0.0 for end in _ENDS)
    lower = 0.0 if total <= 0 or none_below else brentq(refuted, _ENDS[0], mean, xtol=1e-9, rtol=_TOLERANCE)
    upper = 1.0 if total >= n or none_above else brentq(refuted, mean, _ENDS[1], xtol=1e-9, rtol=_TOLERANCE)
    # A solution may lie beyond the mean by its tolerance.
    return min(float(lower), mean), max(float(upper), mean)


def log_mixture(total: float, n: float) -> float:
    """The logarithm of the likelihood of a total of n, mixed over Beta(PRIOR, PRIOR)."""
    return float(betaln(total + PRIOR, n - total + PRIOR) - betaln(PRIOR, PRIOR))


def log_likelihood(total: float, n: float, share: float) -> float:
    """The logarithm of share^total (1 - share)^(n - total)."""
    return float(xlogy(total, share) + xlog1py(n - total, -share))


def log_mean_exp(logs: Floats, weights: Floats | None = None) -> float:
    """The logarithm of the mean of numbers given by their logarithms; weights sum to one."""
    weights = np.full(len(logs.ravel()), 1.0 / logs.size) if weights is None else weights
    logs, peak = logs.ravel(), float(logs.max())
    return peak if math.isinf(peak) else peak + math.log(float(np.exp(logs - peak) @ weights))
