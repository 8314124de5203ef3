"""Each kind of gate, at its edges."""

import math
from typing import Any

import pytest

from ml_platform.contracts.evidence import CheckResult, Comparison, GateResult, Measurement, Verdict
from ml_platform.contracts.policy import PromotionPolicy
from ml_platform.contracts.report import EvaluationReport
from ml_platform.gates.assess import assess_release
from tests.samples.releases import compared, make_policy, make_report, measured

PASS, FAIL, INCONCLUSIVE, ERROR = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR
POLICY = make_policy()


def verdict_of(gate: str, report: EvaluationReport) -> GateResult:
    return next(result for result in assess_release(POLICY, report) if result.gate == gate)


def with_measurement(changed: Measurement, report: EvaluationReport | None = None) -> EvaluationReport:
    """The report with one measurement in place of that of the same metric and slice."""
    report = report or make_report()
    kept = [m for m in report.measurements if (m.metric, m.slice) != (changed.metric, changed.slice)]
    return report.model_copy(update={"measurements": (*kept, changed)})


def with_comparison(changed: Comparison) -> EvaluationReport:
    report = make_report()
    kept = [c for c in report.comparisons if (c.metric, c.slice) != (changed.metric, changed.slice)]
    return report.model_copy(update={"comparisons": (*kept, changed)})


def with_check(*checks: CheckResult) -> EvaluationReport:
    report = make_report()
    names = {check.check for check in checks}
    return report.model_copy(update={"checks": (*checks, *(c for c in report.checks if c.check not in names))})


def test_a_good_report_passes_every_gate_in_the_policys_order() -> None:
    results = assess_release(POLICY, make_report())
    assert [result.gate for result in results] == list(POLICY.gate_names)
    assert {result.verdict for result in results} == {PASS}


def recall(value: float | None, n: int, low: float | None, high: float | None = 0.99) -> Measurement:
    return measured("late_recall", value, n, low, high)


@pytest.mark.parametrize(
    ("found", "expected", "reason"),
    [
        (recall(0.8, 84, 0.65), PASS, "late_recall is 0.8, its lower bound 0.65 is within the required 0.65 (n = 84)."),
        (
            recall(0.71, 84, 0.62),
            INCONCLUSIVE,
            "late_recall is 0.71, its lower bound 0.62 is below the required 0.65 (n = 84).",
        ),
        (recall(0.6, 84, 0.5), FAIL, "late_recall is 0.6, its lower bound 0.5 is below the required 0.65 (n = 84)."),
        (recall(1.0, 39, 0.9, 1.0), INCONCLUSIVE, "late_recall was measured on 39 item(s), 40 are required."),
        (recall(None, 0, None, None), INCONCLUSIVE, "late_recall was measured on 0 item(s), 40 are required."),
        (recall(0.9, 84, None), INCONCLUSIVE, "late_recall has no lower bound (n = 84)."),
        (recall(None, 84, 0.7), INCONCLUSIVE, "late_recall has no lower bound (n = 84)."),
        (recall(1.2, 84, 1.1, 1.3), ERROR, "late_recall is 1.2, which is no share."),
        (recall(0.7, 84, 0.8), ERROR, "late_recall is 0.7, outside its bounds 0.8 to 0.99."),
        (recall(0.9, 0, None), ERROR, "late_recall is 0.9, measured on nothing."),
    ],
)
def test_a_threshold_is_compared_with_the_bound(found: Measurement, expected: Verdict, reason: str) -> None:
    result = verdict_of("late_recall", with_measurement(found))
    assert (result.verdict, result.reason) == (expected, reason)


def test_a_metric_that_was_not_measured_is_inconclusive() -> None:
    report = make_report(measurements=())
    by_gate = {result.gate: result for result in assess_release(POLICY, report)}
    assert by_gate["late_recall"].verdict is INCONCLUSIVE
    assert by_gate["late_recall"].reason == "late_recall was not measured."
    assert by_gate["cost_within_budget"].verdict is INCONCLUSIVE
    assert by_gate["critical_slices_pass"].verdict is INCONCLUSIVE


def test_a_metric_that_stands_twice_is_an_error() -> None:
    report = make_report()
    twice = report.model_copy(update={"measurements": (*report.measurements, recall(0.99, 84, 0.95, 1.0))})
    assert verdict_of("late_recall", twice).verdict is ERROR


def at(value: float, n: int, high: float | None, **slice_: str) -> Measurement:
    return measured("risk_accuracy", value, n, 0.0, high, slice=slice_)


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        (at(0.5, 30, 0.79, origin="LGA"), FAIL, "at origin = LGA is 0.5, its upper bound 0.79 is below"),
        (at(0.5, 30, 0.80, origin="LGA"), PASS, "The worst of 3 slices, origin = LGA"),
        (at(0.5, 9, 0.7, origin="LGA"), INCONCLUSIVE, "2 slice(s) have 10 items or more, 3 are required"),
        (at(0.5, 30, None, origin="LGA"), INCONCLUSIVE, "no upper bound at origin = LGA"),
        (at(0.9, 30, 0.8, origin="LGA"), ERROR, "outside its bounds"),
    ],
)
def test_a_slice_fails_when_it_is_proven_bad(found: Measurement, expected: Verdict, words: str) -> None:
    result = verdict_of("critical_slices_pass", with_measurement(found))
    assert result.verdict is expected
    assert words in result.reason


@pytest.mark.parametrize("column", ["Product Line", "UPPER", "Größe in €", "a=b", "日本"])
def test_a_slice_may_be_of_any_column_that_a_source_has(column: str) -> None:
    plain = POLICY.model_dump(mode="json")
    (gate,) = (gate for gate in plain["gates"] if gate["kind"] == "slices")
    gate |= {"dimensions": [column], "min_slices": 1}
    policy = PromotionPolicy.parse(plain, where="a test")
    report = with_measurement(at(0.5, 30, 0.79, **{column: "Boreal"}))
    (result,) = (one for one in assess_release(policy, report) if one.gate == gate["gate"])
    assert result.verdict is FAIL
    assert f"at {column} = Boreal is 0.5" in result.reason


def test_a_dimension_without_any_slice_is_inconclusive() -> None:
    report = make_report()
    kept = tuple(m for m in report.measurements if "carrier" not in m.slice)
    result = verdict_of("critical_slices_pass", report.model_copy(update={"measurements": kept}))
    assert (result.verdict, result.reason) == (INCONCLUSIVE, "risk_accuracy was measured on no slice of carrier.")


def test_a_slice_that_was_compared_but_not_measured_is_inconclusive() -> None:
    report = make_report()
    kept = tuple(m for m in report.measurements if m.slice != {"carrier": "HA"})
    result = verdict_of("critical_slices_pass", report.model_copy(update={"measurements": kept}))
    assert result.verdict is INCONCLUSIVE
    assert "compared but not measured at carrier = HA" in result.reason


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        (compared("json_valid", 0.0, -0.0499), PASS, "inside the margin 0.05"),
        (compared("json_valid", 0.0, -0.05), FAIL, "not inside the margin 0.05"),
        (compared("json_valid", -0.2, -0.3), FAIL, "upper bound -0.17 exceed the margin"),
        (compared("json_valid", -0.2, -0.3, detectable=0.5), FAIL, "upper bound -0.17 exceed the margin"),
        (compared("json_valid", 0.0, -0.04, detectable=0.051), INCONCLUSIVE, "losses below 0.051 stay unseen"),
        (compared("json_valid", 0.05, 0.0, detectable=0.2), PASS, "shows that it is no worse"),
        (compared("json_valid", n=99), INCONCLUSIVE, "99 item(s), 100 are required"),
        (compared("json_valid", detectable=None), INCONCLUSIVE, "no bound of its difference"),
        (compared("json_valid", difference=0.0, low=0.01), ERROR, "outside its bounds"),
        (compared("json_valid", candidate=1.4, difference=0.5), ERROR, "no share"),
        (compared("json_valid", candidate=0.95), ERROR, "but its two sides by 0.05"),
        (compared("json_valid", p_value=None), ERROR, "json_valid was not compared as a share"),
    ],
)
def test_a_difference_is_held_against_the_margin(found: Comparison, expected: Verdict, words: str) -> None:
    result = verdict_of("not_worse_than_production", with_comparison(found))
    assert result.verdict is expected, result.reason
    assert words in result.reason


def test_the_worst_metric_of_a_paired_gate_decides() -> None:
    report = make_report(comparisons=(compared("json_valid", 0.0, -0.06),))
    result = verdict_of("not_worse_than_production", report)
    assert result.verdict is FAIL
    assert "risk_accuracy was not compared." in result.reason


@pytest.mark.parametrize(
    ("value", "n", "expected"),
    [(0.001, 50, PASS), (0.00101, 50, FAIL), (0.0001, 49, INCONCLUSIVE), (None, 50, INCONCLUSIVE), (-0.1, 50, ERROR)],
)
def test_a_budget_is_held_against_the_value(value: float | None, n: int, expected: Verdict) -> None:
    found = measured("cost_per_request_usd", value, n, None, None, unit="USD")
    assert verdict_of("cost_within_budget", with_measurement(found)).verdict is expected


@pytest.mark.parametrize(
    ("checks", "expected", "words"),
    [
        ([CheckResult(check="schema_valid", passed=True, examined=5)], PASS, "examined 5 and found nothing wrong"),
        ([CheckResult(check="schema_valid", passed=True, examined=0)], INCONCLUSIVE, "examined nothing"),
        (
            [CheckResult(check="schema_valid", passed=False, examined=5, problems=("Row 3 is late.",))],
            FAIL,
            "Row 3 is late.",
        ),
        ([CheckResult(check="schema_valid", passed=False, examined=5)], FAIL, "names no problem"),
        (
            [CheckResult(check="schema_valid", passed=True, examined=5, problems=("Row 3 is late.",))],
            ERROR,
            "says that it passed, and names problems",
        ),
        ([CheckResult(check="schema_valid", passed=True, examined=5)] * 2, ERROR, "2 times"),
    ],
)
def test_a_check_passes_when_it_looked_and_found_nothing(
    checks: list[CheckResult], expected: Verdict, words: str
) -> None:
    result = verdict_of("schema_valid", with_check(*checks))
    assert result.verdict is expected
    assert words in result.reason


def test_bounds_at_another_confidence_are_an_error_for_every_gate() -> None:
    results = assess_release(POLICY, make_report(confidence=0.9))
    assert {result.verdict for result in results} == {ERROR}
    assert "confidence 0.9, the policy demands 0.95" in results[0].reason


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, "0.9", object(), [0.9]])
@pytest.mark.parametrize("field", ["value", "low", "high", "n"])
def test_a_number_that_is_none_never_passes_and_never_raises(field: str, wrong: Any) -> None:
    good = measured("late_recall", 0.8, 84, 0.71, 0.87)
    bad = Measurement.model_construct(**{**good.__dict__, field: wrong})
    report = make_report()
    kept = [m for m in report.measurements if m.metric != "late_recall"]
    forged = EvaluationReport.model_construct(**{**report.__dict__, "measurements": (*kept, bad)})
    results = assess_release(POLICY, forged)
    assert {result.verdict for result in results} == {ERROR}
    assert all(result.canonical_bytes() for result in results)


def test_a_report_that_is_no_report_at_all_is_an_error() -> None:
    results = assess_release(POLICY, EvaluationReport.model_construct())
    assert {result.verdict for result in results} == {ERROR}
