"""A finding: a verdict with its reason and numbers; and what makes numbers impossible to believe."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ml_platform.contracts.evidence import Comparison, Measurement, Verdict
from ml_platform.gates.wording import number, slice_name

PASS, FAIL, INCONCLUSIVE, ERROR = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR

SEVERITY = {PASS: 0, INCONCLUSIVE: 1, FAIL: 2, ERROR: 3}
"""Of several findings for one gate, the most severe decides."""

TOLERANCE = 1e-9
"""Reports keep ten digits, so a bound may stand this far on the wrong side of its value."""


@dataclass(frozen=True)
class Finding:
    """A verdict with its reason in sentences and the numbers it rests on."""

    verdict: Verdict
    reason: str
    measurements: tuple[Measurement, ...] = ()
    comparisons: tuple[Comparison, ...] = ()


def contradiction(measurements: Sequence[Measurement]) -> str:
    """Why measurements of one metric cannot be true: repeated, or a number outside its range; else empty."""
    for index, one in enumerate(measurements):
        name = one.metric + (f" at {slice_name(one.slice)}" if one.slice else "")
        if any(other.slice == one.slice for other in measurements[:index]):
            return f"{name} is in the report more than once."
        if one.n == 0 and one.value is not None:
            return f"{name} is {number(one.value)}, measured on nothing."
        if one.unit == "share" and not _within(0.0, one.value, 1.0):
            return f"{name} is {number(one.value)}, which is no share."
        contained = (one.low, one.value, one.high) if one.unit == "share" else (one.low, None, one.high)
        if not _ordered(*contained):
            return f"{name} is {number(one.value)}, outside its bounds {number(one.low)} to {number(one.high)}."
    return ""


def impossible(one: Comparison) -> str:
    """Why a comparison of shares cannot be true, else empty."""
    for side, value in (("candidate", one.candidate), ("reference", one.reference)):
        if not _within(0.0, value, 1.0):
            return f"{one.metric} of the {side} is {number(value)}, which is no share; use a budget gate for amounts."
    if one.n == 0 and one.difference is not None:
        return f"{one.metric} was compared on nothing."
    if one.n and one.p_value is None:  # as only what is yes or no has one: of an amount, more may be worse
        return f"{one.metric} was not compared as a share; use a budget gate for amounts."
    if None not in (one.candidate, one.reference, one.difference):
        expected = (one.candidate or 0.0) - (one.reference or 0.0)
        if abs(expected - (one.difference or 0.0)) > 1e-6:
            return f"{one.metric} differs by {number(one.difference)}, but its two sides by {number(expected)}."
    if not _ordered(one.low, one.difference, one.high):
        return (
            f"{one.metric} differs by {number(one.difference)}, outside its bounds {number(one.low)} to "
            f"{number(one.high)}."
        )
    if one.detectable is not None and one.detectable < 0:
        return f"{one.metric}: the detectable loss is {number(one.detectable)}, below zero."
    return ""


def _within(low: float, value: float | None, high: float) -> bool:
    return value is None or low - TOLERANCE <= value <= high + TOLERANCE


def _ordered(*values: float | None) -> bool:
    there = [value for value in values if value is not None]
    return all(low <= high + TOLERANCE for low, high in pairwise(there))
