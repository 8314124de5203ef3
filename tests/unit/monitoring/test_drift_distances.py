"""Distances against what others compute, and their p-values against chance itself."""

import numpy as np
import pytest
from scipy import stats

from ml_platform.monitoring.drift.distances import (
    effective_rows,
    holm,
    kolmogorov_smirnov,
    population_stability,
    resemblance_of_categories,
    resemblance_of_numbers,
    resemblance_of_vectors,
    variance_between,
    wasserstein,
)

DRAW = np.random.default_rng(7)
NORMAL, SHIFTED = DRAW.normal(size=700), DRAW.normal(0.4, 1.2, size=500)
ROWS = 700 * 500 / 1200


def test_the_distance_of_distributions_is_that_of_scipy() -> None:
    ours, theirs = kolmogorov_smirnov(NORMAL, SHIFTED, ROWS), stats.ks_2samp(NORMAL, SHIFTED, method="asymp")
    assert ours.effect == pytest.approx(theirs.statistic)
    assert ours.p_value == pytest.approx(stats.kstwobign.sf(np.sqrt(ROWS) * theirs.statistic))


def test_how_far_values_moved_is_scipys_distance_in_standard_deviations_of_the_reference() -> None:
    low, high = np.quantile(np.concatenate([NORMAL, SHIFTED]), [0.001, 0.999])
    inside = [np.clip(side, low, high) for side in (NORMAL, SHIFTED)]
    expected = stats.wasserstein_distance(*inside) / inside[0].std()
    assert wasserstein(NORMAL, SHIFTED, ROWS).effect == pytest.approx(expected)


def test_one_absurd_measurement_does_not_stand_for_a_column() -> None:
    absurd = NORMAL.copy()
    absurd[0] = 1e9
    assert wasserstein(absurd, NORMAL, 350).effect < 0.1
    assert wasserstein(NORMAL, absurd, 350).effect < 0.1


def test_psi_is_its_formula_less_what_chance_adds() -> None:
    then, now = np.array([500, 300, 200]), np.array([300, 300, 400])
    p, q = then / 1000, now / 1000
    formula = float(((p - q) * np.log(p / q)).sum())
    assert population_stability(then, now, 500, 0.0).effect == pytest.approx(formula)
    assert population_stability(then, now, 500, 0.002).effect == pytest.approx(formula - 2 * 0.002)
    theirs = stats.chi2_contingency([then, now], correction=False)
    assert population_stability(then, now, 500, 0.0).p_value == pytest.approx(theirs.pvalue)


def test_without_drift_psi_stays_near_nothing_however_few_rows_there_are() -> None:
    shares = np.full(20, 0.05)
    found = []
    for rows in (100, 1_000, 100_000):
        draws = [DRAW.multinomial(rows, shares, 2) for _ in range(200)]
        plain = np.mean([population_stability(then, now, rows / 2, 0.0).effect for then, now in draws])
        found.append(np.mean([population_stability(then, now, rows / 2, 2 / rows).effect for then, now in draws]))
        assert found[-1] <= plain
    assert max(found) < 0.12
    assert found[-1] < 0.001


@pytest.mark.parametrize("shape", ["normal", "lognormal", "few values"])
def test_without_drift_p_values_are_as_rare_as_they_say(shape: str) -> None:
    draw = np.random.default_rng(11)
    make = {
        "normal": lambda n: draw.normal(size=n),
        "lognormal": lambda n: draw.lognormal(0, 1.5, size=n),
        "few values": lambda n: draw.integers(0, 15, size=n).astype(float),
    }[shape]
    found = []
    for _ in range(300):
        then, now = make(400), make(250)
        rows = 400 * 250 / 650
        found.append((kolmogorov_smirnov(then, now, rows).p_value, wasserstein(then, now, rows).p_value))
    # At a true 5 %, more than 28 of 300 come once in ten thousand trials.
    assert (np.array(found) <= 0.05).sum(axis=0).max() <= 28


def test_rows_of_one_day_that_resemble_one_another_count_for_less() -> None:
    draw = np.random.default_rng(13)
    naive, honest = 0, 0
    for _ in range(200):
        days = [np.repeat(np.arange(count), 50) for count in (60, 28)]
        sides = [draw.normal(size=day.max() + 1)[day] + draw.normal(size=len(day)) for day in days]
        alike = max(resemblance_of_numbers(side, day) for side, day in zip(sides, days, strict=True))
        n, m = (effective_rows(len(side), alike, day) for side, day in zip(sides, days, strict=True))
        naive += kolmogorov_smirnov(*sides, 3000 * 1400 / 4400).p_value <= 0.05
        honest += kolmogorov_smirnov(*sides, n * m / (n + m)).p_value <= 0.05
    assert naive > 120
    assert honest <= 22


def test_resemblance_is_the_correlation_within_blocks() -> None:
    draw = np.random.default_rng(17)
    day = np.repeat(np.arange(300), 20)
    for share in (0.0, 0.3, 0.9):
        values = np.sqrt(share) * draw.normal(size=300)[day] + np.sqrt(1 - share) * draw.normal(size=len(day))
        assert resemblance_of_numbers(values, day) == pytest.approx(share, abs=0.06)
        vectors = np.stack([values, draw.permutation(values)], axis=1).astype(np.float32)
        assert resemblance_of_vectors(vectors, day) == pytest.approx(share / 2, abs=0.06)
    kinds = draw.integers(0, 4, size=300)
    assert resemblance_of_categories(kinds[day], 4, day) == pytest.approx(1.0, abs=0.01)
    assert resemblance_of_categories(draw.integers(0, 4, size=len(day)), 4, day) == pytest.approx(0.0, abs=0.02)
    assert effective_rows(6000, 1.0, day) == pytest.approx(300)
    assert effective_rows(6000, 0.0, day) == 6000
    assert resemblance_of_numbers(values, np.zeros(len(day), np.int64)) == 0.0


def test_the_share_of_variance_between_two_samples_is_unbiased_and_its_p_value_honest() -> None:
    draw = np.random.default_rng(19)
    null = [variance_between(draw.normal(size=(80, 16)), draw.normal(size=(60, 16)), (80, 60)) for _ in range(300)]
    assert sum(one.p_value <= 0.05 for one in null) <= 28
    assert np.mean([one.effect for one in null]) < 0.01
    shift = np.zeros(16)
    shift[0] = 4.0
    for rows in (50, 5_000):
        found = variance_between(draw.normal(size=(rows, 16)), draw.normal(size=(rows, 16)) + shift, (rows, rows))
        # A quarter of the squared distance of the means lies between: 4 of 4 + 16.
        assert found.effect == pytest.approx(4 / 20, abs=0.03)
    assert variance_between(np.ones((9, 3)), np.ones((9, 3)), (9, 9)).effect == 0.0


def test_holm_corrects_in_steps() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.5, 0.9])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []
