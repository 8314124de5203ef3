"""Production by itself, in stretches of our time: of an endless watch as much is held as judges it, and no more."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.monitoring import MetricReading, Seen
from ml_platform.release.tallies import Tally

DAY = timedelta(days=1)
_BEGIN = datetime(2000, 1, 3, tzinfo=UTC)


def stretch_of(age: timedelta) -> timedelta:
    """How long a stretch is for a label age: of the one before the present one, labels of a day at least are mature."""
    return DAY + age


def counts_since(wall: datetime, stretch: timedelta) -> datetime:
    """From when on answers count at a moment of ours: from the beginning of the stretch before the present one."""
    return _BEGIN + (_number(wall, stretch) - 1) * stretch


def _number(wall: datetime, stretch: timedelta) -> int:
    return (wall - _BEGIN) // stretch


class Stretches:
    """The answers of the present stretch and of the one before, judged together; those before are forgotten.

    Stretches lie where the calendar says, not where a process began: who starts anew and reads from `counts_since` on
    sees the same. Each answer is held twice: for this stretch's judgement and for the next one's. Answers may come from
    just beyond the end of the present stretch, before anybody turned.
    """

    def __init__(self, alone_since: int, stretch: timedelta, wall: datetime) -> None:
        """`alone_since` is the epoch at which production began to serve, `wall` a moment of ours."""
        self._alone_since, self._stretch = alone_since, stretch
        self._present = _number(wall, stretch)
        self._tallies: dict[int, Tally] = {}
        self._judged_since: datetime | None = None
        self._hold()

    def _hold(self) -> None:
        """Of each of three stretches one tally, of all answers from its beginning on."""
        since, held = self._alone_since, self._tallies
        firsts = range(self._present - 1, self._present + 2)
        self._tallies = {first: held.get(first) or Tally(since, since, self._judged_since) for first in firsts}

    def turn(self, wall: datetime) -> bool:
        """Forgets what no longer counts at a moment of ours; whether there was a turn. A clock put back turns nothing.

        Only our clock turns: that of a gateway that runs ahead would make all forgotten.
        """
        now = _number(wall, self._stretch)
        if now <= self._present:
            return False
        self._present = now
        self._hold()
        return True

    def judge_anew(self, since: datetime, held: Iterable[Seen]) -> None:
        """Only what was given from a moment of ours on counts from now on, of what came before `held`."""
        self._judged_since, self._tallies = since, {}
        self._hold()
        self.add(held)

    def add(self, seen: Iterable[Seen]) -> None:
        """Folds answers in, in any order; the same answer may come again, with more known of it."""
        for one in seen:
            number = _number(one.answered_at, self._stretch)
            for first, tally in self._tallies.items():
                if number >= first:
                    tally.add((one,))

    def alone(self, policy: MonitorPolicy) -> tuple[MetricReading, ...]:
        """What each metric shows of production by itself, in this stretch and the one before."""
        return self._tallies[self._present - 1].alone(policy)
