"""Measurements: scores of many answers as numbers with one-sided bounds; nothing measured is None, never 1.0."""

from collections.abc import Mapping, Sequence

import numpy as np

from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.evidence import Measurement
from ml_platform.contracts.metrics import COST_PER_CORRECT, LATENCIES, QUANTITIES, correct_metric, rate_metrics
from ml_platform.evaluation.intervals import (
    Clusters,
    Floats,
    effective_n,
    quantile_with_bounds,
    ratio_bounds,
    share_bounds,
)
from ml_platform.evaluation.metrics import ScoredAnswer

SIGNIFICANT_DIGITS = 10
"""Reports keep this many digits, so that the last bits of a platform's arithmetic do not change their digest."""


def measure_answers(scored: Sequence[ScoredAnswer], spec: EvaluationSpec, confidence: float) -> tuple[Measurement, ...]:
    """Every metric that the product declares, over all items that it applies to.

    A declared metric without an item has the value None and n = 0.
    """
    rates = tuple(measure_rate(metric, scored, confidence) for metric in rate_metrics(spec))
    quantities = tuple(measure_quantity(metric, scored, confidence) for metric in QUANTITIES)
    correct = correct_metric(spec)
    return (*rates, *quantities, *((_cost_per_correct(scored, correct, confidence),) if correct else ()))


def measure_rate(
    metric: str, scored: Sequence[ScoredAnswer], confidence: float, slice_: Mapping[str, str] | None = None
) -> Measurement:
    """A share of yes among the items that the metric applies to, with Clopper-Pearson bounds.

    Several items of one entity count for fewer than their number (see `effective_n`).
    """
    applicable = [one for one in scored if metric in one.scores]
    values = scores_of(metric, applicable)
    share = float(values.mean()) if len(values) else None
    size = effective_n(values, clusters_of(applicable), confidence)
    bounds = share_bounds(size * (share or 0.0), size, confidence)
    return measurement(metric, share, len(values), bounds.low, bounds.high, "share", slice_)


def measure_quantity(metric: str, scored: Sequence[ScoredAnswer], confidence: float) -> Measurement:
    """The mean of an amount over the items that it applies to, with BCa bootstrap bounds."""
    applicable = [one for one in scored if metric in one.scores]
    values = scores_of(metric, applicable)
    mean = float(values.mean()) if len(values) else None
    bounds = ratio_bounds(values, np.ones_like(values), clusters_of(applicable), confidence)
    return measurement(metric, mean, len(values), bounds.low, bounds.high, QUANTITIES[metric])


def measure_latency(latencies_ms: Sequence[float], confidence: float) -> tuple[Measurement, ...]:
    """The median and the 95th percentile of single requests; () when none was timed."""
    values = np.asarray(latencies_ms, dtype=np.float64)
    found = []
    for metric, q in LATENCIES.items():
        value, bounds = quantile_with_bounds(values, q, confidence)
        found.append(measurement(metric, value, len(values), bounds.low, bounds.high, "ms"))
    return tuple(found) if len(values) else ()


def scores_of(metric: str, scored: Sequence[ScoredAnswer]) -> Floats:
    """The scores of one metric, in the order of the items, which must all have it."""
    return np.array([one.scores[metric] for one in scored], dtype=np.float64)


def clusters_of(scored: Sequence[ScoredAnswer]) -> Clusters:
    """A number for the entity of each item: answers about one entity are not independent."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(one.example.entity, len(numbers)) for one in scored], dtype=np.int64)


def measurement(
    metric: str,
    value: float | None,
    n: int,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    slice_: Mapping[str, str] | None = None,
) -> Measurement:
    """A measurement whose numbers are finite and rounded to SIGNIFICANT_DIGITS, or None."""
    return Measurement(
        metric=metric, value=tidy(value), n=n, low=tidy(low), high=tidy(high), unit=unit, slice=dict(slice_ or {})
    )


def tidy(value: float | None) -> float | None:
    """The number with SIGNIFICANT_DIGITS, None for None, NaN and infinity."""
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") + 0.0


def _cost_per_correct(scored: Sequence[ScoredAnswer], correct: str, confidence: float) -> Measurement:
    applicable = [one for one in scored if correct in one.scores and "cost_per_request_usd" in one.scores]
    costs, right = scores_of("cost_per_request_usd", applicable), scores_of(correct, applicable)
    if not right.sum():
        return measurement(COST_PER_CORRECT, None, len(applicable), unit="USD")
    bounds = ratio_bounds(costs, right, clusters_of(applicable), confidence)
    return measurement(
        COST_PER_CORRECT, float(costs.sum() / right.sum()), len(applicable), bounds.low, bounds.high, "USD"
    )
