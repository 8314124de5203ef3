"""Bounds of an effect under random assignment: expectations by enumeration, error rates by seeded simulation."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import ville

from ml_platform.release.sequential.betting import BETS, Bettor, Users, effect_bounds, log_e_above

Floats = np.ndarray


def users(*kinds: tuple[float, float, float, float]) -> Users:
    """Of (x, canary, exposure, count)."""
    table = np.array(kinds, dtype=np.float64).reshape(-1, 4)
    return Users(table[:, 0], table[:, 1], table[:, 2], table[:, 3])


def of(x: Floats, canary: Floats, exposure: Floats) -> Users:
    """Of one row a user."""
    rows, counts = np.unique(np.column_stack([x, canary, exposure]).astype(float), axis=0, return_counts=True)
    return Users(rows[:, 0], rows[:, 1], rows[:, 2], counts.astype(float))


@pytest.mark.parametrize("centre", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("effect", [-0.2, 0.0, 0.3])
def test_against_the_true_effect_the_expected_capital_is_one(effect: float, centre: float) -> None:
    """Three users of different exposures and rates, all their assignments and outcomes: no estimate."""
    population = [(0.05, 0.3), (0.2, 0.6), (0.5, 0.25)]
    below, above = 0.0, 0.0
    for cells in itertools.product(itertools.product((0, 1), repeat=2), repeat=len(population)):
        chance, rows = 1.0, []
        for (x, canary), (exposure, rate) in zip(cells, population, strict=True):
            share = rate + effect * canary
            chance *= (share if x else 1 - share) * (exposure if canary else 1 - exposure)
            rows.append((float(x), float(canary), exposure, 1.0))
        below += chance * math.exp(Bettor(users(*rows), (centre,)).log_capital(effect))
        above += chance * math.exp(log_e_above(users(*rows), effect, (centre,)))
    assert below == pytest.approx(1.0)
    assert above == pytest.approx(1.0)


@pytest.mark.parametrize("exposure", [0.001, 0.05, 0.5, 0.999])
@pytest.mark.parametrize("centre", [0.0, 0.25, 0.5])
def test_no_answer_can_make_a_bettor_bankrupt(exposure: float, centre: float) -> None:
    for x, canary, effect in itertools.product((0.0, 1.0), (0.0, 1.0), (-1.0, 1.0)):
        one = users((x, canary, exposure, 1.0))
        assert math.exp(Bettor(one, (centre,)).log_capital(effect)) >= (1 - BETS[0]) / len(BETS)
        assert math.isfinite(log_e_above(one, effect, (centre,)))


def test_one_user_is_worth_what_the_formula_says() -> None:
    p, effect, centre = 0.2, 0.1, 0.05
    stakes = BETS / max((1 - p) * (1 - centre + p), p * (1 + centre - p))
    expected = np.mean(1 + stakes * (effect * p * (1 - p) - (1.0 - centre) * (1 - p)))
    assert math.exp(Bettor(users((1.0, 1.0, p, 1.0)), (centre,)).log_capital(effect)) == pytest.approx(expected)


def test_nobody_tells_nothing() -> None:
    assert effect_bounds(users(), (0.0,), 0.05, 0.05) == (-1.0, 1.0)


def test_bounds_are_where_the_capital_reaches_the_level_and_shrink_with_more_users() -> None:
    few = [(1.0, 1.0, 0.2, 4.0), (0.0, 1.0, 0.2, 36.0), (1.0, 0.0, 0.2, 16.0), (0.0, 0.0, 0.2, 144.0)]
    many = [(*kind[:3], 10 * kind[3]) for kind in few]
    low, high = effect_bounds(users(*few), (0.0, 0.1), 0.01, 0.05)
    assert Bettor(users(*few), (0.0, 0.1)).log_capital(high) == pytest.approx(-math.log(0.05), abs=1e-3)
    assert log_e_above(users(*few), low, (0.0, 0.1)) == pytest.approx(-math.log(0.01), abs=1e-3)
    narrow = effect_bounds(users(*many), (0.0, 0.1), 0.01, 0.05)
    assert low < narrow[0] < 0.0 < narrow[1] < high


def test_worse_values_in_the_canary_raise_both_bounds() -> None:
    bounds = []
    for bad in range(0, 60, 6):
        kinds = [(1.0, 1.0, 0.2, bad), (0.0, 1.0, 0.2, 60 - bad), (1.0, 0.0, 0.2, 24.0), (0.0, 0.0, 0.2, 216.0)]
        bounds.append(effect_bounds(users(*kinds), (0.0, 0.1), 0.05, 0.05))
    assert bounds == sorted(bounds)
    assert [high for _, high in bounds] == sorted(high for _, high in bounds)


def rollout(rng: np.random.Generator, n: int, effect: float, steps: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """Users in the order in which they come: the exposure rises, and the rate swings with the weather."""
    exposure = np.repeat(steps, -(-n // len(steps)))[:n]
    weather = 0.2 + 0.15 * np.sin(np.arange(n) / n * 9)
    canary = rng.random(n) < exposure
    return (rng.random(n) < weather + effect * canary), canary, exposure


@pytest.mark.parametrize("effect", [0.05, -0.05])
def test_bounds_of_an_effect_hold_at_all_looks_while_exposure_and_weather_change(effect: float) -> None:
    """A z-test at each look errs more than twice as often, in the same simulation."""
    rng, n, level = np.random.default_rng(11), 900, 0.1
    missed, usual = np.zeros(2), 0
    for _ in range(150):
        x, canary, exposure = rollout(rng, n, effect, (0.1, 0.3, 0.5))
        wrong, wrong_usual = np.zeros(2, dtype=bool), False
        for seen in range(100, n + 1, 100):
            now = of(x[:seen], canary[:seen], exposure[:seen])
            wrong |= [
                log_e_above(now, effect, (0.0, 0.1)) >= -math.log(level),
                Bettor(now, (0.0, 0.1)).log_capital(effect) >= -math.log(level),
            ]
            arms = x[:seen][canary[:seen]], x[:seen][~canary[:seen]]
            error = math.sqrt(sum(arm.mean() * (1 - arm.mean()) / max(1, len(arm)) for arm in arms if len(arm)))
            if len(arms[0]) and error:
                wrong_usual |= (arms[0].mean() - arms[1].mean() - effect) / error < -1.2816
        missed += wrong
        usual += wrong_usual
    assert (missed / 150 <= level).all()
    assert usual / 150 > 2 * level, "the simulation would not notice bounds that may not be looked at repeatedly"


def test_pooled_arms_would_be_misled_by_an_exposure_that_rises_while_the_weather_changes() -> None:
    """Half of the errors vanish at the very moment when the exposure goes from 5 to 50 %: the canary is not better."""
    rng, n = np.random.default_rng(3), 4_000
    exposure = np.repeat([0.05, 0.5], n // 2)
    canary = rng.random(n) < exposure
    x = rng.random(n) < np.repeat([0.4, 0.05], n // 2)
    low, high = effect_bounds(of(x, canary, exposure), (0.0, 0.1), 0.05, 0.05)
    assert low < 0.0 < high
    assert x[canary].mean() - x[~canary].mean() < low, "pooled, the canary would look better than it can be"


@pytest.mark.parametrize(("exposure", "rate"), [(0.5, 0.1), (0.5, 0.4), (0.2, 0.1)])
def test_bounds_are_about_as_narrow_as_those_of_ville(exposure: float, rate: float) -> None:
    rng, n = np.random.default_rng(7), 3_000
    canary = rng.random(n) < exposure
    x = (rng.random(n) < rate).astype(float)
    low, high = effect_bounds(of(x, canary, np.full(n, exposure)), (0.0, 0.15), 0.025, 0.025)
    theirs = ville.BettingABTest(alpha=0.05, propensity=exposure, grid=2_000).fit(x, canary.astype(float)).interval()
    assert low < 0.0 < high
    assert 0.7 <= (high - low) / (theirs[1] - theirs[0]) <= 1.4
