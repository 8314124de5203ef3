"""Evidence of harm and bounds of a share: exact where it can be computed, against an independent package elsewhere."""

import itertools
import math

import numpy as np
import pytest
import ville
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from ml_platform.release.sequential.rates import ODDS_RATIOS, WEIGHTS, Events, log_mixture, share_bounds


def events(*counts: tuple[float, float, float]) -> Events:
    """Of (exposure, users of production, users of the canary)."""
    table = np.array(counts, dtype=np.float64).reshape(-1, 3)
    return Events(table[:, 0], table[:, 1], table[:, 2])


def test_without_events_nothing_is_known() -> None:
    assert events().log_e == 0.0
    assert events((0.05, 0, 0)).log_e == 0.0


@pytest.mark.parametrize("exposure", [0.01, 0.05, 0.5, 0.9])
def test_one_event_is_worth_what_the_formula_says(exposure: float) -> None:
    canary = WEIGHTS @ (ODDS_RATIOS / (1 - exposure + ODDS_RATIOS * exposure))
    production = WEIGHTS @ (1 / (1 - exposure + ODDS_RATIOS * exposure))
    assert math.exp(events((exposure, 0, 1)).log_e) == pytest.approx(canary)
    assert math.exp(events((exposure, 1, 0)).log_e) == pytest.approx(production)


@pytest.mark.parametrize("harm", [1.0, 0.3])
def test_the_expected_evidence_of_a_harmless_canary_is_one_and_less_of_a_better_one(harm: float) -> None:
    """All ways in which eight events fall into the arms, while the exposure rises: no estimate."""
    exposures = (0.05, 0.05, 0.2, 0.2, 0.2, 0.5, 0.5, 0.9)
    chances = [harm * p / (1 - p + harm * p) for p in exposures]
    expected = 0.0
    for arms in itertools.product((0, 1), repeat=len(exposures)):
        chance = math.prod(q if arm else 1 - q for q, arm in zip(chances, arms, strict=True))
        expected += chance * math.exp(
            events(*((p, 1 - arm, arm) for p, arm in zip(exposures, arms, strict=True))).log_e
        )
    assert expected == pytest.approx(1.0) if harm == 1.0 else expected < 0.6


def ever_crosses(n: int, p: float, crossed: np.ndarray) -> float:
    """The exact chance that a count of events with chance `p` ever lies where `crossed[n, k]` says, by n events."""
    alive, ever = np.array([1.0]), 0.0
    for event in range(1, n + 1):
        alive = np.convolve(alive, [1 - p, p])
        hit = crossed[event, : event + 1]
        ever += float(alive[hit].sum())
        alive = np.where(hit, 0.0, alive)
    return ever


@pytest.mark.parametrize(("exposure", "alpha"), [(0.05, 0.05), (0.2, 0.05), (0.5, 0.2)])
def test_looking_after_every_event_a_harmless_canary_is_stopped_no_more_often_than_promised(
    exposure: float, alpha: float
) -> None:
    """Exact for 300 events and a look after each; the usual test at the same level, likewise, is far beyond."""
    n = 300
    crossed, usual = np.zeros((n + 1, n + 1), dtype=bool), np.zeros((n + 1, n + 1), dtype=bool)
    for event in range(1, n + 1):
        counts = np.arange(event + 1)
        odds = ODDS_RATIOS[:, None]
        logs = counts * np.log(odds) - event * np.log(1 - exposure + odds * exposure)
        evidence = np.logaddexp.reduce(logs + np.log(WEIGHTS)[:, None], axis=0)
        crossed[event, : event + 1] = evidence >= -math.log(alpha)
        usual[event, : event + 1] = stats.binom.sf(counts - 1, event, exposure) <= alpha
    for k in (3, 40, 150):
        least = int(np.argmax(crossed[150])) if k == 150 else k
        assert (events((exposure, 150 - least, least)).log_e >= -math.log(alpha)) == crossed[150, least]
    assert ever_crosses(n, exposure, crossed) <= alpha
    assert ever_crosses(n, exposure, usual) > 2 * alpha, (
        "the calculation would not notice a test that may not be peeked at"
    )


def test_more_bad_answers_of_the_canary_are_more_evidence_and_more_of_production_less() -> None:
    rising = [events((0.05, 40, bad), (0.2, 10, 1)).log_e for bad in range(12)]
    falling = [events((0.05, bad, 4), (0.2, 10, 1)).log_e for bad in range(20, 60)]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


def test_a_rise_that_is_visible_by_now_would_just_be_proven() -> None:
    users, seen = np.array([400.0, 100.0]), events((0.05, 152, 8), (0.2, 16, 4))
    rise = seen.smallest_visible(users, 180.0)
    assert rise is not None
    assert seen.worse_by(rise, users).log_e == pytest.approx(math.log(180.0), abs=1e-3)
    more = seen.smallest_visible(2 * users, 180.0)
    assert more is not None
    assert more < rise


def test_with_too_few_users_no_rise_is_visible() -> None:
    assert events((0.05, 3, 0)).smallest_visible(np.array([1.0]), 180.0) is None
    assert events().smallest_visible(np.zeros(0), 180.0) is None


@pytest.mark.parametrize(("total", "n"), [(0, 1), (1, 1), (3, 40), (40, 40), (0, 500), (120, 5_000), (4_999, 5_000)])
def test_bounds_of_a_share_are_those_of_ville(total: int, n: int) -> None:
    stream = np.r_[np.ones(total), np.zeros(n - total)]
    expected = ville.BernoulliCS(0.05, (0.5, 0.5), intersect=False).fit(stream).interval()
    assert share_bounds(total, n, 0.05) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_bounds_of_a_share_hold_at_all_of_400_looks(share: float) -> None:
    """Exact, as above; an interval of Clopper and Pearson at each look misses the share far more often."""
    n = 400
    missed, usual = np.zeros((n + 1, n + 1), dtype=bool), np.zeros((n + 1, n + 1), dtype=bool)
    for seen in range(1, n + 1):
        counts = np.arange(seen + 1)
        evidence = np.array([log_mixture(count, seen) for count in counts])
        missed[seen, : seen + 1] = evidence - stats.binom.logpmf(counts, seen, share) + _binomial(seen) >= math.log(10)
        tails = np.minimum(stats.binom.cdf(counts, seen, share), stats.binom.sf(counts - 1, seen, share))
        usual[seen, : seen + 1] = tails <= 0.05
    for count in (1, 20, 150, 399):
        low, high = share_bounds(count, n, 0.1)
        assert (not low <= share <= high) == missed[n, count]
    assert ever_crosses(n, share, missed) <= 0.1
    assert ever_crosses(n, share, usual) > 0.2


def _binomial(n: int) -> np.ndarray:
    return np.array([math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)])


def test_bounds_of_a_mean_hold_for_values_between_the_ends_and_for_means_that_wander() -> None:
    """The running mean is covered, whatever it does: beta values whose mean swings between 0.1 and 0.5."""
    rng, missed = np.random.default_rng(5), 0
    means = 0.3 + 0.2 * np.sin(np.arange(600) / 50)
    for _ in range(200):
        totals = rng.beta(2 * means, 2 * (1 - means)).cumsum()
        outside = False
        for n in range(20, 601, 20):
            low, high = share_bounds(float(totals[n - 1]), n, 0.1)
            outside |= not low <= means[:n].mean() <= high
        missed += outside
    assert missed / 200 <= 0.1


def test_nothing_seen_bounds_nothing() -> None:
    assert share_bounds(0, 0, 0.05) == (0.0, 1.0)


@given(st.integers(1, 50), st.floats(0.0, 1.0), st.sampled_from([0.05 / 9, 0.05, 0.2]))
@example(1, 0.9, 0.05 / 9)
@example(1, 0.005, 0.05 / 9)
@example(1, 1e-310, 0.05)
@example(50, math.nextafter(1.0, 0.0), 0.05)
def test_there_are_bounds_of_any_total_though_nothing_near_an_end_may_be_refuted_yet(
    n: int, mean: float, level: float
) -> None:
    """One user whose answer costs 90 % of the ceiling: no share is refuted at all, up to 1."""
    total = min(n * mean, float(n))
    low, high = share_bounds(total, n, level)
    assert 0.0 <= low <= total / n <= high <= 1.0
    assert high - low > 0.0


def test_the_first_user_of_an_arm_whose_answer_costs_much_or_little_refutes_nothing_up_to_that_end() -> None:
    assert share_bounds(0.9, 1, 0.05 / 9) == (pytest.approx(0.00119, abs=1e-5), 1.0)
    low, high = share_bounds(0.005, 1, 0.05 / 9)
    assert low == 0.0
    assert 0.99 < high < 1.0
