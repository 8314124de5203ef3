"""Readings hold for every set of answers: order does not matter, and what is worse never looks better."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import MetricReading, Seen
from ml_platform.contracts.routing import Cohort
from ml_platform.release.tallies import Tally
from tests.samples.monitoring import monitor_policy
from tests.samples.seen import make_rollout, make_seen

METRICS = [
    {"kind": "rate", "metric": "errors", "signal": "error", "margin": 0.1, "at_most": 0.5},
    {"kind": "rate", "metric": "misses", "signal": "missed", "margin": 0.15, "at_most": 0.6},
    {"kind": "quantile", "metric": "median", "signal": "latency_ms", "quantile": 0.5, "margin": 0.5, "at_most": 500},
    {"kind": "mean", "metric": "cost", "signal": "cost_usd", "ceiling": 1.0, "margin": 0.2, "at_most": 0.6},
]
POLICY = monitor_policy(metrics=METRICS, alpha=0.2, beta=0.2)
GOODNESS = {Verdict.PASS: 2, Verdict.INCONCLUSIVE: 1, Verdict.FAIL: 0}


def readings(seen: Sequence[Seen]) -> tuple[MetricReading, ...]:
    tally = Tally()
    tally.add(seen)
    return tally.readings(POLICY)


@st.composite
def answer(draw: st.DrawFn) -> Seen:
    number = draw(st.integers(0, 40))
    numbers = st.sampled_from([0.0, 0.3, 1.0, 90.0, 1e12])
    signals = {
        Signal.ERROR: draw(st.sampled_from([0.0, 1.0])),
        Signal.MISSED: draw(st.sampled_from([0.0, 1.0])),
        Signal.LATENCY_MS: draw(numbers),
        Signal.COST_USD: draw(numbers),
    }
    kept = draw(st.sets(st.sampled_from(sorted(signals))))
    return make_seen(
        number,
        f"user {draw(st.integers(0, 12))}",
        exposure=draw(st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0])),
        canary=draw(st.booleans()),
        signals={signal: signals[signal] for signal in kept},
        mature=draw(st.booleans()),
        labelled=draw(st.booleans()),
        # Two answers with one number were given at one moment: the tie goes by the response.
        response_id=f"response {number} {draw(st.integers(0, 1))}",
    )


@given(st.lists(answer(), max_size=40, unique_by=lambda one: one.response_id), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_arrival_and_how_often_an_answer_comes_do_not_matter(seen: list[Seen], random: object) -> None:
    mixed = [*seen, *seen[::3]]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert readings(mixed) == readings(seen)


@given(st.lists(answer(), max_size=25, unique_by=lambda one: one.response_id), st.integers(0, 24))
@settings(max_examples=60, deadline=None)
def test_what_becomes_known_later_gives_what_it_would_have_given_at_once(seen: list[Seen], known: int) -> None:
    at_first = [replace(one, signals={}, mature=False) if number < known else one for number, one in enumerate(seen)]
    tally = Tally()
    tally.add(at_first)
    tally.add(seen)
    assert tally.readings(POLICY) == readings(seen)


@given(st.lists(answer(), max_size=60))
@settings(max_examples=80, deadline=None)
def test_any_answers_give_readings_with_finite_bounds_in_their_order(seen: list[Seen]) -> None:
    tally = Tally()
    tally.add(seen)
    for found in (*tally.readings(POLICY), *tally.alone(POLICY)):
        assert found.reason
        assert (found.waits_for is not None) == (found.verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR)) or (
            found.canary is None
        )
        for low, high in (
            (found.effect_lower, found.effect_upper),
            *(_bounds(arm) for arm in (found.production, found.canary)),
        ):
            assert low is None or high is None or low <= high


def _bounds(arm: object) -> tuple[float | None, float | None]:
    return (getattr(arm, "lower", None), getattr(arm, "upper", None))


SIGNALS = st.sampled_from([(0, Signal.ERROR), (1, Signal.MISSED), (2, Signal.LATENCY_MS), (3, Signal.COST_USD)])


def base(n: int, signal: Signal, share: float) -> list[Seen]:
    """A healthy rollout in which `share` of all users have it bad, or have a large value."""
    values = {Signal.LATENCY_MS: (50.0, 200.0), Signal.COST_USD: (0.2, 0.7)}.get(signal, (0.0, 1.0))
    shaped = Signal.ERROR if signal in (Signal.LATENCY_MS, Signal.COST_USD) else signal
    return [
        replace(one, signals={signal: values[int(one.signals[shaped])]})
        for one in make_rollout(n, shaped, share, share)
    ]


@given(SIGNALS, st.integers(0, 600), st.floats(0.0, 0.6), st.floats(0.0, 1.0), st.floats(1.0, 20.0))
@settings(max_examples=60, deadline=None)
def test_a_canary_that_is_worse_never_has_a_better_verdict(
    which: tuple[int, Signal], n: int, share: float, spoiled: float, times: float
) -> None:
    place, signal = which
    seen = base(n, signal, share)

    def worse(one: Seen) -> Seen:
        if one.cohort is not Cohort.CANARY or (int(one.user[5:]) * 0.618) % 1.0 >= spoiled:
            return one
        value = 1.0 if signal.bad_event else one.signals[signal] * times
        return replace(one, signals={signal: value})

    before, after = readings(seen)[place], readings([worse(one) for one in seen])[place]
    assert GOODNESS[after.verdict] <= GOODNESS[before.verdict]
    assert (after.e_value or 0.0) >= (before.e_value or 0.0) * (1 - 1e-9)


@given(SIGNALS, st.sampled_from([0, 400, 1_200]), st.sampled_from([math.nan, math.inf, -1.0]))
@settings(max_examples=25, deadline=None)
def test_a_value_that_is_none_never_passes(which: tuple[int, Signal], n: int, value: float) -> None:
    place, signal = which
    broken = make_seen(5_000, "another user", signals={signal: value}, mature=True, labelled=True)
    assert readings([*base(n, signal, 0.1), broken])[place].verdict is not Verdict.PASS


@given(st.integers(0, 300), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_a_rollout_in_two_parts_is_the_whole(n: int, parts: int) -> None:
    """However the answers are cut into looks, the last look is that of all answers."""
    seen = base(n, Signal.ERROR, 0.2)
    tally = Tally()
    for part in range(parts):
        tally.add(seen[part::parts])
        tally.readings(POLICY)
    assert tally.readings(POLICY) == readings(seen)


def test_later_answers_of_the_same_user_never_change_an_effect() -> None:
    seen = base(400, Signal.ERROR, 0.1)
    later = [
        replace(
            one,
            response_id=f"later {one.user}",
            answered_at=one.answered_at + timedelta(days=1),
            signals={Signal.ERROR: 0.0},
        )
        for one in seen
    ]
    before, after = readings(seen)[0], readings([*seen, *later])[0]
    assert (before.effect, before.effect_upper, before.e_value) == (after.effect, after.effect_upper, after.e_value)
