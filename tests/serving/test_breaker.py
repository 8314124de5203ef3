"""The breaker, over simulated time."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ml_platform.serving.breaker import (
    Breaker,
    BreakerPhase,
    BreakerRule,
    admit,
    admits,
    give_back,
    phase_at,
    record_outcome,
)

RULE = BreakerRule()


def fed(breaker: Breaker, outcomes: str, start: float = 0.0, step: float = 0.1) -> Breaker:
    """The breaker after outcomes at even steps: `.` went well, `x` failed."""
    for number, outcome in enumerate(outcomes):
        breaker = record_outcome(breaker, failed=outcome == "x", now=start + number * step)
    return breaker


def opened(now: float = 0.0) -> Breaker:
    return fed(Breaker(), "x" * RULE.min_count, start=now, step=0.0)


@pytest.mark.parametrize(
    ("outcomes", "phase"),
    [
        ("x" * 19, "closed"),
        ("x" * 20, "open"),
        ("." * 19 + "x", "closed"),
        ("." * 18 + "xx", "open"),
        ("." * 100 + "x" * 5, "closed"),
        ("." * 100 + "x" * 6, "open"),
        ("x" * 6 + "." * 100, "closed"),
    ],
    ids=[
        "too few to judge",
        "all fail",
        "5 % is tolerated",
        "10 % is not",
        "just at the limit",
        "just above it",
        "a success never opens",
    ],
)
def test_it_opens_above_the_error_rate_once_there_is_enough_to_judge(outcomes: str, phase: str) -> None:
    assert fed(Breaker(), outcomes, step=0.01).phase == phase


def test_failures_spread_over_more_than_the_window_do_not_add_up() -> None:
    assert fed(Breaker(), "x" * 200, step=RULE.window_seconds / 18).phase is BreakerPhase.CLOSED


def test_old_successes_do_not_hide_new_failures() -> None:
    healthy = fed(Breaker(), "." * 10_000, step=0.001)
    assert fed(healthy, "x" * 20, start=120.0).phase is BreakerPhase.OPEN


def test_an_open_breaker_lets_nothing_pass_until_its_pause_is_over() -> None:
    breaker = opened(100.0)
    assert not admits(breaker, 100.0 + RULE.open_seconds - 0.01)
    assert admits(breaker, 100.0 + RULE.open_seconds)


def test_an_open_breaker_that_nobody_asks_counts_as_open_for_its_pause_and_no_longer() -> None:
    breaker = opened()
    assert phase_at(breaker, breaker.since + 14.9) is BreakerPhase.OPEN
    assert phase_at(breaker, breaker.since + 15.0) is BreakerPhase.HALF_OPEN
    assert phase_at(Breaker(), 1e9) is BreakerPhase.CLOSED


def test_half_open_lets_as_many_probes_pass_as_the_rule_says_and_closes_when_they_succeed() -> None:
    breaker, passed = opened(), 0
    for _ in range(10):
        admission = admit(breaker, 20.0)
        breaker, passed = admission.breaker, passed + admission.admitted
        assert admission.probe == admission.admitted
    assert passed == RULE.probes
    for _ in range(RULE.probes):
        assert breaker.phase is BreakerPhase.HALF_OPEN
        breaker = record_outcome(breaker, failed=False, now=21.0, probe=True)
    assert (breaker.phase, breaker.outcomes) == (BreakerPhase.CLOSED, 0)


def test_a_failed_probe_opens_it_again_for_the_whole_pause() -> None:
    probing = admit(opened(), 20.0).breaker
    again = record_outcome(probing, failed=True, now=21.0, probe=True)
    assert not admits(again, 21.0 + RULE.open_seconds - 0.01)
    assert admits(again, 21.0 + RULE.open_seconds)


def test_a_probe_that_never_comes_back_frees_its_place() -> None:
    breaker = opened()
    for _ in range(RULE.probes):
        breaker = admit(breaker, 20.0).breaker
    assert not admits(breaker, 20.0 + RULE.open_seconds - 0.01)
    assert admits(breaker, 20.0 + RULE.open_seconds)


def test_a_probe_that_tells_nothing_gives_its_place_to_the_next() -> None:
    breaker = opened()
    for _ in range(RULE.probes):
        breaker = admit(breaker, 20.0).breaker
    assert not admits(breaker, 20.0)
    breaker = give_back(breaker)
    assert admits(breaker, 20.0)
    assert (breaker.phase, breaker.succeeded) == (BreakerPhase.HALF_OPEN, 0)
    assert give_back(opened()) == opened()
    assert give_back(Breaker()) == Breaker()


def test_requests_from_before_it_opened_neither_close_nor_reopen_it() -> None:
    breaker = admit(opened(), 20.0).breaker
    late = fed(breaker, "x" * 50 + "." * 50, start=20.0, step=0.0)
    assert (late.phase, late.succeeded, late.out) == (BreakerPhase.HALF_OPEN, 0, breaker.out)
    assert fed(opened(), "." * 500, step=0.0).phase is BreakerPhase.OPEN


def test_a_clock_that_goes_back_changes_nothing() -> None:
    breaker = opened(100.0)
    assert record_outcome(breaker, failed=True, now=-1e9).newest == 100.0
    assert not admits(breaker, -1e9)


@given(st.lists(st.tuples(st.floats(0.0, 30.0), st.booleans()), max_size=200))
def test_the_window_never_forgets_the_last_eleven_twelfths_and_never_remembers_more(
    steps: list[tuple[float, bool]],
) -> None:
    """Against counting every outcome by its own time."""
    breaker, now, seen = Breaker(rule=BreakerRule(min_count=10**9)), 0.0, []
    for step, failed in steps:
        now += step
        seen.append((now, failed))
        breaker = record_outcome(breaker, failed=failed, now=now)
        surely = sum(1 for at, _ in seen if at > now - RULE.window_seconds * 11 / 12)
        at_most = sum(1 for at, _ in seen if at >= now - RULE.window_seconds)
        assert surely <= breaker.outcomes <= at_most
        assert len(breaker.counts) <= RULE.slices


@given(st.text(alphabet=".x", max_size=150), st.integers(0, 149))
def test_one_more_failure_never_keeps_it_closed(outcomes: str, where: int) -> None:
    worse = outcomes[:where] + "x" + outcomes[where + 1 :] if where < len(outcomes) else outcomes
    if fed(Breaker(), outcomes, step=0.01).phase is BreakerPhase.OPEN:
        assert fed(Breaker(), worse, step=0.01).phase is BreakerPhase.OPEN


@pytest.mark.parametrize(
    "wrong",
    [{"error_rate": 1.0}, {"error_rate": float("nan")}, {"window_seconds": 0.0}, {"probes": 0}, {"open_seconds": -1.0}],
)
def test_a_rule_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="cannot work"):
        BreakerRule(**wrong)  # type: ignore[arg-type]


@dataclass
class Seen:
    """What the outside knows: requests under way, by whether they are probes."""

    under_way: list[bool] = field(default_factory=list)
    now: float = 0.0


class Life(RuleBasedStateMachine):
    """Any order of requests, outcomes and waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(rule=BreakerRule(min_count=3))
        self.seen = Seen()

    @rule(seconds=st.floats(0.0, 40.0))
    def time_passes(self, seconds: float) -> None:
        self.seen.now += seconds

    @rule()
    def a_request_comes(self) -> None:
        admission = admit(self.breaker, self.seen.now)
        self.breaker = admission.breaker
        if admission.admitted:
            self.seen.under_way.append(admission.probe)
            assert admission.probe == (self.breaker.phase is BreakerPhase.HALF_OPEN)

    @precondition(lambda self: bool(self.seen.under_way))
    @rule(failed=st.none() | st.booleans())
    def a_request_ends(self, failed: bool | None) -> None:
        probe = self.seen.under_way.pop(0)
        before = self.breaker
        if failed is None:
            self.breaker = give_back(before) if probe else before
            return
        self.breaker = record_outcome(before, failed=failed, now=self.seen.now, probe=probe)
        if before.phase is not BreakerPhase.OPEN and self.breaker.phase is BreakerPhase.OPEN:
            assert failed
        if before.phase is not BreakerPhase.CLOSED and self.breaker.phase is BreakerPhase.CLOSED:
            assert not failed
            assert probe

    @invariant()
    def it_is_small_and_never_stuck(self) -> None:
        assert len(self.breaker.out) + self.breaker.succeeded <= self.breaker.rule.probes
        assert len(self.breaker.counts) <= self.breaker.rule.slices
        assert admits(self.breaker, self.seen.now + 2 * self.breaker.rule.open_seconds)


TestLife = Life.TestCase
