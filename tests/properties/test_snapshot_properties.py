"""What must hold for every source: nothing that becomes known later changes a snapshot."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.contracts.canonical import canonical_bytes
from ml_platform.contracts.source import SourceSpec
from ml_platform.snapshots.extract import parquet_bytes
from ml_platform.snapshots.readers import RawTable
from ml_platform.snapshots.rows import JudgedTable, judge_rows

CUTOFF = datetime(2024, 5, 1, tzinfo=UTC)
NOW = CUTOFF + timedelta(days=365)
SPEC = SourceSpec.parse(
    {
        "kind": "jsonl",
        "path": "rows.jsonl",
        "columns": {"id": "integer", "event": "timestamp", "known": "timestamp", "text": "string", "value": "number"},
        "nullable": ["value"],
        "key": ["id"],
        "event_time": "event",
        "known_at": "known",
        "max_bad_share": 1.0,
    },
    where="test",
)

cells: dict[str, st.SearchStrategy[Any]] = {
    "id": st.one_of(st.integers(0, 8), st.just("seven"), st.none()),
    "text": st.one_of(st.text(max_size=5), st.integers()),
    "value": st.one_of(st.floats(allow_nan=False), st.none(), st.booleans()),
}


def rows(minutes: st.SearchStrategy[int]) -> st.SearchStrategy[dict[str, Any]]:
    """Rows, good and bad, that became known so many minutes after the cutoff."""

    def timed(row: dict[str, Any], known: int, before: int) -> dict[str, Any]:
        at = CUTOFF + timedelta(minutes=known)
        return {**row, "known": at.isoformat(), "event": (at - timedelta(minutes=before)).isoformat()}

    return st.builds(timed, st.fixed_dictionaries(cells), minutes, st.integers(-3, 100))


known_rows = st.lists(rows(st.integers(-10_000, 0)), max_size=8)
later_rows = st.lists(rows(st.integers(1, 10_000)), max_size=8)


def judged(records: list[dict[str, Any]]) -> JudgedTable:
    columns = {name: [record[name] for record in records] for name in SPEC.columns}
    numbers = np.arange(1, len(records) + 1)
    return judge_rows(RawTable("rows", "objects", columns, numbers, lambda i: records[i]), SPEC, CUTOFF, NOW)


def told(table: JudgedTable) -> tuple[bytes, bytes]:
    return parquet_bytes(table.table), canonical_bytes(list(table.quarantined))


@settings(deadline=None, max_examples=60)
@given(known_rows, later_rows)
def test_a_row_known_after_the_cutoff_never_changes_the_bytes(
    known: list[dict[str, Any]], later: list[dict[str, Any]]
) -> None:
    with_later = judged(known + later)
    assert told(with_later) == told(judged(known))
    assert with_later.not_yet_known == len(later)


@settings(deadline=None, max_examples=60)
@given(known_rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_with_distinct_keys_does_not_matter(known: list[dict[str, Any]], random: Any) -> None:
    distinct = list({str(record["id"]): record for record in known}.values())
    shuffled = random.sample(distinct, len(distinct))
    assert parquet_bytes(judged(shuffled).table) == parquet_bytes(judged(distinct).table)


@settings(deadline=None, max_examples=60)
@given(known_rows, later_rows)
def test_no_row_is_lost(known: list[dict[str, Any]], later: list[dict[str, Any]]) -> None:
    table = judged(known + later)
    assert table.table.num_rows + len(table.quarantined) + table.not_yet_known == len(known) + len(later)


@settings(deadline=None, max_examples=60)
@given(known_rows)
def test_every_published_row_is_whole_unique_and_known(known: list[dict[str, Any]]) -> None:
    published = judged(known).table.to_pylist()
    assert len({row["id"] for row in published}) == len(published)
    assert all(row["event"] <= row["known"] <= CUTOFF for row in published)
    assert all(row["text"] is not None for row in published)
