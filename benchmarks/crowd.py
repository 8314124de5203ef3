"""Users who ask, for simulations of a rollout: each with habits of its own, assigned by a fixed draw, in arrays."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ml_platform.contracts.monitor_policy import Signal
from ml_platform.release.assessing.compared import Comparison, misassigned
from ml_platform.release.assessing.strata import Strata, Stratum

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
NOBODY = -1
CALM = 0.2
"""The policy's `at_most` of errors: where production has more, both arms suffer."""
BEGIN = datetime(2013, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """What is true of a rollout: rates of an answer, what an outage adds to them, and what the canary does to them.

    `late` is the share of answers whose flight is late, so that a warning can be missed. A label comes for nine of
    ten answers once it is `label_minutes` old. `outage` is the rate of errors that all suffer for five minutes.
    """

    errors: float = 0.05
    dislikes: float = 0.05
    late: float = 0.3
    missed: float = 0.2
    latency_ms: float = 2_000.0
    outage: float = 0.4
    outage_minutes: int = 5
    times_errors: float = 1.0
    more_missed: float = 0.0
    per_minute: int = 600
    answers_per_user: float = 3.0
    label_minutes: int = 10_000


@dataclass
class First:
    """Of each user the first answer of a kind."""

    x: Floats
    stratum: NDArray[np.int64]

    @classmethod
    def of(cls, users: int) -> "First":
        """Of so many users, none yet."""
        return cls(np.zeros(users), np.full(users, NOBODY))

    def offer(self, users: NDArray[np.int64], x: Floats, strata: NDArray[np.int64]) -> None:
        """Takes answers in the order in which they were given."""
        named, places = np.unique(users, return_index=True)
        fresh = self.stratum[named] == NOBODY
        self.x[named[fresh]] = x[places[fresh]]
        self.stratum[named[fresh]] = strata[places[fresh]]


@dataclass
class Answers:
    """Some minutes of answers, one a row."""

    users: NDArray[np.int64]
    strata: NDArray[np.int64]
    canary: Bools
    late: Bools
    missed: Bools
    labelled: Bools


@dataclass
class Window:
    """Users with a bad answer and all users of production and of the canary since the last look.

    `canary_answers` counts answers instead: bad ones and all.
    """

    production: tuple[int, int] = (0, 0)
    canary: tuple[int, int] = (0, 0)
    canary_answers: tuple[int, int] = (0, 0)


class Crowd(Comparison):
    """Users of a rollout, folded in arrays instead of one by one, with all that readings ask a Comparison for."""

    def __init__(self, world: World, minutes: int, rng: np.random.Generator, *, outage: bool) -> None:
        super().__init__()
        self.world, self._rng = world, rng
        self._size = max(1, int(world.per_minute * minutes / world.answers_per_user))
        # Habits: some users meet errors three times as often as others, and some flights are always misjudged.
        self._draw, self._other_draw = rng.random(self._size), rng.random(self._size)
        self._error_prone = rng.gamma(1.0, 1.0, self._size)
        share = world.missed / 0.9
        self._misjudged = 0.9 * rng.beta(4 * share, 4 * (1 - share), self._size)
        signals = (Signal.ERROR, Signal.DISLIKED, Signal.MISSED, Signal.LATENCY_MS)
        self._first = {signal: First.of(self._size) for signal in signals}
        self._first_bad = {signal: First.of(self._size) for signal in signals}
        self._bad_in_calm, self._was_wild = First.of(self._size), False
        self._arm = First.of(self._size)
        self._places: dict[Stratum, int] = {}
        self._waiting: deque[tuple[int, Answers]] = deque()
        self._outage = int(rng.integers(0, max(1, minutes))) if outage else None
        self._counts: dict[bool, list[int]] = {False: [0, 0], True: [0, 0]}
        self.minute, self.window = 0, Window()
        self.seen = {False: np.zeros(2), True: np.zeros(2)}

    def pass_minutes(self, minutes: int, exposure: float) -> None:
        """Users ask for so many minutes at one exposure; labels that matured meanwhile count."""
        world, rng, n = self.world, self._rng, self.world.per_minute * minutes
        users = rng.integers(0, self._size, n)
        canary = self._draw[users] < exposure
        numbers = [self._places.setdefault(Stratum(arm, exposure), len(self._places)) for arm in (False, True)]
        strata = np.where(canary, numbers[1], numbers[0])
        minute = self.minute + np.arange(n) * minutes // n
        out = np.zeros(n, dtype=bool)
        if self._outage is not None:
            out = (minute >= self._outage) & (minute < self._outage + world.outage_minutes)
        rate = world.errors * np.where(canary, world.times_errors, 1.0) * self._error_prone[users]
        errors = rng.random(n) < np.maximum(rate, np.where(out, world.outage, 0.0))
        self._arm.offer(users, np.zeros(n), strata)
        self._event(Signal.ERROR, users, errors, strata)
        span, spans = np.arange(n) * 3 * minutes // n, 3 * minutes
        asked = np.bincount(span, minlength=spans)
        bad = np.bincount(span, weights=errors & ~canary, minlength=spans) > CALM * (1.0 - exposure) * asked
        wild = np.concatenate([[self._was_wild], bad[:-1]])
        self._was_wild = bool(bad[-1])
        self._bad_in_calm.offer(users[errors], 1.0 - wild[span[errors]], strata[errors])
        self._event(Signal.DISLIKED, users, rng.random(n) < world.dislikes, strata)
        latency = rng.lognormal(np.log(world.latency_ms), 0.4, n) * np.where(out, 3.0, 1.0)
        self._first[Signal.LATENCY_MS].offer(users, latency, strata)
        late = rng.random(n) < world.late
        missed = rng.random(n) < self._misjudged[users] + world.more_missed * canary
        answers = Answers(users, strata, canary, late, missed, rng.random(n) < 0.9)
        self.minute += minutes
        self._waiting.append((self.minute + world.label_minutes, answers))
        self._mature_labels()
        counts = [(int(errors[canary == arm].sum()), int((canary == arm).sum())) for arm in (False, True)]
        affected = [_users_of(errors[canary == arm], users[canary == arm]) for arm in (False, True)]
        self.window = Window(*affected, canary_answers=counts[True])
        for arm, found in zip((False, True), counts, strict=True):
            self.seen[arm] += found

    def _mature_labels(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.minute:
            _, old = self._waiting.popleft()
            known = old.late & old.labelled
            self._event(Signal.MISSED, old.users[known], old.missed[known], old.strata[known])
            for arm in (False, True):
                self._counts[arm][0] += int((old.canary == arm).sum())
                self._counts[arm][1] += int((old.labelled & (old.canary == arm)).sum())

    def _event(self, signal: Signal, users: NDArray[np.int64], happened: Bools, strata: NDArray[np.int64]) -> None:
        self._first[signal].offer(users, happened.astype(np.float64), strata)
        self._first_bad[signal].offer(users[happened], np.ones(int(happened.sum())), strata[happened])

    def users_in(self, canary: bool) -> int:
        """How many users were first seen in an arm."""
        return len(self._strata_of(self._arm).of(canary))

    def misassigned(self) -> str | None:
        """As of a Comparison."""
        return misassigned(self._strata_of(self._arm))

    def first(self, signal: Signal) -> Strata:
        """Each user's first answer that shows a signal."""
        return self._strata_of(self._first[signal])

    def first_bad(self, signal: Signal, *, calm: float | None = None) -> Strata:
        """Each user's first bad answer; only errors are ever wild."""
        first = self._first_bad[signal]
        if signal is Signal.ERROR and calm is not None:
            first = First(first.x, np.where(self._bad_in_calm.x > 0.0, first.stratum, NOBODY))
        return self._strata_of(first)

    def answers(self, signal: Signal, canary: bool) -> int:  # noqa: ARG002 - the same for all of them
        """How many answers an arm gave."""
        return int(self.seen[canary][1])

    def unreadable(self, signal: Signal) -> int:  # noqa: ARG002
        """None."""
        return 0

    def coverage(self, canary: bool) -> float | None:
        """The share of an arm's mature answers that have a label."""
        mature, labelled = self._counts[canary]
        return labelled / mature if mature else None

    def _strata_of(self, first: First) -> Strata:
        there = np.flatnonzero(first.stratum != NOBODY)
        return Strata(tuple(self._places), first.stratum[there], first.x[there], self._other_draw[there])


def _users_of(bad: Bools, users: NDArray[np.int64]) -> tuple[int, int]:
    return len(np.unique(users[bad])), len(np.unique(users))
