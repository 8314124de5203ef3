"""Gates: what a promotion policy demands of an evaluation report, decided without looking anywhere else.

Only PASS lets a release through, and whatever is missing, too little, contradictory or no number is not PASS:
FAIL is shown to be wrong, INCONCLUSIVE cannot be told from what was measured, ERROR is data that cannot be true.
"""

from ml_platform.contracts.evidence import GateResult, Verdict
from ml_platform.contracts.policy import (
    BudgetGate,
    CheckGate,
    Gate,
    PairedGate,
    PromotionPolicy,
    SliceGate,
    ThresholdGate,
)
from ml_platform.contracts.report import EvaluationReport
from ml_platform.gates.finding import Finding
from ml_platform.gates.paired import assess_paired
from ml_platform.gates.rules import assess_budget, assess_check, assess_threshold
from ml_platform.gates.slices import assess_slices
from ml_platform.gates.wording import number


def assess_release(policy: PromotionPolicy, report: EvaluationReport) -> tuple[GateResult, ...]:
    """One verdict for each gate of the policy, in its order; never raises, whatever the report holds."""
    fault = report_fault(policy, report)
    wrong = Finding(Verdict.ERROR, fault)
    return tuple(_result(gate, wrong if fault else assess_gate(gate, report)) for gate in policy.gates)


def report_fault(policy: PromotionPolicy, report: EvaluationReport) -> str:
    """Why nothing in the report can be believed; empty when it is a report at the policy's confidence."""
    try:
        again = EvaluationReport.model_validate(report.model_dump(warnings=False))
        same = again.canonical_bytes() == report.canonical_bytes()
    except Exception as error:  # noqa: BLE001 - a report of any shape must end as a verdict
        lines = [line for line in str(error).splitlines() if line] or [type(error).__name__]
        return f"The evaluation report is not valid: {' '.join(lines[:3])}"
    if not same:
        return "The evaluation report is not valid: its values are not of the promised types."
    if report.confidence != policy.confidence:
        return (
            f"The report's bounds hold at confidence {number(report.confidence)}, the policy demands "
            f"{number(policy.confidence)}. Evaluate the candidate again."
        )
    return ""


def assess_gate(gate: Gate, report: EvaluationReport) -> Finding:
    """The one dispatch from a kind of gate to the function that decides it; the report must be valid."""
    match gate:
        case CheckGate():
            return assess_check(gate, report.checks)
        case ThresholdGate():
            return assess_threshold(gate, report.measurements)
        case SliceGate():
            return assess_slices(gate, report.measurements, report.comparisons)
        case PairedGate():
            return assess_paired(gate, report.comparisons)
        case BudgetGate():
            return assess_budget(gate, report.measurements)


def _result(gate: Gate, finding: Finding) -> GateResult:
    return GateResult(
        gate=gate.gate,
        claim=gate.claim,
        verdict=finding.verdict,
        reason=finding.reason,
        measurements=finding.measurements,
        comparisons=finding.comparisons,
    )
