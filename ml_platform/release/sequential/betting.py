"""By how much is the canary's mean above production's, users being assigned at random: bounds that hold at all looks.

A user of exposure p with x in [0, 1], assigned to the canary (c = 1) or not (c = 0), gives g = (x - m)(c - p), whose
expectation is p (1 - p) times the effect for any centre m that was fixed before. So nothing needs to be known of how x
varies with time, and an exposure that is raised meanwhile does not disguise an effect as a change of the weather.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import brentq

from ml_platform.release.sequential.rates import Floats, log_mean_exp

BETS: Floats = 0.95 * 0.5 ** np.arange(8.0)
"""Shares of the largest bet that can never lose everything; the capital is the mean over them."""
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Users:
    """How many users there are of each kind: arrays of one length, a user counted once.

    `x` is in [0, 1], `canary` 1.0 for that arm and 0.0 for production, `exposure` p in (0, 1) when x was seen.
    """

    x: Floats
    canary: Floats
    exposure: Floats
    count: Floats

    @property
    def swapped(self) -> "Users":
        """The same with the arms' names exchanged: the effect changes its sign."""
        return Users(self.x, 1.0 - self.canary, 1.0 - self.exposure, self.count)


@dataclass(frozen=True)
class Bettor:
    """Bets against effects of `effect` and more: the capital grows where the effect is smaller.

    K(t) = mean over bets l and centres m of prod_i (1 + l s_i (t p_i (1 - p_i) - (x_i - m)(c_i - p_i))), where s_i is
    the largest bet that cannot lose everything: 1 / max((1 - p)(1 - m + p), p (1 + m - p)), known before x. For an
    effect of t or more each factor has an expectation of at most 1, so by Ville's inequality the chance that K(t) ever
    reaches 1/level is at most the level. Bets are fixed, so that the order of arrival does not matter. Sources:
    Waudby-Smith & Ramdas 2020, arXiv 2010.09686, theorem 3 and section 4.4 (a grid of bets); for effects of randomized
    treatments Waudby-Smith et al. 2022, arXiv 2210.10768.
    """

    users: Users
    centres: tuple[float, ...]

    @cached_property
    def _terms(self) -> tuple[Floats, Floats]:
        """What the bets make of each kind of user: the constant term, and the one that goes with the effect."""
        users, centre = self.users, np.asarray(self.centres)[:, None, None]
        p = users.exposure
        largest = 1.0 / np.maximum((1.0 - p) * (1.0 - centre + p), p * (1.0 + centre - p))
        stakes = BETS[None, :, None] * largest
        return -stakes * (users.x - centre) * (users.canary - p), stakes * (p * (1.0 - p))

    def log_capital(self, effect: float) -> float:
        """The logarithm of K(effect): evidence that the effect is smaller, for an effect in [-1, 1]."""
        if not len(self.users.count):
            return 0.0
        constant, slope = self._terms
        logs = np.log1p(constant + effect * slope) @ self.users.count
        return log_mean_exp(logs)

    def upper(self, level: float) -> float:
        """The least effect that is refuted, and with it all above; 1 where none is."""
        target = -math.log(level)
        if self.log_capital(1.0) <= target:
            return 1.0
        if self.log_capital(-1.0) >= target:
            return -1.0
        return float(brentq(lambda effect: self.log_capital(effect) - target, -1.0, 1.0, xtol=_TOLERANCE))


def log_e_above(users: Users, effect: float, centres: tuple[float, ...]) -> float:
    """The logarithm of the evidence that the canary's mean is above production's by more than `effect`."""
    return Bettor(users.swapped, centres).log_capital(-effect)


def effect_bounds(users: Users, centres: tuple[float, ...], low: float, high: float) -> tuple[float, float]:
    """Bounds of the effect, canary minus production, each one-sided at its own level and at all looks at once."""
    return -Bettor(users.swapped, centres).upper(low), Bettor(users, centres).upper(high)
