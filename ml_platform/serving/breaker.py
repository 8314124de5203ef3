"""The circuit breaker of one release: a pure state machine of (state, outcome, now).

closed -> open when the share of failures in the window is above the rule's; open -> half-open after a pause;
half-open -> closed when so many probes in a row succeed, -> open again when one fails. `now` is seconds of any clock
that does not go back; a reading from before the newest one counts as the newest.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import isfinite


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a breaker opens and how it closes again.

    It opens at `min_count` or more outcomes in the window of which more than `error_rate` failed. The window is
    counted in `slices` pieces, so that a million outcomes take no more memory than ten. After `open_seconds` it
    lets `probes` requests through at a time, and closes when that many in a row have succeeded. A probe whose
    outcome never comes (the client hung up) frees its place after `open_seconds`, one that tells nothing at once.
    """

    error_rate: float = 0.05
    window_seconds: float = 60.0
    min_count: int = 20
    open_seconds: float = 15.0
    probes: int = 3
    slices: int = 12

    def __post_init__(self) -> None:
        seconds = (self.window_seconds, self.open_seconds)
        counts = (self.min_count, self.probes, self.slices)
        if not (0.0 <= self.error_rate < 1.0 and all(isfinite(s) and s > 0 for s in seconds) and min(counts) >= 1):
            raise ValueError(
                f"{self} cannot work: expected an error_rate in [0, 1), positive seconds and counts of at least 1."
            )


class BreakerPhase(StrEnum):
    """Whether requests pass: all, none, or a few to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of one release's recent outcomes.

    `counts` holds (slice number, outcomes, failures), oldest first, of the window only. `since` is when the phase
    began; `out` are the times at which probes went out that have not come back.
    """

    rule: BreakerRule = field(default_factory=BreakerRule)
    phase: BreakerPhase = BreakerPhase.CLOSED
    since: float = 0.0
    newest: float = float("-inf")
    counts: tuple[tuple[int, int, int], ...] = ()
    out: tuple[float, ...] = ()
    succeeded: int = 0

    @property
    def outcomes(self) -> int:
        """Outcomes in the window as of the newest one."""
        return sum(outcomes for _, outcomes, _ in self.counts)

    @property
    def failures(self) -> int:
        """Failures in the window as of the newest outcome."""
        return sum(failures for _, _, failures in self.counts)


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether one more request may pass, and the breaker after that; `probe` marks one that is watched."""

    breaker: Breaker
    admitted: bool
    probe: bool = False


def phase_at(breaker: Breaker, now: float) -> BreakerPhase:
    """The phase as whoever asks now meets it: an open breaker whose pause is over tries again, asked or not."""
    over = breaker.phase is BreakerPhase.OPEN and now - breaker.since >= breaker.rule.open_seconds
    return BreakerPhase.HALF_OPEN if over else breaker.phase


def admits(breaker: Breaker, now: float) -> bool:
    """Whether the breaker would let a request pass now; what routing asks for the releases that are unavailable."""
    return admit(breaker, now).admitted


def admit(breaker: Breaker, now: float) -> Admission:
    """Lets a request pass or not. Whoever is admitted must tell the outcome, `probe` included."""
    now = max(now, breaker.newest)
    if breaker.phase is BreakerPhase.CLOSED:
        return Admission(breaker, admitted=True)
    if breaker.phase is BreakerPhase.OPEN:
        if now - breaker.since < breaker.rule.open_seconds:
            return Admission(breaker, admitted=False)
        breaker = Breaker(rule=breaker.rule, phase=BreakerPhase.HALF_OPEN, since=now, newest=now)
    waiting = tuple(at for at in breaker.out if now - at < breaker.rule.open_seconds)
    if len(waiting) + breaker.succeeded >= breaker.rule.probes:
        return Admission(breaker, admitted=False)
    return Admission(replace(breaker, newest=now, out=(*waiting, now)), admitted=True, probe=True)


def record_outcome(breaker: Breaker, *, failed: bool, now: float, probe: bool = False) -> Breaker:
    """The breaker after one request ended.

    A request that was admitted before the breaker opened says nothing new: only probes count while it is not
    closed. A failure is what is the release's fault: an engine error, a deadline, an answer that cannot be parsed;
    a client that hung up or a refused question is none.
    """
    now = max(now, breaker.newest)
    if breaker.phase is BreakerPhase.OPEN or (breaker.phase is BreakerPhase.HALF_OPEN and not probe):
        return replace(breaker, newest=now)
    if breaker.phase is BreakerPhase.HALF_OPEN:
        return _after_probe(breaker, failed=failed, now=now)
    counted = replace(breaker, newest=now, counts=_counted(breaker, failed=failed, now=now))
    tripped = counted.outcomes >= counted.rule.min_count and (
        counted.failures > counted.rule.error_rate * counted.outcomes
    )
    # Only a failure opens: a success must never be what takes a release away.
    return _opened(counted, now) if tripped and failed else counted


def give_back(breaker: Breaker) -> Breaker:
    """The breaker after a probe that ended without a word on the release: the next one may have its place."""
    return replace(breaker, out=breaker.out[1:]) if breaker.phase is BreakerPhase.HALF_OPEN else breaker


def _after_probe(breaker: Breaker, *, failed: bool, now: float) -> Breaker:
    if failed:
        return _opened(breaker, now)
    if breaker.succeeded + 1 >= breaker.rule.probes:
        return Breaker(rule=breaker.rule, since=now, newest=now)
    return replace(breaker, newest=now, out=breaker.out[1:], succeeded=breaker.succeeded + 1)


def _opened(breaker: Breaker, now: float) -> Breaker:
    return Breaker(rule=breaker.rule, phase=BreakerPhase.OPEN, since=now, newest=now)


def _counted(breaker: Breaker, *, failed: bool, now: float) -> tuple[tuple[int, int, int], ...]:
    """The counts with one more outcome; slices that left the window are dropped."""
    width = breaker.rule.window_seconds / breaker.rule.slices
    here = int(now // width)
    kept = [one for one in breaker.counts if one[0] > here - breaker.rule.slices]
    last = kept.pop() if kept and kept[-1][0] == here else (here, 0, 0)
    return (*kept, (here, last[1] + 1, last[2] + failed))
