"""Outputs compared: every kind of label that an answer may hold, and what holds none."""

import pytest

from ml_platform.contracts.drift import DriftPart, Moved
from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.monitoring.drift.columns import compare_table, corrected
from ml_platform.monitoring.drift.outputs import UNREADABLE, output_table
from tests.samples.monitoring import monitor_policy
from tests.samples.provenance import make_record

POLICY = monitor_policy().drift
EVALUATION = EvaluationSpec.parse(
    {
        "answer_format": "json",
        "fields": {"late": {"kind": "label"}},
        "max_test_examples": 10,
        "max_reference_examples": 10,
        "latency_requests": 1,
        "decoding": {"max_new_tokens": 8, "batch_size": 1},
        "cost": {"input_usd_per_million": 0.1, "output_usd_per_million": 0.1},
    },
    where="a test",
)


def answers(first: int, label: str) -> list[ProvenanceRecord]:
    return [make_record(first + n, answer=f'{{"late": {label}}}') for n in range(200)]


@pytest.mark.parametrize(("before", "after"), [("true", "false"), ("1", "2"), ("0.5", "1.5"), ('"yes"', '"no"')])
def test_a_label_of_any_kind_that_changes_has_drifted(before: str, after: str) -> None:
    table = output_table(answers(0, before), answers(500, after), EVALUATION)
    found = {one.column: one for one in corrected(compare_table(DriftPart.OUTPUTS, table, POLICY, 3), POLICY)}
    assert found["late"].moved is Moved.DRIFTED
    assert found["late"].new_values == (after.strip('"'),)


@pytest.mark.parametrize("value", ["null", "[1]", '{"a": 1}'])
def test_what_is_no_label_is_unreadable(value: str) -> None:
    table = output_table(answers(0, value), answers(500, "not json"), EVALUATION)
    assert {*table.reference["late"], *table.current["late"]} == {UNREADABLE}
