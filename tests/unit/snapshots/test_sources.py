"""Sources that are malformed, truncated, empty or of the wrong shape are refused with file, column and a remedy."""

import csv
import gzip
import http.server
import io
import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.products import Product
from ml_platform.contracts.snapshot import SnapshotOrigin
from ml_platform.contracts.source import SourceSpec
from ml_platform.errors import ContractError, SourceDataError
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.snapshots.extract import load_table, manifest_of, take_snapshot
from ml_platform.snapshots.readers import read_frame, read_parquet
from ml_platform.snapshots.rows import judge_rows

MakeProduct = Callable[..., Product]
Row = Callable[..., dict[str, str]]
AS_OF = date(2024, 5, 2)
NOW = datetime(2024, 6, 1, tzinfo=UTC)


def csv_text(rows: list[dict[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def typed(row: dict[str, str]) -> dict[str, Any]:
    return row | {"priority": int(row["priority"]), "score": float(row["score"]), "open": row["open"] == "true"}


def snapshot_of(product: Product, store: LocalArtifactStore, data: str | bytes, name: str = "tickets.csv") -> Artifact:
    (product.folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return take_snapshot(product, AS_OF, store, now=NOW)


def quarantine(snapshot: Artifact, name: str = "tickets") -> list[dict[str, Any]]:
    return [json.loads(line) for line in snapshot.file(f"quarantine/{name}.jsonl").read_text().splitlines()]


class TestEveryFormatTellsTheSame:
    """One table, four ways to deliver it, the same bytes in the snapshot."""

    @pytest.fixture
    def expected(self, make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row) -> bytes:
        product = make_product()
        snapshot = snapshot_of(product, store, csv_text([ticket_row(number) for number in range(30)]))
        table = load_table(snapshot, "tickets")
        assert table.loc[3].to_dict() == {
            "ticket_id": "T0003",
            "asked_at": pd.Timestamp("2024-05-01T03:00Z"),
            "known_at": pd.Timestamp("2024-05-01T03:30Z"),
            "question": "Where is parcel 3, please?",
            "answer": "On its way",
            "priority": 0,
            "score": 0.375,
            "open": True,
        }
        assert str(table["asked_at"].dtype) == "datetime64[us, UTC]"
        return snapshot.file("tables/tickets.parquet").read_bytes()

    def test_jsonl(
        self, expected: bytes, make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
    ) -> None:
        product = make_product(kind="jsonl", path="tickets.jsonl")
        lines = "\n".join(json.dumps(typed(ticket_row(number))) for number in reversed(range(30)))
        snapshot = snapshot_of(product, store, lines, "tickets.jsonl")
        assert snapshot.file("tables/tickets.parquet").read_bytes() == expected

    def test_parquet(
        self, expected: bytes, make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
    ) -> None:
        frame = pd.DataFrame([typed(ticket_row(number)) for number in range(30)])
        for name in ("asked_at", "known_at"):
            frame[name] = pd.to_datetime(frame[name], utc=True).dt.tz_convert("Asia/Tokyo")
        frame["question"] = frame["question"].astype("category")
        out = io.BytesIO()
        frame.to_parquet(out, row_group_size=7, compression="gzip")
        product = make_product(kind="parquet", path="tickets.parquet")
        snapshot = snapshot_of(product, store, out.getvalue(), "tickets.parquet")
        assert snapshot.file("tables/tickets.parquet").read_bytes() == expected

    def test_hook(self, expected: bytes, make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row) -> None:
        rows = [typed(ticket_row(number)) for number in range(30)]
        product = make_product(kind="hook", path=None, hook="rows.py:tickets")
        (product.folder / "rows.py").write_text(
            "import pandas as pd\n"
            "from ml_platform.snapshots.sources import SourceData\n"
            f"def tickets(context):\n    return SourceData(pd.DataFrame({rows!r}), {{'crm': '{'a' * 64}'}})\n"
        )
        origins: list[SnapshotOrigin] = []
        snapshot = take_snapshot(product, AS_OF, store, now=NOW, tell=origins.append)
        assert snapshot.file("tables/tickets.parquet").read_bytes() == expected
        assert [origin.sources for origin in origins] == [{"tickets": {"crm": "a" * 64}}]

    @pytest.mark.parametrize("scheme", ["memory://helpdesk", "file://{tmp}"])
    def test_urls_and_gzip(
        self, expected: bytes, make_product: MakeProduct, ticket_row: Row, scheme: str, tmp_path: Path
    ) -> None:
        url = f"{scheme.format(tmp=tmp_path)}/tickets.csv.gz"
        data = gzip.compress(csv_text([ticket_row(number) for number in range(30)]).encode())
        with fsspec.open(url, "wb") as file:
            file.write(data)
        product = make_product(path=url)
        origins: list[SnapshotOrigin] = []
        elsewhere = LocalArtifactStore(tmp_path / "elsewhere")
        snapshot = take_snapshot(product, AS_OF, elsewhere, now=NOW, tell=origins.append)
        assert snapshot.file("tables/tickets.parquet").read_bytes() == expected
        assert [origin.sources for origin in origins] == [{"tickets": {url: bytes_sha256(data)}}]


HEADER = "ticket_id,asked_at,known_at,question,answer,priority,score,open"
GOOD = "T1,2024-05-01T01:00Z,2024-05-01T01:00Z,q,a,1,0.5,true"

UNUSABLE_CSV = {
    "nothing": (b"", r"is empty \(0 bytes\)"),
    "blank lines": (b"\n \n", "only blank lines"),
    "a header only": (HEADER.encode(), "holds no rows"),
    "another encoding": (f"{HEADER}\n{GOOD}".encode("utf-16"), "not UTF-8.*save the file as UTF-8"),
    "Latin-1": (f"{HEADER}\n{GOOD}\nT2,,,caf\xe9".encode("latin-1"), r"line 3 is not UTF-8 \(byte 0xe9"),
    "binary": (f"{HEADER}\n\0\0".encode(), "NUL bytes"),
    "a quote that never closes": (f'{HEADER}\n{GOOD}\nT2,"2024'.encode(), "record that begins on line 3 is malformed"),
    "text after a quote": (f'{HEADER}\nT1,"x"y,,,,,,\n'.encode(), "record that begins on line 2 is malformed"),
    "a cut-off last row": (f"{HEADER}\n{GOOD}\nT2,2024-05".encode(), "middle of line 3.*truncated"),
    "a doubled column": (f"{HEADER},open\n{GOOD},true\n".encode(), "columns more than once: 'open'"),
    "a missing column": (HEADER.replace(",open", "").encode() + b"\n", r"column 'open' \(boolean\) is missing"),
    "a misspelled column": (HEADER.replace("priority", "prioritty").encode() + b"\n", "Did you mean 'prioritty'"),
    "semicolons": (HEADER.replace(",", ";").encode() + b"\n1;2,5\n", "one column, .* separated by semicolons.*commas"),
    "an extra column": (f"{HEADER},notes\n{GOOD},x\n".encode(), "does not declare: notes.*ignore_columns"),
    "a damaged gzip file": (gzip.compress(HEADER.encode())[:-9], "damaged or truncated gzip"),
}


@pytest.mark.parametrize("case", UNUSABLE_CSV)
def test_an_unusable_csv_file_is_refused_with_its_name(
    case: str, make_product: MakeProduct, store: LocalArtifactStore
) -> None:
    data, message = UNUSABLE_CSV[case]
    product = make_product()
    with pytest.raises(SourceDataError, match=f"(?s){message}") as caught:
        snapshot_of(product, store, data)
    assert str(product.folder / "tickets.csv") in str(caught.value)


UNUSABLE_JSONL = {
    "no object": (b"[1]\n2\n", "holds no JSON object.*Line 1"),
    "a cut-off last line": (b'{"ticket_id": "T1"}\n{"ticket_id": "T', "line 2, the last.*truncated"),
    "a last line that is whole": (b'{"ticket_id": "T1"}\n{"open": 1, "open": 2}', "column 'answer'.*is missing"),
    "a missing key": (b'{"ticket_id": "T1"}\n', "column 'answer'.*is missing"),
}


@pytest.mark.parametrize("case", UNUSABLE_JSONL)
def test_an_unusable_jsonl_file_is_refused(case: str, make_product: MakeProduct, store: LocalArtifactStore) -> None:
    data, message = UNUSABLE_JSONL[case]
    with pytest.raises(SourceDataError, match=f"(?s){message}"):
        snapshot_of(make_product(kind="jsonl", path="tickets.jsonl"), store, data, "tickets.jsonl")


def parquet(columns: dict[str, Any], names: list[str] | None = None) -> bytes:
    out = io.BytesIO()
    table = pa.table(columns)
    pq.write_table(table.rename_columns(names) if names else table, out)
    return out.getvalue()


EVENTS = {
    "kind": "parquet",
    "path": "events.parquet",
    "columns": {"id": "integer", "at": "timestamp"},
    "key": ["id"],
    "event_time": "at",
}
AT = pa.array([datetime(2024, 5, 1, tzinfo=UTC)], pa.timestamp("ns", tz="UTC"))
UNUSABLE_PARQUET = {
    "truncated": (parquet({"id": [1], "at": AT})[:-20], "is no whole Parquet file"),
    "not Parquet at all": (b"id,at\n1,2\n", "is no whole Parquet file"),
    "text for a number": (parquet({"id": ["1"], "at": AT}), "column 'id': expected a whole number.*column of string"),
    "a time without zone": (parquet({"id": [1], "at": AT.cast(pa.timestamp("us"))}), "column 'at'.*with a zone"),
    "a number too large": (parquet({"id": pa.array([2**63], pa.uint64()), "at": AT}), "column 'id'"),
    "a doubled column": (parquet({"id": [1], "at": AT, "x": AT}, ["id", "at", "at"]), "more than once: 'at'"),
}


@pytest.mark.parametrize("case", UNUSABLE_PARQUET)
def test_an_unusable_parquet_file_is_refused(case: str, make_product: MakeProduct, store: LocalArtifactStore) -> None:
    data, message = UNUSABLE_PARQUET[case]
    with pytest.raises(SourceDataError, match=f"(?s)events.parquet.*{message}"):
        snapshot_of(make_product({"events": EVENTS}), store, data, "events.parquet")


LATEST = 253_402_300_799
"""9999-12-31T23:59:59Z in seconds: what databases write for what has no end."""
FAR_TIMES = {
    "the end of time in another zone": (LATEST * 10**6, pa.timestamp("us", "Europe/Berlin"), "9999-12-31 23:59:59"),
    "a year of five digits": (LATEST + 1, pa.timestamp("s", "UTC"), "10000-01-01 00:00:00"),
    "beyond every calendar": (10**15, pa.timestamp("s", "UTC"), "1000000000000000"),
    "a zone that nobody knows": (0, pa.timestamp("us", "Nowhere/At_all"), "1970-01-01 00:00:00"),
}


@pytest.mark.parametrize("backend", ["parquet", "pandas"])
@pytest.mark.parametrize("case", FAR_TIMES)
def test_a_row_that_is_set_aside_may_hold_times_that_python_has_not(case: str, backend: str) -> None:
    moment, kind, shown = FAR_TIMES[case]
    ends = pa.array([moment] * 2, pa.int64()).cast(kind)
    table = pa.table({"id": pa.array([1, None], pa.int64()), "at": pa.concat_arrays([AT, AT]), "ends": ends})
    spec = SourceSpec.parse({**EVENTS, "ignore_columns": ["ends"], "max_bad_share": 0.5}, where="a test")
    if backend == "parquet":
        out = io.BytesIO()
        pq.write_table(table, out)
        raw = read_parquet("events", out.getvalue())
    else:
        raw = read_frame("events", table.to_pandas(types_mapper=pd.ArrowDtype))
    judged = judge_rows(raw, spec, NOW, NOW)
    (aside,) = judged.quarantined
    assert len(judged.table) == 1
    assert (aside["row"], "column 'id': expected a value" in aside["reason"]) == (2, True)
    assert shown in aside["original"]["ends"]
    assert aside["original"]["ends"].endswith(f", tz={kind.tz}])")


def test_a_whole_column_of_the_wrong_type_is_named_as_such(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    rows = [ticket_row(number, priority="high") for number in range(9)]
    with pytest.raises(
        SourceDataError, match=r"column 'priority': no row has what is expected, a whole number.*'high'"
    ):
        snapshot_of(make_product(), store, csv_text(rows))


def test_a_missing_file_names_the_path_and_the_key_to_correct(
    make_product: MakeProduct, store: LocalArtifactStore
) -> None:
    for path in ("nowhere.csv", "memory://nowhere/tickets.csv", "nosuchprotocol://x"):
        with pytest.raises(SourceDataError, match=r"sources\.tickets\.path in .*product\.yaml"):
            take_snapshot(make_product(path=path), AS_OF, store)


class Refusing(http.server.BaseHTTPRequestHandler):
    """Refuses one path, and breaks off in the middle of any other."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(403 if "secret" in self.path else 200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(HEADER.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("path", ["secret.csv", "broken_off.csv"])
def test_what_a_server_refuses_or_breaks_off_names_the_url_and_the_key_to_correct(
    path: str, make_product: MakeProduct, store: LocalArtifactStore
) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            product = make_product(path=f"http://127.0.0.1:{server.server_port}/{path}")
            with pytest.raises(SourceDataError, match=rf"/{path}\): cannot be read: .*sources\.tickets\.path in"):
                take_snapshot(product, AS_OF, store)
        finally:
            server.shutdown()


BAD_ROWS = {
    "a wrong number": (
        {"priority": "1.5"},
        "column 'priority': expected a whole number of at most 18 digits, found '1.5'",
    ),
    "an endless number": ({"score": "1e999"}, "column 'score': expected a finite number, found '1e999'"),
    "not a number": ({"score": "NaN"}, "column 'score': expected a finite number, found 'NaN'"),
    "a word for a Boolean": ({"open": "yes"}, "column 'open': expected true or false, found 'yes'"),
    "an empty cell": ({"question": ""}, "column 'question': expected a value (string; it is not listed as nullable)"),
    "no time zone": ({"known_at": "2024-05-01T02:00:00"}, "column 'known_at': expected a time zone (Z or +hh:mm)"),
    "no such day": ({"asked_at": "2024-02-30T02:00:00Z"}, "column 'asked_at': expected a date and time in ISO 8601"),
    "a day without time": ({"asked_at": "2024-05-01"}, "column 'asked_at': expected a date and time in ISO 8601"),
    "a time before time": ({"asked_at": "1024-05-01T00:00Z"}, "1900 to 2199"),
    "the future": ({"known_at": "2031-01-01T00:00Z"}, "column 'known_at': expected a time that is not in the future"),
    "known before it happened": ({"asked_at": "2024-05-01T23:59Z"}, "nothing is known before it happens"),
    "a repeated key": ({"ticket_id": "T0003"}, "expected a key (ticket_id) that no earlier known row has"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_set_aside_with_its_number_its_reason_and_its_cells(
    case: str, make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    changes, reason = BAD_ROWS[case]
    rows = [ticket_row(number) for number in range(20)] + [ticket_row(20, **changes)]
    snapshot = snapshot_of(make_product(), store, csv_text(rows))
    (aside,) = quarantine(snapshot)
    assert aside["row"] == 21
    assert reason in aside["reason"]
    assert aside["original"] == rows[-1]
    facts = manifest_of(snapshot).tables["tickets"]
    assert (facts.rows, facts.quarantined) == (20, 1)
    assert len(load_table(snapshot, "tickets")) == 20


def test_every_reason_of_a_row_is_told(make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row) -> None:
    rows = [ticket_row(1), ticket_row(2), ticket_row(3, priority="?", score="?", question="")]
    (aside,) = quarantine(snapshot_of(make_product(), store, csv_text(rows)))
    assert re.findall(r"column '(\w+)'", aside["reason"]) == ["question", "priority", "score"]


def test_rows_with_too_many_or_few_cells_are_set_aside_with_their_line(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    rows = [ticket_row(1, question="two\nlines"), ticket_row(2), ticket_row(3)]
    text = csv_text(rows) + "too,few\n" + ",".join(["too", "many", "of", "them,", "here", "it", "is"] * 3) + "\n"
    first, second = quarantine(snapshot_of(make_product(), store, text))
    assert first == {"row": 4, "reason": "line 6 has 2 cells, expected 8", "original": "too,few"}
    assert (second["row"], second["reason"].startswith("line 7 has")) == (5, True)


JSON_LINES = {
    "text where a number should be": ({"priority": "1"}, "column 'priority': expected a whole number"),
    "a number where text should be": ({"question": 7}, "column 'question': expected text, found 7"),
    "a Boolean where a number should be": ({"priority": True}, "column 'priority': expected a whole number"),
    "an object in a cell": ({"question": {"text": "?"}}, "column 'question': expected text, found {'text': '?'}"),
    "null": ({"answer": None}, "column 'answer': expected a value"),
    "a number beyond all measure": ({"priority": 10**400}, "column 'priority': expected a whole number"),
    "infinity in disguise": ({"score": "INF"}, "column 'score': expected a finite number"),
    "half a surrogate pair": ({"question": "\ud800"}, "column 'question': expected text"),
    "an unknown key": ({"nots": 1}, "no key 'nots'"),
}


@pytest.mark.parametrize("case", JSON_LINES)
def test_a_bad_json_row_is_set_aside(
    case: str, make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    changes, reason = JSON_LINES[case]
    rows = [typed(ticket_row(number)) for number in range(20)] + [typed(ticket_row(20)) | changes]
    text = "\n".join(json.dumps(row) for row in rows).replace('"INF"', "1e999") + "\n"
    snapshot = snapshot_of(make_product(kind="jsonl", path="tickets.jsonl"), store, text, "tickets.jsonl")
    (aside,) = quarantine(snapshot)
    assert aside["row"] == 21
    assert reason in aside["reason"]
    assert aside["original"]["ticket_id"] == "T0020"


@pytest.mark.parametrize("line", ["{broken", "[1, 2]", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000])
def test_a_malformed_json_line_is_set_aside_as_it_stands(
    line: str, make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    good = "".join(json.dumps(typed(ticket_row(number))) + "\n" for number in range(5))
    product = make_product(kind="jsonl", path="tickets.jsonl")
    (aside,) = quarantine(snapshot_of(product, store, good + "\n" + line + "\n", "tickets.jsonl"))
    assert (aside["row"], aside["original"]) == (7, line)


def test_a_nullable_key_may_be_left_out_of_every_json_row(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    rows = [typed(ticket_row(number)) for number in range(3)]
    text = "".join(json.dumps({key: row[key] for key in row if key != "score"}) + "\n" for row in rows)
    product = make_product(kind="jsonl", path="tickets.jsonl")
    assert load_table(snapshot_of(product, store, text, "tickets.jsonl"), "tickets")["score"].isna().all()


def test_too_many_bad_rows_refuse_the_source_and_name_the_first(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    rows = [ticket_row(number) for number in range(96)] + [ticket_row(number, score="x") for number in range(96, 100)]
    with pytest.raises(SourceDataError, match=r"4 of 100 known rows \(4.0%\) do not fit; at most 1.0% .*row 97: col"):
        snapshot_of(make_product(max_bad_share=0.01), store, csv_text(rows))
    assert not quarantine(snapshot_of(make_product(max_bad_share=0.01), store, csv_text(rows[:96])))


def test_declared_columns_may_be_ignored_and_come_in_any_order(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    rows = [dict(reversed(ticket_row(number, notes="secret").items())) for number in range(3)]
    snapshot = snapshot_of(make_product(ignore_columns=["notes"]), store, csv_text(rows))
    assert list(load_table(snapshot, "tickets").columns) == HEADER.split(",")


HOOKS = {
    "raises": ("raise KeyError('flights')", "raised KeyError: 'flights'"),
    "returns None": ("return None", "returned NoneType, expected SourceData"),
    "returns a list": ("return SourceData([1], {})", "frame is a list, expected a pandas DataFrame"),
    "mixes types": (
        "return SourceData(pd.DataFrame({'id': [1, 'x', 3], 'at': pd.to_datetime(['2024-05-01T00:00Z'] * 3)}), {})",
        "1 of 3 known rows.*row 2: column 'id': expected a whole number",
    ),
    "forgets the zone": (
        "return SourceData(pd.DataFrame({'id': [1], 'at': pd.to_datetime(['2024-05-01'])}), {})",
        "column 'at': expected .* with a zone",
    ),
}


@pytest.mark.parametrize("case", HOOKS)
def test_a_hook_that_fails_is_named(case: str, make_product: MakeProduct, store: LocalArtifactStore) -> None:
    body, message = HOOKS[case]
    product = make_product({"events": {**EVENTS, "kind": "hook", "path": None, "hook": "rows.py:events"}})
    (product.folder / "rows.py").write_text(
        f"import pandas as pd\nfrom ml_platform.snapshots.sources import SourceData\ndef events(context):\n    {body}\n"
    )
    with pytest.raises(SourceDataError, match=rf"source 'events' \(hook rows.py:events\): .*{message}"):
        take_snapshot(product, AS_OF, store, now=NOW)


def test_hooks_of_one_snapshot_share_what_they_made_once(make_product: MakeProduct, store: LocalArtifactStore) -> None:
    hook = {**EVENTS, "kind": "hook", "path": None}
    product = make_product({"one": {**hook, "hook": "rows.py:one"}, "two": {**hook, "hook": "rows.py:two"}})
    (product.folder / "rows.py").write_text(
        "from pathlib import Path\nimport pandas as pd\nfrom ml_platform.snapshots.sources import SourceData\n"
        "def read(context):\n"
        "    with (context.folder / 'reads').open('a') as file:\n        file.write('x')\n"
        "    return pd.DataFrame({'id': [1], 'at': [context.cutoff - pd.Timedelta(hours=1)]})\n"
        "def one(context):\n    return SourceData(context.once('rows', lambda: read(context)), {})\n"
        "two = one\n"
    )
    take_snapshot(product, AS_OF, store, now=NOW)
    assert (product.folder / "reads").read_text() == "x"


def test_an_unknown_hook_is_a_contract_error_with_the_nearest_name(
    make_product: MakeProduct, store: LocalArtifactStore
) -> None:
    product = make_product({"events": {**EVENTS, "kind": "hook", "path": None, "hook": "rows.py:event"}})
    (product.folder / "rows.py").write_text("def events(context):\n    return None\n")
    with pytest.raises(ContractError, match="Did you mean 'events'"):
        take_snapshot(product, AS_OF, store)
