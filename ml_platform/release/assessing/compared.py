"""Answers folded user by user, whatever the order in which they arrive and however often."""

import hashlib
import math
import zlib
from array import array
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import Seen
from ml_platform.release.assessing.strata import Strata, Stratum
from ml_platform.release.sequential.rates import log_e_misassigned

MISASSIGNED = 1e-4
"""The chance that users who are assigned by chance are ever called not to be."""
SPAN_S = 20.0
FEWEST_IN_A_SPAN = 20
"""An outage shows within so many seconds; of fewer answers, a large share of bad ones is chance."""
_NOBODY = -1
_MATURE, _LABELLED = 1, 2
_PLACES = {signal: place for place, signal in enumerate(Signal)}


class FirstAnswers:
    """Of each user the first answer of a kind: when, its value, its stratum. Ties go by the response.

    First in our own time: the product's stands still between two publications of features, exposures do not.
    """

    def __init__(self) -> None:
        self._at, self._tie = array("d"), array("L")
        self._x, self._stratum = array("d"), array("h")

    def offer(self, user: int, at: float, tie: int, x: float, stratum: int) -> None:
        """Takes an answer of the user numbered `user` where none came first; of the same one the larger value."""
        while len(self._at) <= user:
            self._at.append(math.inf)
            self._tie.append(0)
            self._x.append(0.0)
            self._stratum.append(_NOBODY)
        held = self._at[user]
        if at > held:
            return
        if at < held or tie < self._tie[user]:
            self._at[user], self._tie[user], self._x[user], self._stratum[user] = at, tie, x, stratum
        elif tie == self._tie[user]:
            self._x[user] = max(x, self._x[user])

    def strata(self, strata: dict[Stratum, int], draws: NDArray[np.float64]) -> Strata:
        """The users who have such an answer, as they are now."""
        numbers = np.array(self._stratum, dtype=np.int64)
        there = np.flatnonzero(numbers != _NOBODY)
        return _in_order(strata, numbers[there], np.array(self._x, dtype=np.float64)[there], draws[there])


class BadAnswers:
    """All bad answers; and in short spans of time how many answers there were, and how many of production were bad."""

    def __init__(self) -> None:
        self._user, self._at = array("l"), array("d")
        self._tie, self._stratum = array("L"), array("h")
        self._asked: dict[int, Counter[float]] = {}
        self._bad: Counter[int] = Counter()
        self._wild: dict[float, set[int]] = {}
        self._changed: dict[float, set[int]] = {}

    def ask(self, at: float, stratum: Stratum) -> None:
        """Counts an answer."""
        span = int(at // SPAN_S)
        self._asked.setdefault(span, Counter())[stratum.exposure] += 1
        for changed in self._changed.values():
            changed.add(span)

    def append(self, user: int, at: float, tie: int, number: int, stratum: Stratum) -> None:
        """Takes a bad answer, which was counted as one; `number` is that of its stratum."""
        self._user.append(user)
        self._at.append(at)
        self._tie.append(tie)
        self._stratum.append(number)
        span = int(at // SPAN_S)
        self._bad[span] += not stratum.canary
        for changed in self._changed.values():
            changed.add(span)

    def firsts(self, strata: dict[Stratum, int], draws: NDArray[np.float64], calm: float | None) -> Strata:
        """Each user's first bad answer; `calm` leaves out users whose came in the span after one that was wilder.

        Their later ones are left out as well: of production's users the first makes the next span wild, of the
        canary's it does not, so whether the second counted would depend on the arm.
        """
        user, at = np.array(self._user, dtype=np.int64), np.array(self._at, dtype=np.float64)
        tie, number = np.array(self._tie, dtype=np.uint64), np.array(self._stratum, dtype=np.int64)
        order = np.lexsort((tie, at))
        _, places = np.unique(user[order], return_index=True)
        first = order[places]
        if calm is not None:
            first = first[~np.isin(at[first] // SPAN_S, [span + 1 for span in sorted(self._wilder_than(calm))])]
        return _in_order(strata, number[first], np.ones(len(first)), draws[user[first]])

    def _wilder_than(self, calm: float) -> set[int]:
        """All such spans; of those that were told before, only what changed is told again."""
        wild, changed = self._wild.setdefault(calm, set()), self._changed.get(calm, self._asked.keys())
        for span in changed:
            (wild.add if self._is_wild(span, calm) else wild.discard)(span)
        self._changed[calm] = set()
        return wild

    def _is_wild(self, span: int, calm: float) -> bool:
        """Whether production had so many bad answers in a span, of as many as it is expected to give by its share.

        It says nothing of the arms of users whose first bad answer comes in the next span, so that leaving these out
        is fair; and it does not depend on the canary, which can neither hide nor show itself by it.
        """
        asked = self._asked.get(span, Counter())
        expected = sum((1.0 - exposure) * asked[exposure] for exposure in sorted(asked))
        return asked.total() >= FEWEST_IN_A_SPAN and self._bad[span] > calm * expected


def _in_order(
    strata: dict[Stratum, int], number: NDArray[np.int64], x: NDArray[np.float64], draw: NDArray[np.float64]
) -> Strata:
    """With the strata in an order that does not depend on arrival."""
    ordered = sorted(strata)
    places = np.zeros(len(ordered), dtype=np.int64)
    places[[strata[one] for one in ordered]] = np.arange(len(ordered))
    return Strata(tuple(ordered), places[number], x, draw)


class SignalTally:
    """One signal: each user's first answer that shows it, the bad ones, and how many answers there are by arm.

    `unreadable` counts answers whose value is none: not a number, below zero, or neither 0 nor 1 for an event.
    """

    def __init__(self, signal: Signal) -> None:
        self._event = signal.bad_event
        self._was_none, self._was_counted, self._was_bad = (1 << 2 + 3 * _PLACES[signal] + bit for bit in range(3))
        self.first, self.bad = FirstAnswers(), BadAnswers()
        self.answers: Counter[bool] = Counter()
        self.unreadable = 0

    def fold(self, known: int, value: float, user: int, at: float, tie: int, number: int, stratum: Stratum) -> int:
        """Takes the value of an answer, of which `known` says what was counted before; what is counted now."""
        if not (value in (0.0, 1.0) if self._event else 0.0 <= value < math.inf):
            self.unreadable += not known & self._was_none
            return known | self._was_none
        self.first.offer(user, at, tie, value, number)
        if not known & self._was_counted:
            self.answers[stratum.canary] += 1
            if self._event:
                self.bad.ask(at, stratum)
        if self._event and value and not known & self._was_bad:
            self.bad.append(user, at, tie, number, stratum)
            known |= self._was_bad
        return known | self._was_counted


class Comparison:
    """Answers that are compared, by signal; users by a number, and by another that only depends on who they are."""

    def __init__(self) -> None:
        self._strata: dict[Stratum, int] = {}
        self._signals: dict[Signal, SignalTally] = {}
        self._users: dict[str, int] = {}
        self._draws = array("d")
        self._arms = FirstAnswers()
        self._mature: Counter[bool] = Counter()
        self._labelled: Counter[bool] = Counter()
        self._known: dict[str, int] = {}

    def add(self, seen: Seen, stratum: Stratum) -> None:
        """Folds one answer in; one that came before only adds what was not known of it."""
        number = self._strata.setdefault(stratum, len(self._strata))
        user = self._user(seen.user)
        at, tie = seen.answered_at.timestamp(), zlib.crc32(seen.response_id.encode("utf-8", "surrogatepass"))
        self._arms.offer(user, at, tie, 0.0, number)
        known = self._known.get(seen.response_id, 0)
        if seen.mature and not known & _MATURE:
            self._mature[stratum.canary] += 1
            known |= _MATURE
        if seen.mature and seen.labelled and not known & _LABELLED:
            self._labelled[stratum.canary] += 1
            known |= _LABELLED
        for signal, value in seen.signals.items():
            tally = self._signals.get(signal)
            if tally is None:
                tally = self._signals[signal] = SignalTally(signal)
            known = tally.fold(known, value, user, at, tie, number, stratum)
        self._known[seen.response_id] = known

    def users_in(self, canary: bool) -> int:
        """How many users were first seen in an arm."""
        return len(self._now(self._arms).of(canary))

    def misassigned(self) -> str | None:
        """What shows that users are not in the arms by chance, so that nothing can be compared; None for nothing."""
        return misassigned(self._now(self._arms))

    def first(self, signal: Signal) -> Strata:
        """Each user's first answer that shows a signal."""
        return self._now(self._tally(signal).first)

    def first_bad(self, signal: Signal, *, calm: float | None = None) -> Strata:
        """Each user's first bad answer; `calm` leaves out those of outages, in which production had a larger share."""
        draws = np.array(self._draws, dtype=np.float64)
        return self._tally(signal).bad.firsts(self._strata, draws, calm)

    def answers(self, signal: Signal, canary: bool) -> int:
        """How many answers of an arm show a signal."""
        return self._tally(signal).answers[canary]

    def unreadable(self, signal: Signal) -> int:
        """How many answers have a value of this signal that is none."""
        return self._tally(signal).unreadable

    def coverage(self, canary: bool) -> float | None:
        """The share of an arm's mature answers that have a label, None where none is mature."""
        return self._labelled[canary] / self._mature[canary] if self._mature[canary] else None

    def _tally(self, signal: Signal) -> SignalTally:
        return self._signals.get(signal) or SignalTally(signal)

    def _now(self, answers: FirstAnswers) -> Strata:
        return answers.strata(self._strata, np.array(self._draws, dtype=np.float64))

    def _user(self, name: str) -> int:
        number = self._users.setdefault(name, len(self._users))
        if number == len(self._draws):
            drawn = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, person=b"mlp.balance")
            self._draws.append((int.from_bytes(drawn.digest(), "big") >> 11) / (1 << 53))
        return number


def misassigned(seen: Strata) -> str | None:
    """What shows that users, each as first seen, are not in the arms by chance; None for nothing."""
    production, canary = seen.by_exposure(np.ones_like(seen.x))
    if log_e_misassigned(seen.exposures, production, canary) < -math.log(MISASSIGNED):
        return None
    expected = float(seen.exposures @ (production + canary))
    return f"{canary.sum():,.0f} users in the canary where about {expected:,.0f} are assigned to it"
