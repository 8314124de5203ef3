"""Slices: the same metrics where they may hide, by every dimension that the examples carry."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.evidence import Measurement
from ml_platform.contracts.metrics import rate_metrics
from ml_platform.evaluation.measurements import measure_rate
from ml_platform.evaluation.metrics import ScoredAnswer

SET = "set"
"""The dimension that tells the test split from each golden set; a product's own `set` takes precedence."""


def slices_of(scored: Sequence[ScoredAnswer]) -> dict[tuple[str, str], tuple[ScoredAnswer, ...]]:
    """The items of every slice: by dimension, then the largest first, then by value.

    Where the questions of users come from several sets, the set is a dimension too.
    """
    members: defaultdict[tuple[str, str], list[ScoredAnswer]] = defaultdict(list)
    several = len({one.item.items for one in scored if one.example.kind == "answer"}) > 1
    for one in scored:
        dimensions = {SET: one.item.items} if several and one.example.kind == "answer" else {}
        for dimension, value in {**dimensions, **one.example.slices}.items():
            members[dimension, value].append(one)
    ordered = sorted(members, key=lambda key: (key[0], -len(members[key]), key[1]))
    return {key: tuple(members[key]) for key in ordered}


def measure_slices(
    slices: Mapping[tuple[str, str], Sequence[ScoredAnswer]], spec: EvaluationSpec, confidence: float
) -> tuple[Measurement, ...]:
    """Every yes-or-no metric on every slice that has items for it."""
    found = (
        measure_rate(metric, members, confidence, {dimension: value})
        for (dimension, value), members in slices.items()
        for metric in rate_metrics(spec)
    )
    return tuple(one for one in found if one.n)
