"""Sources: where the tables of a snapshot come from, read whole and described by digests."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.products import Product
from ml_platform.contracts.source import AnsweredSpec, SourceSpec
from ml_platform.errors import MlPlatformError, SourceDataError
from ml_platform.snapshots.answered import read_answered
from ml_platform.snapshots.readers import RawTable, read_csv, read_frame, read_jsonl, read_parquet

if TYPE_CHECKING:
    import pandas as pd

    from ml_platform.lineage.answered import AnswerHistory

T = TypeVar("T")

_READERS = {"csv": read_csv, "jsonl": read_jsonl, "parquet": read_parquet}
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class SourceContext:
    """What a source hook is given. `cutoff` lets it ask a database for less; rows beyond it are dropped anyway.

    `history` is what was said of answers, for sources of kind `answered`; None where nothing was ever recorded.
    """

    product: str
    folder: Path
    cutoff: datetime
    history: "AnswerHistory | None" = None
    _made: dict[str, Any] = field(default_factory=dict, repr=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` returns, made once for all hooks of one snapshot: a shared file is parsed only once."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class SourceData:
    """What a source hook returns: the rows, and the SHA-256 of every input they were made of."""

    frame: "pd.DataFrame"
    inputs: Mapping[str, str]


def read_source(product: Product, name: str, context: SourceContext) -> RawTable:
    """Every row of a source, not judged yet.

    Raises SourceDataError for a file that is missing, empty, truncated or malformed, for missing and
    extra columns, and for a hook that fails.
    """
    spec = product.spec.sources[name]
    if isinstance(spec, AnsweredSpec):
        return read_answered(product, name, spec, context.history, context.cutoff)
    if spec.kind == "hook":
        raw = _run_hook(product, name, spec, context)
    else:
        place, data = _read_bytes(name, spec, context.folder)
        raw = _READERS[spec.kind](f"source '{name}' ({place})", data)
        raw.inputs.update({spec.path or name: bytes_sha256(data)})
    _require_columns(raw, spec)
    if len(raw) == 0 and not raw.malformed:
        raise SourceDataError(f"{raw.where}: holds no rows. Expected at least one; check the export that writes it.")
    return raw


def _read_bytes(name: str, spec: SourceSpec, folder: Path) -> tuple[str, bytes]:
    import fsspec

    path = spec.path or ""
    place = path if "://" in path else str(folder / path)
    try:
        with fsspec.open(place, "rb") as file:
            data: bytes = file.read()
    except Exception as error:  # behind every protocol is another client, with errors of its own
        raise SourceDataError(
            f"source '{name}' ({place}): cannot be read: {type(error).__name__}: {error}. "
            f"Put the file there, allow it to be read, or correct sources.{name}.path in {folder / 'product.yaml'}."
        ) from error
    if not data:
        raise SourceDataError(f"source '{name}' ({place}): is empty (0 bytes). Check the export that writes it.")
    return place, data


def _run_hook(product: Product, name: str, spec: SourceSpec, context: SourceContext) -> RawTable:
    where = f"source '{name}' (hook {spec.hook})"
    hook = product.hook(spec.hook or "")
    try:
        made = hook(context)
    except MlPlatformError:
        raise
    except Exception as error:
        raise SourceDataError(
            f"{where}: raised {type(error).__name__}: {error}. Correct the hook or its input."
        ) from error
    frame, inputs = getattr(made, "frame", None), getattr(made, "inputs", None)
    if frame is None or not isinstance(inputs, Mapping):
        raise SourceDataError(f"{where}: returned {type(made).__name__}, expected SourceData(frame, inputs).")
    raw = read_frame(where, frame)
    raw.inputs.update(inputs)
    return raw


def _require_columns(raw: RawTable, spec: SourceSpec) -> None:
    """Every declared column is there and nothing else; a nullable key that no JSON row has counts as null."""
    found = set(raw.columns)
    missing = sorted(set(spec.columns) - found - (set(spec.nullable) if raw.sparse else set()))
    extra = sorted(found - set(spec.columns) - set(spec.ignore_columns))
    if missing and raw.form == "text" and len(found) == 1 and (mark := _separator(*found)):
        raise SourceDataError(
            f"{raw.where}: has one column, '{next(iter(found))}': its cells are separated by {mark}. "
            "Save it as CSV with commas."
        )
    for column in missing:
        nearest = difflib.get_close_matches(column, extra or found, n=1)
        hint = f" Did you mean '{nearest[0]}'?" if nearest else f" It has {', '.join(sorted(found))}."
        raise SourceDataError(
            f"{raw.where}: column '{column}' ({spec.columns[column]}) is missing.{hint} "
            "Add it to the source, or correct the columns in product.yaml."
        )
    if extra and not raw.sparse:
        raise SourceDataError(
            f"{raw.where}: has columns that product.yaml does not declare: {', '.join(extra)}. Expected "
            f"{', '.join(spec.columns)}. Declare them under columns with a type, or list them in ignore_columns."
        )


def _separator(header: str) -> str:
    """What separates the cells of a header that is no CSV with commas, in a word; "" where nothing does."""
    return next((word for mark, word in _OTHER_SEPARATORS.items() if mark in header), "")
