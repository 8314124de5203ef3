"""Readers: bytes or a DataFrame become a raw table whose cells are not typed yet."""

import csv
import gzip
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ml_platform.contracts.reading import parse_json
from ml_platform.errors import SourceDataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Form = Literal["text", "objects", "arrow"]


@dataclass(frozen=True)
class MalformedRow:
    """A row that could not even be taken apart; `row` counts data rows (JSONL: lines) from 1."""

    row: int
    reason: str
    original: str


@dataclass(frozen=True)
class RawTable:
    """Rows as the source holds them, column by column.

    `form` says what a column is: text cells, Python values, or an Arrow array. `sparse` tables (JSONL)
    may leave keys out. `rows` are row numbers from 1, `original` gives a row as the source wrote it.
    """

    where: str
    form: Form
    columns: dict[str, Any]
    rows: npt.NDArray[np.int64]
    original: Callable[[int], dict[str, Any]]
    malformed: tuple[MalformedRow, ...] = ()
    sparse: bool = False
    inputs: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


def read_csv(where: str, data: bytes) -> RawTable:
    """UTF-8 CSV with a header line; an empty cell is null; rows with too many or few cells are malformed.

    Raises SourceDataError for an unknown encoding, an unclosed quote, a doubled header or a cut-off end.
    """
    text = _text(where, data)
    records, lines = _csv_records(where, text)
    if not records:
        raise SourceDataError(f"{where}: holds only blank lines. Expected a header line and rows.")
    header = records[0]
    _require_distinct(where, header)
    width, body = len(header), records[1:]
    if body and len(body[-1]) < width and not text.endswith(("\n", "\r")):
        raise SourceDataError(
            f"{where}: ends in the middle of line {lines[-1]} ({len(body[-1])} of {width} cells, no line end): "
            "the file is truncated. Export it again."
        )
    good = [number for number, record in enumerate(body, 1) if len(record) == width]
    malformed = tuple(
        MalformedRow(number, f"line {lines[number]} has {len(record)} cells, expected {width}", _joined(record))
        for number, record in enumerate(body, 1)
        if len(record) != width
    )
    kept = [body[number - 1] for number in good] if malformed else body
    columns = dict(zip(header, zip(*kept, strict=True), strict=True)) if kept else dict.fromkeys(header, ())
    return RawTable(
        where, "text", columns, np.array(good, np.int64), lambda i: dict(zip(header, kept[i], strict=True)), malformed
    )


def read_jsonl(where: str, data: bytes) -> RawTable:
    """UTF-8 JSON Lines: one object a line, blank lines skipped; a line that is no object is malformed.

    Raises SourceDataError for an unknown encoding, a file without any object or a cut-off last line.
    """
    text = _text(where, data)
    objects: list[dict[str, Any]] = []
    rows: list[int] = []
    malformed: list[MalformedRow] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value, is_cut_off = parse_json(line), False
            problem = None if isinstance(value, dict) else f"is a JSON {type(value).__name__}, expected an object"
        except (ValueError, RecursionError) as error:
            problem, is_cut_off = f"is not JSON: {error}", type(error) is not ValueError
        if problem is None:
            objects.append(value)
            rows.append(number)
        elif number == len(lines) and is_cut_off:
            raise SourceDataError(
                f"{where}: line {number}, the last, {problem}, and has no line end: the file is truncated. "
                "Export it again."
            )
        else:
            malformed.append(MalformedRow(number, f"line {number} {problem}", line))
    if not objects:
        first = f" Line {malformed[0].row}: {malformed[0].reason}." if malformed else ""
        raise SourceDataError(f"{where}: holds no JSON object.{first} Expected one object a line.")
    names = {name: None for value in objects for name in value}
    columns = {name: [value.get(name) for value in objects] for name in names}
    return RawTable(
        where, "objects", columns, np.array(rows, np.int64), lambda i: objects[i], tuple(malformed), sparse=True
    )


def read_parquet(where: str, data: bytes) -> RawTable:
    """A Parquet file with its own types. Raises SourceDataError when it is damaged or truncated."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(data)).read()
        table.validate(full=True)
        names = table.column_names
        for field in table.schema:
            getattr(field.type, "tz", None)  # names and zones are text that may be damaged: decode them here
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceDataError(f"{where}: is no whole Parquet file: {error}. Export it again.") from error
    _require_distinct(where, names)
    return _arrow_table(where, dict(zip(names, table.columns, strict=True)), table.num_rows)


def read_frame(where: str, frame: "pd.DataFrame") -> RawTable:
    """The DataFrame of a hook; its index is ignored, NaN and NaT are null."""
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise SourceDataError(f"{where}: frame is a {type(frame).__name__}, expected a pandas DataFrame.")
    _require_distinct(where, [str(name) for name in frame.columns])
    return _arrow_table(where, {str(name): frame[name] for name in frame.columns}, len(frame))


def _require_distinct(where: str, names: Sequence[str]) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise SourceDataError(f"{where}: has columns more than once: {', '.join(map(repr, doubled))}. Rename them.")


def _arrow_table(where: str, columns: dict[str, Any], rows: int) -> RawTable:
    def original(index: int) -> dict[str, Any]:
        return {name: _cell(column, index) for name, column in columns.items()}

    return RawTable(where, "arrow", columns, np.arange(1, rows + 1), original)


def _cell(column: "pa.ChunkedArray | pd.Series[Any]", index: int) -> Any:
    """The cell as Python has it, or in words where Python has no such value: a year after 9999, a zone nobody knows."""
    import pyarrow as pa

    in_pandas = hasattr(column, "iloc")
    try:
        return column.iloc[index] if in_pandas else column[index].as_py()
    except (OverflowError, ValueError, KeyError):
        one = pa.array(column.iloc[index : index + 1]) if in_pandas else column.slice(index, 1).combine_chunks()
        words = one.to_string(skip_new_lines=True)
        return f"{words[1:-1] if words.startswith('[') else words} ({one.type})"


def plain(value: Any) -> Any:
    """The value as canonical JSON can hold it: NaN and NaT become null, what JSON does not know becomes text."""
    if isinstance(value, dict):
        return {str(plain(str(key))): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if value is None or isinstance(value, bool | int):
        return value
    if type(value).__name__ in {"NaTType", "NAType"} or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, float) and np.isfinite(value):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _text(where: str, data: bytes) -> str:
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise SourceDataError(f"{where}: is a damaged or truncated gzip file: {error}. Export it again.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceDataError(
            f"{where}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x} at offset {error.start}). "
            "The encoding is unknown; save the file as UTF-8."
        ) from None
    if "\0" in text:
        raise SourceDataError(f"{where}: holds NUL bytes: it is binary or damaged. Expected UTF-8 text.")
    if not text.strip():
        raise SourceDataError(f"{where}: holds only blank lines. Check the export that writes it.")
    return text


def _csv_records(where: str, text: str) -> tuple[list[list[str]], list[int]]:
    """The records that are not blank, and the line on which each ends."""
    previous = csv.field_size_limit(sys.maxsize)
    records: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for record in reader:
            if record:
                records.append(record)
                lines.append(reader.line_num)
    except csv.Error as error:
        begun = (lines[-1] if lines else 0) + 1
        raise SourceDataError(
            f"{where}: the record that begins on line {begun} is malformed or truncated: {error}. "
            "Quote cells as RFC 4180 says, and export the file again."
        ) from error
    finally:
        csv.field_size_limit(previous)
    return records, lines


def _joined(record: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(record)
    return out.getvalue()
