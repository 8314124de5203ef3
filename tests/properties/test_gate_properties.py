"""What must hold of every gate, whatever was measured."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.contracts.evidence import Comparison, GateResult, Measurement, Verdict
from ml_platform.contracts.report import EvaluationReport
from ml_platform.gates.assess import assess_release
from tests.samples.releases import compared, make_policy, make_report, measured

POLICY = make_policy()
RANK = {Verdict.ERROR: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 2, Verdict.PASS: 3}
shares = st.floats(0.0, 1.0)
counts = st.integers(0, 200)
losses = st.floats(0.0, 0.5)


@dataclass(frozen=True)
class Parts:
    """What a report of the sample policy is made of."""

    recall: tuple[float, float, float]
    slices: tuple[tuple[float, float], ...]
    difference: tuple[float, float, float]
    detectable: float
    cost: float
    n: int

    def report(self) -> EvaluationReport:
        low, value, high = self.recall
        worst, difference, best = self.difference
        names = [{"origin": "JFK"}, {"origin": "LGA"}, {"carrier": "UA"}]
        slices = [
            measured("risk_accuracy", value, self.n, 0.0, high, slice=name)
            for name, (value, high) in zip(names, self.slices, strict=True)
        ]
        reference = 0.5
        pair = {"candidate": reference + difference, "reference": reference, "high": best, "n": self.n}
        return make_report(
            measurements=(
                measured("late_recall", value, self.n or 1, low, high),
                measured("cost_per_request_usd", self.cost, self.n, None, None, unit="USD"),
                measured("latency_p95_ms", 1500.0, 20, None, None, unit="ms"),
                *[one for one in slices if self.n],
            ),
            comparisons=tuple(
                compared(metric, difference, worst, detectable=self.detectable, **pair)
                for metric in ("json_valid", "risk_accuracy")
            )
            + tuple(compared("risk_accuracy", n=20, slice=one.slice) for one in slices if self.n),
        )


def ordered(low: float, high: float, size: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.lists(st.floats(low, high), min_size=size, max_size=size).map(sorted).map(tuple)


parts = st.builds(
    Parts,
    recall=ordered(0.0, 1.0, 3),
    slices=st.tuples(*[ordered(0.0, 1.0, 2)] * 3),
    difference=ordered(-0.5, 0.5, 3),
    detectable=st.floats(0.0, 0.3),
    cost=st.floats(0.0, 0.01),
    n=counts,
)


def verdicts(report: EvaluationReport) -> dict[str, GateResult]:
    return {result.gate: result for result in assess_release(POLICY, report)}


@given(parts, losses, losses, losses, losses)
def test_worse_evidence_never_improves_a_verdict(
    found: Parts, recall: float, slices: float, difference: float, cost: float
) -> None:
    def down(values: tuple[float, ...], loss: float, floor: float) -> tuple[float, ...]:
        return tuple(max(floor, value - loss) for value in values)

    worse = Parts(
        recall=down(found.recall, recall, 0.0),  # type: ignore[arg-type]
        slices=tuple(down(one, slices, 0.0) for one in found.slices),  # type: ignore[misc]
        difference=down(found.difference, difference, -0.5),  # type: ignore[arg-type]
        detectable=found.detectable,
        cost=found.cost + cost,
        n=found.n,
    )
    before, after = verdicts(found.report()), verdicts(worse.report())
    for gate in before:
        assert RANK[after[gate].verdict] <= RANK[before[gate].verdict], (before[gate].reason, after[gate].reason)


@given(parts, st.data())
def test_evidence_that_is_taken_away_never_makes_a_gate_pass(found: Parts, data: st.DataObject) -> None:
    report = found.report()
    field = data.draw(st.sampled_from(["measurements", "comparisons", "checks"]))
    values = getattr(report, field)
    gone = data.draw(st.integers(0, len(values) - 1))
    less = report.model_copy(update={field: values[:gone] + values[gone + 1 :]})
    before, after = verdicts(report), verdicts(less)
    for gate, result in after.items():
        assert result.verdict is not Verdict.PASS or before[gate].verdict is Verdict.PASS, result.reason


@given(parts, st.integers(0, 199))
def test_fewer_items_never_make_a_gate_pass(found: Parts, fewer: int) -> None:
    before = verdicts(found.report())
    after = verdicts(Parts(**{**found.__dict__, "n": max(0, found.n - fewer)}).report())
    for gate, result in after.items():
        assert result.verdict is not Verdict.PASS or before[gate].verdict is Verdict.PASS, result.reason


anything = st.one_of(st.none(), st.floats(), st.text(max_size=3), st.integers(), st.lists(st.floats(), max_size=2))


@settings(max_examples=300)
@given(st.data())
def test_rubbish_ends_as_a_verdict_with_a_reason(data: st.DataObject) -> None:
    report = make_report()
    index = data.draw(st.integers(0, len(report.measurements) + len(report.comparisons) - 1))
    rows: list[Measurement | Comparison] = [*report.measurements, *report.comparisons]
    row = rows[index]
    field = data.draw(st.sampled_from(sorted(type(row).model_fields)))
    wrong = data.draw(anything)
    rows[index] = type(row).model_construct(**{**row.__dict__, field: wrong})
    split = len(report.measurements)
    forged = EvaluationReport.model_construct(
        **{**report.__dict__, "measurements": tuple(rows[:split]), "comparisons": tuple(rows[split:])}
    )
    for result in assess_release(POLICY, forged):
        assert result.reason
        assert result.canonical_bytes()


@given(parts)
def test_every_reason_is_a_sentence_with_a_number(found: Parts) -> None:
    for result in assess_release(POLICY, found.report()):
        assert result.reason.endswith("."), result.reason
        assert result.verdict is not Verdict.PASS or any(letter.isdigit() for letter in result.reason)
