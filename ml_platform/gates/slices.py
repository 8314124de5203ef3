"""Gates on slices: no part of the users may be let down behind a good average."""

from collections.abc import Sequence

from ml_platform.contracts.evidence import Comparison, Measurement
from ml_platform.contracts.policy import SliceGate
from ml_platform.gates.finding import ERROR, FAIL, INCONCLUSIVE, PASS, Finding, contradiction
from ml_platform.gates.wording import number, sentence, slice_name


def assess_slices(
    gate: SliceGate, measurements: Sequence[Measurement], comparisons: Sequence[Comparison] = ()
) -> Finding:
    """PASS when enough slices are large enough and none is proven to be below the threshold.

    A dimension without any slice, and a slice that was compared but not measured, are INCONCLUSIVE.
    """
    own = [one for one in measurements if one.metric == gate.metric and _dimension(one) in gate.dimensions]
    if fault := contradiction(own):
        return Finding(ERROR, fault, tuple(own))
    if lost := _lost(gate, own, comparisons):
        return Finding(INCONCLUSIVE, lost, tuple(own))
    large = tuple(one for one in own if one.n >= gate.min_n)
    if len(large) < gate.min_slices:
        words = f"{len(large)} slice(s) have {gate.min_n} items or more, {gate.min_slices} are required."
        return Finding(INCONCLUSIVE, f"{gate.metric}: {words}", large)
    failing = [one for one in large if one.high is not None and one.high < gate.at_least]
    if failing:
        return Finding(FAIL, " ".join(_failure(one, gate) for one in failing), large)
    unbounded = [one for one in large if one.high is None or one.value is None]
    if unbounded:
        where = slice_name(unbounded[0].slice)
        return Finding(INCONCLUSIVE, f"{gate.metric} has no upper bound at {where}.", large)
    worst = min(large, key=lambda one: one.value or 0.0)
    words = f"The worst of {len(large)} slices, {slice_name(worst.slice)}, has {gate.metric} {number(worst.value)}"
    return Finding(PASS, sentence(f"{words}, upper bound {number(worst.high)}", worst.n), large)


def _lost(gate: SliceGate, own: Sequence[Measurement], comparisons: Sequence[Comparison]) -> str:
    """What should have been measured and was not, in a sentence; empty when nothing is known to be missing."""
    missing = sorted(set(gate.dimensions) - {_dimension(one) for one in own})
    if missing:
        return f"{gate.metric} was measured on no slice of {', '.join(missing)}."
    measured = [one.slice for one in own]
    for one in comparisons:
        if one.metric == gate.metric and _dimension(one) in gate.dimensions and one.slice not in measured:
            return f"{gate.metric} was compared but not measured at {slice_name(one.slice)}."
    return ""


def _dimension(one: Measurement | Comparison) -> str:
    """The dimension of a slice of one; empty for all items and for crossed dimensions."""
    return next(iter(one.slice)) if len(one.slice) == 1 else ""


def _failure(one: Measurement, gate: SliceGate) -> str:
    words = f"{gate.metric} at {slice_name(one.slice)} is {number(one.value)}, its upper bound {number(one.high)}"
    return sentence(f"{words} is below the required {number(gate.at_least)}", one.n)
