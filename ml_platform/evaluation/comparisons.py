"""Comparisons: candidate minus reference on the items that both answered."""

from collections.abc import Mapping, Sequence

import numpy as np

from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.evidence import Comparison
from ml_platform.contracts.metrics import QUANTITIES, rate_metrics
from ml_platform.evaluation.intervals import Floats, effective_n, ratio_bounds
from ml_platform.evaluation.measurements import clusters_of, scores_of, tidy
from ml_platform.evaluation.metrics import ScoredAnswer
from ml_platform.evaluation.paired import (
    detectable_loss,
    difference_bounds,
    holm,
    mcnemar_p_value,
    mean_detectable_loss,
)
from ml_platform.evaluation.slices import slices_of

Pair = tuple[ScoredAnswer, ScoredAnswer]


def compare_answers(
    candidate: Sequence[ScoredAnswer], reference: Sequence[ScoredAnswer], spec: EvaluationSpec, confidence: float
) -> tuple[Comparison, ...]:
    """Every metric over the items that both answered, then every yes-or-no metric by slice.

    The p-values of one metric's slices are Holm-adjusted together. A metric that applies to no
    common item is absent.
    """
    pairs = _pairs(candidate, reference)
    overall = [compare_rate(metric, pairs, confidence) for metric in rate_metrics(spec)]
    overall += [compare_quantity(metric, pairs, confidence) for metric in QUANTITIES]
    slices = slices_of([one for one, _ in pairs])
    other = {id(one): pair for pair in pairs for one in pair[:1]}
    sliced: list[Comparison] = []
    for metric in rate_metrics(spec):
        of_metric = [
            compare_rate(metric, [other[id(one)] for one in members], confidence, {dimension: value})
            for (dimension, value), members in slices.items()
        ]
        sliced += _holm_adjusted([one for one in of_metric if one.n])
    return tuple(one for one in (*overall, *sliced) if one.n)


def compare_rate(
    metric: str, pairs: Sequence[Pair], confidence: float, slice_: Mapping[str, str] | None = None
) -> Comparison:
    """The paired difference of a share: exact McNemar, score bounds, detectable loss; clustered by entity."""
    candidate, reference, members = _scores(metric, pairs)
    n = len(candidate)
    if n == 0:
        return _nothing(metric, slice_)
    differences = candidate - reference
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    size = effective_n(differences, clusters_of(members), confidence)
    scaled = (gained * size / n, lost * size / n, size)
    bounds = difference_bounds(*scaled, confidence)
    return Comparison(
        metric=metric,
        candidate=tidy(float(candidate.mean())),
        reference=tidy(float(reference.mean())),
        difference=tidy(float(differences.mean())),
        low=tidy(bounds.low),
        high=tidy(bounds.high),
        detectable=tidy(detectable_loss(*scaled, confidence)),
        p_value=tidy(mcnemar_p_value(*scaled[:2])),
        n=n,
        slice=dict(slice_ or {}),
    )


def compare_quantity(metric: str, pairs: Sequence[Pair], confidence: float) -> Comparison:
    """The paired difference of a mean amount, with BCa bootstrap bounds over entities."""
    candidate, reference, members = _scores(metric, pairs)
    n = len(candidate)
    if n == 0:
        return _nothing(metric, None)
    differences = candidate - reference
    clusters = clusters_of(members)
    bounds = ratio_bounds(differences, np.ones_like(differences), clusters, confidence)
    size = effective_n(differences, clusters, confidence)
    return Comparison(
        metric=metric,
        candidate=tidy(float(candidate.mean())),
        reference=tidy(float(reference.mean())),
        difference=tidy(float(differences.mean())),
        low=tidy(bounds.low),
        high=tidy(bounds.high),
        detectable=tidy(mean_detectable_loss(differences, size, confidence)),
        n=n,
    )


def _pairs(candidate: Sequence[ScoredAnswer], reference: Sequence[ScoredAnswer]) -> list[Pair]:
    answered = {one.item.key: one for one in reference}
    return [(one, answered[one.item.key]) for one in candidate if one.item.key in answered]


def _scores(metric: str, pairs: Sequence[Pair]) -> tuple[Floats, Floats, list[ScoredAnswer]]:
    both = [(one, other) for one, other in pairs if metric in one.scores and metric in other.scores]
    members = [one for one, _ in both]
    return scores_of(metric, members), scores_of(metric, [other for _, other in both]), members


def _holm_adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    adjusted = holm([1.0 if one.p_value is None else one.p_value for one in comparisons])
    return [one.model_copy(update={"p_value": tidy(p)}) for one, p in zip(comparisons, adjusted, strict=True)]


def _nothing(metric: str, slice_: Mapping[str, str] | None) -> Comparison:
    return Comparison(
        metric=metric,
        candidate=None,
        reference=None,
        difference=None,
        low=None,
        high=None,
        detectable=None,
        n=0,
        slice=dict(slice_ or {}),
    )
