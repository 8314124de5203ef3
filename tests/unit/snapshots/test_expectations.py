"""Expectations run on every snapshot, with or without a file of the product's own, and name every failing row."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pandas as pd
import pytest

from ml_platform.contracts.evidence import CheckResult
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Progress
from ml_platform.errors import ContractError
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.snapshots.expectations import check_expectations
from ml_platform.snapshots.extract import take_snapshot

MakeProduct = Callable[..., Product]
Row = Callable[..., dict[str, str]]
NOW = datetime(2024, 6, 1, tzinfo=UTC)

SUITE = """
version: 1.2.0
tables:
  tickets:
    - expect: column_values_to_be_between
      arguments: {column: priority, min_value: 0, max_value: %s}
      why: three levels
"""


@pytest.fixture
def examine(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> Callable[[str | None], tuple[Artifact, CheckResult]]:
    def run(expectations: str | None, **changes: Any) -> tuple[Artifact, CheckResult]:
        product = make_product(expectations=expectations, **changes)
        rows = [ticket_row(number) for number in range(12)]
        pd.DataFrame(rows).to_csv(product.folder / "tickets.csv", index=False)
        snapshot = take_snapshot(product, date(2024, 5, 2), store, now=NOW)
        result = check_expectations(product, snapshot, store)
        return result, CheckResult.model_validate(result.facts["check"])

    return run


Examine = Callable[..., tuple[Artifact, CheckResult]]


def lines(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.file(name).read_text().splitlines()]


def test_expectations_that_hold_pass_and_say_how_much_was_examined(examine: Examine) -> None:
    result, check = examine(SUITE % 2)
    assert check == CheckResult(check="schema_valid", passed=True, examined=12)
    assert lines(result, "failing_rows.jsonl") == []
    assert json.loads(result.file("result.json").read_text())["passed"] is True


def test_a_failing_expectation_fails_the_check_and_names_its_rows(examine: Examine) -> None:
    result, check = examine(SUITE % 1)
    assert not check.passed
    (problem,) = check.problems
    assert "priority values must be greater than or equal to 0" in problem
    assert "(three levels) Found: 4 of 12 unexpected; first:" in problem
    failing = lines(result, "failing_rows.jsonl")
    assert [row["row"]["ticket_id"] for row in failing] == ["T0002", "T0005", "T0008", "T0011"]
    assert failing[0]["row"]["asked_at"] == "2024-05-01T02:00:00.000000Z"


def test_a_product_without_expectations_still_gets_its_schema_checked(examine: Examine) -> None:
    result, check = examine(None)
    assert check.passed
    held = {finding["expectation"] for finding in json.loads(result.file("result.json").read_text())["findings"]}
    assert held == {
        "columns_to_have_declared_types",
        "nothing_to_be_known_after_the_cutoff",
        "table_row_count_to_be_between",
        "table_columns_to_match_ordered_list",
        "column_values_to_be_unique",
        "column_values_to_not_be_null",
    }


def test_an_open_row_from_after_the_cutoff_fails_though_its_known_at_is_empty(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    loose = make_product(known_at=None, event_time=None, nullable=["score", "known_at"])
    rows = [ticket_row(1, known_at=""), ticket_row(2, known_at="", asked_at="2024-05-09T00:00Z")]
    pd.DataFrame(rows).to_csv(loose.folder / "tickets.csv", index=False)
    snapshot = take_snapshot(loose, date(2024, 5, 2), store, now=NOW)
    found = {}
    for ahead in (False, True):
        product = make_product(nullable=["score", "known_at"], known_ahead=ahead)
        result = json.loads(check_expectations(product, snapshot, store).file("result.json").read_text())
        (found[ahead],) = [
            one for one in result["findings"] if one["expectation"] == "nothing_to_be_known_after_the_cutoff"
        ]
    told = {ahead: (one["passed"], one["failing"], one["observed"]) for ahead, one in found.items()}
    assert told == {False: (False, 1, "newest 2024-05-09 00:00Z"), True: (True, 0, "no times")}


def test_a_snapshot_that_does_not_fit_its_schema_fails_every_schema_check(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    """The checks judge the stored table, not the extraction's word: here it was taken under a looser declaration."""
    loose = make_product(known_at=None, event_time=None, nullable=["score", "answer"], key=["ticket_id", "question"])
    rows = [ticket_row(1), ticket_row(1, question="Again?"), ticket_row(2, answer="", known_at="2024-05-09T00:00Z")]
    pd.DataFrame(rows).to_csv(loose.folder / "tickets.csv", index=False)
    snapshot = take_snapshot(loose, date(2024, 5, 2), store, now=NOW)
    strict = make_product(
        columns={
            **{name: str(kind) for name, kind in loose.spec.sources["tickets"].columns.items()},
            "priority": "number",
        }
    )
    check = CheckResult.model_validate(check_expectations(strict, snapshot, store).facts["check"])
    assert not check.passed
    told = "\n".join(check.problems)
    assert "priority is int64, declared number" in told
    assert "known_at must not lie after the cutoff 2024-05-03 00:00Z" in told
    assert "ticket_id values must be unique" in told
    assert "answer values must never be null" in told
    assert len(check.problems) == 4


UNKNOWN = {
    "expectation": ("expect: column_values_to_be_betwen", "did you mean 'column_values_to_be_between'"),
    "column": ("expect: column_values_to_be_unique\n      arguments: {column: ticketid}", "did you mean 'ticket_id'"),
    "argument": (
        "expect: column_values_to_be_between\n      arguments: {column: score, minimum: 1}",
        "did you mean 'min_value'",
    ),
    "value": (
        "expect: column_values_to_be_between\n      arguments: {column: score, min_value: 3, mostly: 2}",
        "do not fit: .*mostly",
    ),
    "missing argument": ("expect: column_values_to_be_between\n      arguments: {column: score}", "do not fit: .*None"),
    "key": ("expects: column_values_to_be_unique", "did you mean 'expect'"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_does_not_exist_is_a_contract_error_with_the_nearest_name(case: str, examine: Examine) -> None:
    entry, message = UNKNOWN[case]
    with pytest.raises(ContractError, match=rf"(?s)expectations\.yaml.*tickets.*{message}"):
        examine(f"version: 1.0.0\ntables:\n  tickets:\n    - {entry}\n")


def test_an_unknown_table_is_a_contract_error(examine: Examine) -> None:
    with pytest.raises(ContractError, match="there is no table 'ticket': did you mean 'tickets'"):
        examine("version: 1.0.0\ntables:\n  ticket: []\n")


def test_an_expectation_that_cannot_be_evaluated_fails_instead_of_passing(examine: Examine) -> None:
    _, check = examine(
        "version: 1.0.0\ntables:\n  tickets:\n    - expect: column_values_to_be_between\n"
        "      arguments: {column: question, min_value: 0}\n"
    )
    assert not check.passed
    assert "question values must be" in check.problems[0]


def test_the_result_is_reused_and_the_same_everywhere(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row, tmp_path: Any
) -> None:
    product = make_product(expectations=SUITE % 1)
    pd.DataFrame([ticket_row(number) for number in range(12)]).to_csv(product.folder / "tickets.csv", index=False)
    snapshot = take_snapshot(product, date(2024, 5, 2), store, now=NOW)
    told: list[Progress] = []
    first = check_expectations(product, snapshot, store, told.append)
    assert told[-1].sentence() == "expectations 100 % · 1 fail, 12 rows examined"
    assert check_expectations(product, snapshot, store).reused
    elsewhere = check_expectations(product, snapshot, LocalArtifactStore(tmp_path / "elsewhere"))
    assert elsewhere.sha256 == first.sha256
    changed = check_expectations(make_product(expectations=SUITE % 2), snapshot, store)
    assert changed.sha256 != first.sha256


def test_the_page_stands_alone_and_escapes_what_the_data_says(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product(expectations=SUITE % 1)
    rows = [ticket_row(number, question="<script>alert(1)</script>") for number in range(12)]
    pd.DataFrame(rows).to_csv(product.folder / "tickets.csv", index=False)
    page = check_expectations(product, take_snapshot(product, date(2024, 5, 2), store, now=NOW), store)
    html = page.file("index.html").read_text()
    assert "&lt;script&gt;alert(1)" in html
    assert not any(token in html for token in ("<script", "http://", "https://", "src=", "@import"))
    assert "T0002" in html


def test_the_real_suite_holds_and_finds_the_absurd_wind(
    flight_product: Product, flight_snapshot: Artifact, flight_store: LocalArtifactStore
) -> None:
    result = check_expectations(flight_product, flight_snapshot, flight_store)
    check = CheckResult.model_validate(result.facts["check"])
    assert check.passed, check.problems
    assert check.examined == 149_028
    (row,) = lines(result, "failing_rows.jsonl")
    assert (row["table"], row["row"]["observed_at"]) == ("weather", "2013-02-12T08:00:00.000000Z")
    assert row["row"]["wind_mph"] > 1000
