"""However a source file is damaged, it is refused or its rows are set aside: nothing else is ever raised."""

import io
import json
from contextlib import suppress
from datetime import UTC, datetime

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.contracts.canonical import canonical_bytes
from ml_platform.contracts.source import SourceSpec
from ml_platform.errors import SourceDataError
from ml_platform.snapshots.extract import parquet_bytes
from ml_platform.snapshots.readers import read_csv, read_jsonl, read_parquet
from ml_platform.snapshots.rows import judge_rows

ROWS = [
    {"id": n, "at": f"2024-05-01T0{n}:00:00Z", "text": f'ü, "{n}"', "value": n / 7, "open": n % 2 == 0}
    for n in range(9)
]
SPEC = SourceSpec.parse(
    {
        "kind": "csv",
        "path": "rows",
        "columns": {"id": "integer", "at": "timestamp", "text": "string", "value": "number", "open": "boolean"},
        "ignore_columns": ["other"],
        "key": ["id"],
        "event_time": "at",
        "max_bad_share": 1.0,
    },
    where="test",
)
FRAME = pd.DataFrame(ROWS)
SOUND = {
    "csv": (read_csv, FRAME.to_csv(index=False).encode()),
    "jsonl": (read_jsonl, "".join(json.dumps(row) + "\n" for row in ROWS).encode()),
    "parquet": (read_parquet, FRAME.assign(at=pd.to_datetime(FRAME["at"], utc=True)).to_parquet()),
}
SPLINTERS = [b'"', b",", b"\n", b"\r", b"1e999", b"null", b"{", b"\\ud800", b"NaN", b"-", b"9" * 17, b"\0", b"\xff"]

damage = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from([b"", *SPLINTERS])), max_size=4)


@settings(deadline=None, max_examples=150)
@pytest.mark.parametrize("kind", SOUND)
@given(damage=damage)
def test_a_damaged_file_is_refused_or_its_rows_are_set_aside(kind: str, damage: list[tuple[float, int, bytes]]) -> None:
    reader, data = SOUND[kind]
    for place, removed, splinter in damage:
        at = int(place * len(data))
        data = data[:at] + splinter + data[at + removed :]
    with suppress(SourceDataError):
        raw = reader("rows", data)
        if set(raw.columns) >= set(SPEC.columns):
            judged = judge_rows(raw, SPEC, datetime(2024, 5, 2, tzinfo=UTC), datetime(2025, 5, 2, tzinfo=UTC))
            assert pd.read_parquet(io.BytesIO(parquet_bytes(judged.table))).shape[1] == len(SPEC.columns)
            canonical_bytes(list(judged.quarantined))
