"""Users by the arm that they were assigned to and the canary's share of users at that moment."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, order=True)
class Stratum:
    """Users that were assigned alike: the arm, and the canary's share of users at that moment."""

    canary: bool
    exposure: float


@dataclass(frozen=True)
class Strata:
    """One value a user: arrays with the number of the user's stratum, its value, and its draw in [0, 1).

    A draw depends on nothing but who the user is.
    """

    strata: tuple[Stratum, ...]
    number: Integers
    x: Floats
    draw: Floats

    @cached_property
    def canary(self) -> Floats:
        """For each stratum 1.0 for the canary, 0.0 for production."""
        return np.array([float(one.canary) for one in self.strata])

    @cached_property
    def exposure(self) -> Floats:
        """For each stratum the canary's share of users."""
        return np.array([one.exposure for one in self.strata], dtype=np.float64)

    @cached_property
    def exposures(self) -> Floats:
        """All exposures, ascending."""
        return np.unique(self.exposure)

    @property
    def ascending(self) -> "Strata":
        """The same users by their values, so that sums come out the same to the last bit, whoever arrived first."""
        order = np.argsort(self.x, kind="stable")
        return Strata(self.strata, self.number[order], self.x[order], self.draw[order])

    @property
    def in_canary(self) -> NDArray[np.bool_]:
        """For each user whether it was assigned to the canary."""
        return self.canary[self.number] > 0.0

    def of(self, canary: bool) -> Floats:
        """The values of one arm."""
        return self.x[self.in_canary == canary] if len(self.x) else self.x

    def sums(self, values: Floats) -> Floats:
        """For each stratum the sum of its users' values."""
        return np.bincount(self.number, weights=values, minlength=len(self.strata)).astype(np.float64)

    def by_exposure(self, values: Floats) -> tuple[Floats, Floats]:
        """Sums of production's and of the canary's values, for each of the exposures."""
        return self.arms(self.sums(values))

    def arms(self, sums: Floats) -> tuple[Floats, Floats]:
        """What there is of production and of the canary at each of the exposures, from what each stratum has."""
        places, n = np.searchsorted(self.exposures, self.exposure), len(self.exposures)
        production = np.bincount(places, weights=sums * (1.0 - self.canary), minlength=n)
        canary = np.bincount(places, weights=sums * self.canary, minlength=n)
        return production.astype(np.float64), canary.astype(np.float64)

    def effect(self, values: Floats) -> float | None:
        """The canary's mean minus production's, compared at each exposure; None where no exposure has both arms.

        An exposure p with n users weighs n p (1 - p), the inverse of the variance of its difference, about (overlap
        weights: Li, Morgan & Zaslavsky 2018).
        """
        found = self._compared(values)
        return None if found is None else float(np.average(found[1] - found[0], weights=found[2]))

    def levels(self, values: Floats) -> tuple[float, float] | None:
        """Production's mean and the canary's, each weighted as their effect is, which is their difference."""
        found = self._compared(values)
        if found is None:
            return None
        production, canary, weights = found
        return float(np.average(production, weights=weights)), float(np.average(canary, weights=weights))

    def _compared(self, values: Floats) -> tuple[Floats, Floats, Floats] | None:
        """Both arms' means at each exposure that has both, and how much each weighs."""
        users, sums = self.by_exposure(np.ones_like(values)), self.by_exposure(values)
        both = (users[0] > 0) & (users[1] > 0)
        if not both.any():
            return None
        p = self.exposures[both]
        production, canary = (sums[arm][both] / users[arm][both] for arm in (0, 1))
        return production, canary, (users[0] + users[1])[both] * p * (1.0 - p)

    def drawn(self, share: Floats) -> "Strata":
        """The users whose draw lies below the share of their stratum."""
        kept = self.draw < share[self.number]
        return Strata(self.strata, self.number[kept], self.x[kept], self.draw[kept])
