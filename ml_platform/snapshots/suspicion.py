"""Suspicion: statistics that tell when one value gives another away. Pure functions of pairs."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

Pair = tuple[Any, Any]

MIN_PAIRS = 30
MIN_OF_EACH = 5
SURE = 0.99
FEW_VALUES_SHARE = 0.2


def foretells(pairs: Sequence[Pair]) -> str:
    """How surely the first value of the pairs tells the second, in words; empty when it does not.

    Needs MIN_PAIRS pairs without None, and an outcome that varies. Numbers are judged by their ranks: the area
    under the ROC curve for a yes-or-no outcome (Mann-Whitney), Spearman's correlation for others. Values
    of other kinds are judged by how often the commonest outcome of each value comes true, and only when
    a fifth as many values as pairs or fewer occur: an identifier always tells its own outcome.
    """
    known = [(fact, outcome) for fact, outcome in pairs if fact is not None and outcome is not None]
    if len(known) < MIN_PAIRS or not _varies(outcome for _, outcome in known):
        return ""
    facts, outcomes = [fact for fact, _ in known], [outcome for _, outcome in known]
    if _numeric(facts) and _numeric(outcomes):
        return _by_rank([float(fact) for fact in facts], [float(outcome) for outcome in outcomes])
    return _by_purity(facts, outcomes)


def repeats(pairs: Sequence[Pair]) -> bool:
    """Whether the first value equals the second in nearly all pairs, by more than the commonest value explains."""
    known = [(fact, value) for fact, value in pairs if fact is not None and value is not None and value == value]
    if len(known) < MIN_PAIRS:
        return False
    commonest = Counter(_same(value) for _, value in known).most_common(1)[0][1] / len(known)
    equal = sum(_same(fact) == _same(value) for fact, value in known) / len(known)
    return equal >= SURE and commonest <= 1.0 - MIN_OF_EACH / len(known)


def _by_rank(facts: list[float], outcomes: list[float]) -> str:
    from scipy.stats import rankdata, spearmanr

    if not _varies(facts):
        return ""
    if len(set(outcomes)) > 2:
        correlation = float(spearmanr(facts, outcomes).statistic)
        return f"rank correlation {correlation:.3f}" if abs(correlation) >= SURE else ""
    high = max(outcomes)
    positives = [rank for rank, outcome in zip(rankdata(facts), outcomes, strict=True) if outcome == high]
    n, m = len(positives), len(outcomes) - len(positives)
    area = (math.fsum(positives) - n * (n + 1) / 2) / (n * m)
    return f"area under the ROC curve {max(area, 1 - area):.3f}" if max(area, 1 - area) >= SURE else ""


def _by_purity(facts: Sequence[Any], outcomes: Sequence[Any]) -> str:
    groups: dict[Any, Counter[Any]] = defaultdict(Counter)
    for fact, outcome in zip(facts, outcomes, strict=True):
        groups[_same(fact)][_same(outcome)] += 1
    if not 2 <= len(groups) <= FEW_VALUES_SHARE * len(facts):
        return ""
    right = sum(counts.most_common(1)[0][1] for counts in groups.values()) / len(facts)
    return f"right in {right:.1%}" if right >= SURE else ""


def _varies(values: Any) -> bool:
    """Whether at least two values occur, and all but the commonest together MIN_OF_EACH times."""
    counts = Counter(_same(value) for value in values)
    return counts.total() - counts.most_common(1)[0][1] >= MIN_OF_EACH


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _same(value: Any) -> Any:
    """A spelling under which equal values are equal: numbers to 9 digits, True as 1."""
    return f"{float(value):.9g}" if isinstance(value, int | float) else str(value)
