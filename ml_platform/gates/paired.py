"""Gates on paired differences: the candidate against what serves now, on the same questions."""

from collections.abc import Sequence

from ml_platform.contracts.evidence import Comparison, Verdict
from ml_platform.contracts.policy import PairedGate
from ml_platform.gates.finding import ERROR, FAIL, INCONCLUSIVE, PASS, SEVERITY, Finding, impossible
from ml_platform.gates.wording import number, sentence, too_few


def assess_paired(gate: PairedGate, comparisons: Sequence[Comparison]) -> Finding:
    """PASS when every metric is shown to be not worse by the margin; otherwise the worst metric decides."""
    findings = [_assess_difference(gate, metric, comparisons) for metric in gate.metrics]
    verdict = max((found.verdict for found in findings), key=SEVERITY.__getitem__)
    reasons = [found.reason for found in findings if found.verdict is not PASS or verdict is PASS]
    return Finding(verdict, " ".join(reasons), (), tuple(one for found in findings for one in found.comparisons))


def _assess_difference(gate: PairedGate, metric: str, comparisons: Sequence[Comparison]) -> Finding:
    found = tuple(one for one in comparisons if one.metric == metric and not one.slice)
    if not found:
        return Finding(INCONCLUSIVE, f"{metric} was not compared.")
    one = found[0]
    if fault := f"{metric} was compared {len(found)} times." if len(found) > 1 else impossible(one):
        return Finding(ERROR, fault, (), found)
    if one.n < gate.min_n:
        return Finding(INCONCLUSIVE, too_few(metric, one.n, gate.min_n), (), found)
    if one.difference is None or one.low is None or one.detectable is None:
        return Finding(INCONCLUSIVE, f"{metric} has no bound of its difference (n = {one.n:,}).", (), found)
    verdict, why = _weigh(one, one.low, one.detectable, gate.margin)
    words = f"{metric} changed by {number(one.difference, signed=True)}, its lower bound {number(one.low, signed=True)}"
    return Finding(verdict, sentence(f"{words} {why}", one.n), (), found)


def _weigh(one: Comparison, low: float, detectable: float, margin: float) -> tuple[Verdict, str]:
    """What a bound says against the margin; where better is proven, the power to see worse does not matter."""
    if one.high is not None and one.high < -margin:
        return FAIL, f"and its upper bound {number(one.high, signed=True)} exceed the margin {number(margin)}"
    if low >= 0.0:
        return PASS, "shows that it is no worse"
    if detectable > margin:
        return (
            INCONCLUSIVE,
            f"proves nothing: losses below {number(detectable)} stay unseen, the margin is {number(margin)}",
        )
    if low > -margin:
        return PASS, f"is inside the margin {number(margin)}"
    return FAIL, f"is not inside the margin {number(margin)}"
