"""Gates on one check or one metric: checks of the chain, thresholds with bounds, budgets."""

from collections.abc import Sequence

from ml_platform.contracts.evidence import CheckResult, Measurement
from ml_platform.contracts.policy import BudgetGate, CheckGate, ThresholdGate
from ml_platform.gates.finding import ERROR, FAIL, INCONCLUSIVE, PASS, Finding, contradiction
from ml_platform.gates.wording import number, sentence, too_few


def assess_check(gate: CheckGate, checks: Sequence[CheckResult]) -> Finding:
    """PASS when the check looked at something and found nothing wrong."""
    found = [check for check in checks if check.check == gate.check]
    if len(found) > 1:
        return Finding(ERROR, f"The check {gate.check} is in the report {len(found)} times.")
    if not found:
        return Finding(INCONCLUSIVE, f"The check {gate.check} is not in the report.")
    check = found[0]
    if check.passed and check.problems:
        return Finding(ERROR, f"The check {gate.check} says that it passed, and names problems: {check.problems[0]}")
    if not check.passed:
        problems = " ".join(check.problems[:3]) or "It names no problem."
        return Finding(FAIL, f"{gate.check} found {max(1, len(check.problems))} problem(s). {problems}")
    if check.examined == 0:
        return Finding(INCONCLUSIVE, f"{gate.check} examined nothing.")
    return Finding(PASS, f"{gate.check} examined {check.examined:,} and found nothing wrong.")


def assess_threshold(gate: ThresholdGate, measurements: Sequence[Measurement]) -> Finding:
    """PASS when the confidence bound is on the right side, FAIL when not even the value is."""
    found = _single(gate.metric, gate.min_n, measurements)
    if isinstance(found, Finding):
        return found
    lower = gate.at_least is not None
    bound, limit, sign = (found.low, gate.at_least, 1.0) if lower else (found.high, gate.at_most, -1.0)
    side, wrong = ("lower", "below") if lower else ("upper", "above")
    if found.value is None or bound is None or limit is None:
        return Finding(INCONCLUSIVE, f"{gate.metric} has no {side} bound (n = {found.n:,}).", (found,))
    if sign * bound >= sign * limit:
        verdict, compared = PASS, "within"
    else:
        verdict, compared = (FAIL if sign * found.value < sign * limit else INCONCLUSIVE), wrong
    words = f"{gate.metric} is {number(found.value)}, its {side} bound {number(bound)} is {compared} the required"
    return Finding(verdict, sentence(f"{words} {number(limit)}", found.n), (found,))


def assess_budget(gate: BudgetGate, measurements: Sequence[Measurement]) -> Finding:
    """PASS when the measured value is at most the budget."""
    found = _single(gate.metric, gate.min_n, measurements)
    if isinstance(found, Finding):
        return found
    if found.value is None:
        return Finding(INCONCLUSIVE, f"{gate.metric} has no value (n = {found.n:,}).", (found,))
    if found.value < 0:
        return Finding(ERROR, f"{gate.metric} is {number(found.value)}, which cannot be.", (found,))
    unit = f" {found.unit}" if found.unit else ""
    verdict, compared = (PASS, "within") if found.value <= gate.at_most else (FAIL, "above")
    words = f"{gate.metric} is {number(found.value)}{unit}, {compared} the budget of {number(gate.at_most)}{unit}"
    return Finding(verdict, sentence(words, found.n), (found,))


def _single(metric: str, min_n: int, measurements: Sequence[Measurement]) -> Measurement | Finding:
    """The measurement over all items, or the finding that says why there is none to decide on."""
    found = [one for one in measurements if one.metric == metric and not one.slice]
    if not found:
        return Finding(INCONCLUSIVE, f"{metric} was not measured.")
    if fault := contradiction(found):
        return Finding(ERROR, fault, tuple(found))
    if found[0].n < min_n:
        return Finding(INCONCLUSIVE, too_few(metric, found[0].n, min_n), tuple(found))
    return found[0]
