"""Cells: one raw column becomes one typed Arrow array, with the cells that do not fit marked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_platform.contracts.source import ColumnType
from ml_platform.snapshots.readers import Form

Mask = npt.NDArray[np.bool_]

_DATE_TIME = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?"
_TEXT_PATTERNS = {
    ColumnType.INTEGER: r"^-?\d{1,18}$",
    ColumnType.NUMBER: r"^-?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?$",
    ColumnType.BOOLEAN: r"^(?i:true|false|1|0)$",
    ColumnType.TIMESTAMP: rf"^{_DATE_TIME}$|^{_DATE_TIME}(Z|[+-]\d{{2}}:?\d{{2}})$",
}
_ZONED = r"(Z|[+-]\d{2}:?\d{2})$"
_EXPECTED = {
    ColumnType.STRING: "text",
    ColumnType.INTEGER: "a whole number of at most 18 digits",
    ColumnType.NUMBER: "a finite number",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.TIMESTAMP: "a date and time in ISO 8601, 1900 to 2199, with a zone (2013-03-31T05:15:00Z)",
}
NO_ZONE = "a time zone (Z or +hh:mm) after the time"
FIRST_TIME, END_OF_TIME = np.datetime64("1900-01-01", "us"), np.datetime64("2200-01-01", "us")


@dataclass(frozen=True)
class TypedColumn:
    """A column in its declared type: `values` is null where a cell is empty or wrong.

    `wrong` maps what was expected to the mask of cells that are something else.
    """

    values: Any
    null: Mask
    wrong: dict[str, Mask]


class WrongColumnTypeError(TypeError):
    """A whole Arrow or pandas column has another type; the message says which."""


def arrow_type(kind: ColumnType) -> Any:
    """The Arrow type of a column in a snapshot."""
    import pyarrow as pa

    return {
        ColumnType.STRING: pa.string(),
        ColumnType.INTEGER: pa.int64(),
        ColumnType.NUMBER: pa.float64(),
        ColumnType.BOOLEAN: pa.bool_(),
        ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    }[kind]


def type_column(values: Any, form: Form, kind: ColumnType) -> TypedColumn:
    """The column in type `kind`. Raises WrongColumnTypeError when an Arrow or pandas column is of another type."""
    if form == "text":
        return _checked(_from_text(values, kind), kind)
    if form == "objects" or _holds_objects(values, kind):
        return _checked(_from_objects(list(values), kind), kind)
    return _checked(_from_arrow(values, kind), kind)


def microseconds(times: Any) -> npt.NDArray[np.datetime64]:
    """An Arrow array of times as numpy: microseconds UTC; NaT, for which no comparison holds, where it is null."""
    import pyarrow as pa

    found: npt.NDArray[np.datetime64] = times.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
    return found.astype("datetime64[us]")


def _checked(column: TypedColumn, kind: ColumnType) -> TypedColumn:
    """Marks numbers that are not finite and times that no calendar of ours can mean."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind is ColumnType.NUMBER:
        off = pc.invert(pc.is_finite(column.values))
    elif kind is ColumnType.TIMESTAMP:
        times = microseconds(column.values)
        off = (times < FIRST_TIME) | (times >= END_OF_TIME)
    else:
        return column
    mask = off if isinstance(off, np.ndarray) else _mask(off)
    wrong = {**column.wrong, _EXPECTED[kind]: column.wrong.get(_EXPECTED[kind], np.zeros_like(mask)) | mask}
    return TypedColumn(pc.if_else(pa.array(~mask), column.values, None), column.null, wrong)


def _from_text(values: Sequence[str | None], kind: ColumnType) -> TypedColumn:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pa.array(values, pa.string())
    text = pc.if_else(pc.equal(text, ""), None, text)
    null = _mask(pc.is_null(text))
    if kind is ColumnType.STRING:
        return TypedColumn(text, null, {})
    fits = _mask(pc.match_substring_regex(text, _TEXT_PATTERNS[kind]))
    wrong = {_EXPECTED[kind]: ~fits & ~null}
    if kind is ColumnType.TIMESTAMP:
        zoned = _mask(pc.match_substring_regex(text, _ZONED))
        wrong[NO_ZONE] = fits & ~zoned
        fits = fits & zoned
    text = pc.if_else(pa.array(fits), text, None)
    if kind is not ColumnType.TIMESTAMP:
        return TypedColumn(pc.cast(pc.utf8_lower(text), arrow_type(kind)), null, wrong)
    times = _parsed_times(text)
    wrong[_EXPECTED[kind]] |= fits & _mask(pc.is_null(times))
    return TypedColumn(times, null, wrong)


def _parsed_times(text: Any) -> Any:
    import pandas as pd
    import pyarrow as pa

    times = pd.to_datetime(pd.Series(text.to_numpy(zero_copy_only=False)), utc=True, errors="coerce", format="ISO8601")
    return pa.array(times.astype("datetime64[ns, UTC]"), from_pandas=True).cast(
        pa.timestamp("us", tz="UTC"), safe=False
    )


def _from_objects(values: list[Any], kind: ColumnType) -> TypedColumn:
    import pyarrow as pa

    null = np.fromiter((_is_null(value) for value in values), bool, len(values))
    if kind is ColumnType.TIMESTAMP:
        return _times_from_objects(values, null)
    fits_kind = _FITS[kind]
    fits = np.fromiter((fits_kind(value) for value in values), bool, len(values)) & ~null
    cell = float if kind is ColumnType.NUMBER else lambda value: value  # Arrow refuses whole numbers beyond 2**53
    kept = [cell(value) if fit else None for value, fit in zip(values, fits, strict=True)]
    return TypedColumn(pa.array(kept, arrow_type(kind)), null, {_EXPECTED[kind]: ~fits & ~null})


def _times_from_objects(values: list[Any], null: Mask) -> TypedColumn:
    """Times written as ISO 8601 text or held as datetime; anything else is wrong."""
    texts = [None if empty else _time_text(value) for value, empty in zip(values, null, strict=True)]
    typed = _from_text(texts, ColumnType.TIMESTAMP)
    empty_text = typed.null & ~null
    wrong = dict(typed.wrong)
    wrong[_EXPECTED[ColumnType.TIMESTAMP]] = wrong[_EXPECTED[ColumnType.TIMESTAMP]] | empty_text
    return TypedColumn(typed.values, null, wrong)


def _time_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return value if _is_text(value) else "neither text nor a time"


def _from_arrow(values: Any, kind: ColumnType) -> TypedColumn:
    import pyarrow as pa
    import pyarrow.compute as pc

    array = pa.array(values, from_pandas=True) if hasattr(values, "iloc") else values
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    found = array.type
    if pa.types.is_dictionary(found):
        array = pc.cast(array, found.value_type)
        found = array.type
    if not (pa.types.is_null(found) or _arrow_fits(found, kind)):
        raise WrongColumnTypeError(f"expected {_EXPECTED[kind]}, found a column of {found}")
    if kind is ColumnType.INTEGER and pa.types.is_floating(found):
        array = pc.cast(array, pa.float64())
        whole = _mask(pc.equal(pc.floor(array), array)) & _mask(pc.less(pc.abs(array), 2.0**53))
        null = _mask(pc.is_null(array))
        array = pc.if_else(pa.array(whole), array, None)
        return TypedColumn(pc.cast(array, pa.int64()), null, {_EXPECTED[kind]: ~whole & ~null})
    try:
        cast = pc.cast(array, arrow_type(kind), safe=kind is ColumnType.INTEGER)
    except pa.ArrowInvalid as error:
        raise WrongColumnTypeError(f"expected {_EXPECTED[kind]}: {error}") from error
    return TypedColumn(cast, _mask(pc.is_null(cast)), {})


def _arrow_fits(found: Any, kind: ColumnType) -> bool:
    """Whether an Arrow type can hold the kind; pandas keeps whole numbers with gaps as floats."""
    from pyarrow import types

    if kind is ColumnType.TIMESTAMP:
        return bool(types.is_timestamp(found) and found.tz is not None)
    tests = {
        ColumnType.STRING: (types.is_string, types.is_large_string, types.is_string_view),
        ColumnType.INTEGER: (types.is_integer, types.is_floating),
        ColumnType.NUMBER: (types.is_integer, types.is_floating, types.is_decimal),
        ColumnType.BOOLEAN: (types.is_boolean,),
    }
    return any(test(found) for test in tests[kind])


def _holds_objects(values: Any, kind: ColumnType) -> bool:
    """Whether a pandas column may mix types, so that each cell must be looked at."""
    if str(getattr(values, "dtype", "")) != "object":
        return False
    import pandas as pd

    return not (kind is ColumnType.STRING and pd.api.types.infer_dtype(values, skipna=True) == "string")


def _mask(array: Any) -> Mask:
    """A Boolean Arrow array as numpy, null counted as False."""
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), bool)


def _is_null(value: Any) -> bool:
    """None, NaN, NaT or pandas.NA."""
    if value is None or (isinstance(value, float | np.floating) and value != value):
        return True
    return type(value).__name__ in {"NaTType", "NAType"}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and abs(int(value)) < 10**18


def _is_number(value: Any) -> bool:
    if isinstance(value, int | np.integer):
        return not isinstance(value, bool) and abs(int(value)) < 10**300
    return isinstance(value, float | np.floating)


def _is_text(value: Any) -> bool:
    """Whether it is text that UTF-8 can hold: JSON lets half a surrogate pair through."""
    return isinstance(value, str) and (value.isascii() or value.encode("utf-8", "ignore").decode() == value)


_FITS: dict[ColumnType, Callable[[Any], bool]] = {
    ColumnType.STRING: _is_text,
    ColumnType.INTEGER: _is_whole,
    ColumnType.NUMBER: _is_number,
    ColumnType.BOOLEAN: lambda value: isinstance(value, bool | np.bool_),
}
