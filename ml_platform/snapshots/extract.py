"""Extraction: what the sources told at the cutoff becomes an immutable, content-addressed snapshot."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.canonical import bytes_sha256, canonical_bytes, digest, file_sha256, sources_sha256
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.contracts.snapshot import SnapshotManifest, SnapshotOrigin, TableFacts
from ml_platform.contracts.source import AnsweredSpec
from ml_platform.errors import ArtifactCorruptError, AsOfOutsideDataError
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.snapshots.rows import JudgedTable, judge_rows
from ml_platform.snapshots.sources import SourceContext, read_source

if TYPE_CHECKING:
    import pandas as pd

    from ml_platform.lineage.answered import AnswerHistory

ROW_GROUP_ROWS = 131_072
_CODE = ("sources.py", "answered.py", "readers.py", "cells.py", "rows.py", "extract.py")


@dataclass(frozen=True)
class _Extracted:
    judged: JudgedTable
    parquet: bytes
    quarantine: bytes
    inputs: Mapping[str, str]


def cutoff(as_of: date) -> datetime:
    """The moment up to which a snapshot sees: the end of the day `as_of`, UTC."""
    return datetime.combine(as_of, time(), UTC) + timedelta(days=1)


def take_snapshot(
    product: Product,
    as_of: date,
    store: ArtifactStore,
    report: Reporter = silent,
    *,
    history: "AnswerHistory | None" = None,
    now: datetime | None = None,
    tell: Callable[[SnapshotOrigin], None] = lambda _: None,
) -> Artifact:
    """The snapshot of a product at the end of a day: `tables/<name>.parquet`, `quarantine/<name>.jsonl`.

    Its identity is what was known at the cutoff, not what has been added to the sources since: a
    backfill finds the snapshot that the live run made. `history` is what was said of answers, None where
    nothing was ever recorded; `now` (default: the clock) only serves to tell rows that claim a time yet to come.
    `tell` hears of the files that it was taken from, which are kept beside it: artifact `snapshot_origin`.
    Raises SourceDataError for unusable sources and AsOfOutsideDataError when they do not cover the day.
    """
    moment, clock = cutoff(as_of), now or datetime.now(UTC)
    context = SourceContext(product.name, product.folder, moment, history)
    extracted: dict[str, _Extracted] = {}
    for number, name in enumerate(product.spec.sources):
        report(Progress("snapshot", number / len(product.spec.sources), f"reading {name}"))
        extracted[name] = _extract(product, name, context, clock)
    _require_covered(product, as_of, {name: table.judged for name, table in extracted.items()})
    manifest = _manifest(product, as_of, extracted)
    recipe = {
        "product": product.name,
        "as_of": as_of.isoformat(),
        "code_sha256": manifest.code_sha256,
        "tables": {
            name: {"parquet": bytes_sha256(table.parquet), "quarantine": bytes_sha256(table.quarantine)}
            for name, table in extracted.items()
        },
    }
    artifact = store.make("snapshot", recipe, lambda folder: _write(folder, extracted, manifest))
    tell(_keep_origin(artifact, extracted, store))
    report(Progress("snapshot", 1.0, _summary(manifest, artifact)))
    return artifact


def load_table(snapshot: Artifact, name: str) -> "pd.DataFrame":
    """One table of a snapshot, sorted by key; times are UTC in microseconds, nullable integers `Int64`."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    # ParquetFile reads this one file; read_table would also read columns out of a folder called `a=b`.
    table = pq.ParquetFile(pa.BufferReader(snapshot.read(f"tables/{name}.parquet"))).read()
    frame: pd.DataFrame = table.to_pandas()
    for field in table.schema:
        if table.column(field.name).null_count and field.type in (pa.int64(), pa.bool_()):
            dtype = pd.Int64Dtype() if field.type == pa.int64() else pd.BooleanDtype()
            frame[field.name] = pd.array(table.column(field.name).to_pylist(), dtype=dtype)
    return frame


def manifest_of(snapshot: Artifact) -> SnapshotManifest:
    """What the snapshot's maker states; raises ArtifactCorruptError for an artifact of another kind."""
    if snapshot.kind != "snapshot":
        raise ArtifactCorruptError(f"{snapshot.kind} {snapshot.sha256[:12]} is no snapshot. Pass the snapshot.")
    return SnapshotManifest.parse(snapshot.facts, where=f"snapshot {snapshot.sha256[:12]}")


def snapshot_code_sha256(product: Product) -> str:
    """The digest of the code that shapes a snapshot: this package's and the product's source hooks."""
    here = Path(__file__).parent
    hooks = sorted({spec.hook.partition(":")[0] for spec in product.spec.sources.values() if spec.hook})
    return digest(
        {
            "platform": sources_sha256([here / name for name in _CODE], here),
            "hooks": {name: file_sha256(product.folder / name) for name in hooks},
        }
    )


def parquet_bytes(table: Any) -> bytes:
    """The same bytes on every machine: one thread, fixed row groups, no pandas or Arrow metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(None),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=True,
        write_statistics=True,
        coerce_timestamps="us",
        store_schema=False,
    )
    return bytes(sink.getvalue().to_pybytes())


def _extract(product: Product, name: str, context: SourceContext, now: datetime) -> _Extracted:
    raw = read_source(product, name, context)
    judged = judge_rows(raw, product.spec.sources[name], context.cutoff, now)
    lines = b"".join(canonical_bytes(row) + b"\n" for row in judged.quarantined)
    return _Extracted(judged, parquet_bytes(judged.table), lines, raw.inputs)


def _require_covered(product: Product, as_of: date, tables: Mapping[str, JudgedTable]) -> None:
    """Raises AsOfOutsideDataError when a table knew nothing yet, or nothing new for too long; names the worst."""
    moment, allowed = cutoff(as_of), product.spec.max_staleness_days
    # Nobody has to say anything: what was said of answers may be nothing, and nothing new.
    tables = {name: one for name, one in tables.items() if not isinstance(product.spec.sources[name], AnsweredSpec)}
    silent_ones = {name: judged for name, judged in tables.items() if judged.table.num_rows == 0}
    if silent_ones:
        name = max(silent_ones, key=lambda name: silent_ones[name].first_known or moment)
        raise AsOfOutsideDataError(
            f"{product.name} as of {as_of}: source '{name}' {_nothing_known(silent_ones[name], moment)}"
        )
    ends = {name: _event_range(table.table, product.spec.sources[name].event_time)[1] for name, table in tables.items()}
    ended = {name: newest for name, newest in ends.items() if newest is not None}
    if allowed is None or not ended:
        return
    name = min(ended, key=lambda name: ended[name])
    newest, age = ended[name], moment - ended[name]
    if age > timedelta(days=allowed):
        last = newest + timedelta(days=allowed - 1)
        raise AsOfOutsideDataError(
            f"{product.name} as of {as_of}: source '{name}' ends at {newest:%Y-%m-%d %H:%M}Z, {age.days} days before "
            f"the cutoff {moment:%Y-%m-%d %H:%M}Z; at most {allowed:g} may pass (max_staleness_days). Choose a day "
            f"up to {last:%Y-%m-%d}, or bring the source up to date."
        )


def _nothing_known(judged: JudgedTable, moment: datetime) -> str:
    if judged.first_known is None:
        return "has no good row at all. Correct the source."
    return (
        f"has no good row that was known at {moment:%Y-%m-%d %H:%M}Z; its first became known at "
        f"{judged.first_known:%Y-%m-%d %H:%M}Z. Choose {judged.first_known:%Y-%m-%d} or a later day."
    )


def _manifest(product: Product, as_of: date, extracted: Mapping[str, _Extracted]) -> SnapshotManifest:
    tables = {}
    for name, table in extracted.items():
        spec = product.spec.sources[name]
        first, last = _event_range(table.judged.table, spec.event_time)
        tables[name] = TableFacts(
            file=f"tables/{name}.parquet",
            file_sha256=bytes_sha256(table.parquet),
            columns=spec.columns,
            rows=table.judged.table.num_rows,
            quarantined=len(table.judged.quarantined),
            first_event=first,
            last_event=last,
        )
    return SnapshotManifest(
        product=product.name,
        as_of=as_of,
        cutoff=cutoff(as_of),
        tables=tables,
        code_sha256=snapshot_code_sha256(product),
    )


def _keep_origin(taken: Artifact, extracted: Mapping[str, _Extracted], store: ArtifactStore) -> SnapshotOrigin:
    origin = SnapshotOrigin(
        snapshot_sha256=taken.sha256,
        sources={name: dict(table.inputs) for name, table in extracted.items()},
        not_yet_known={name: table.judged.not_yet_known for name, table in extracted.items()},
    )

    def build(folder: Path) -> dict[str, Any]:
        (folder / "origin.json").write_bytes(origin.canonical_bytes())
        return origin.model_dump(mode="json")

    store.make("snapshot_origin", {"origin_sha256": origin.sha256}, build)
    return origin


def _write(folder: Path, extracted: Mapping[str, _Extracted], manifest: SnapshotManifest) -> dict[str, Any]:
    import pyarrow.parquet as pq

    for name, table in extracted.items():
        for part, suffix, data in (("tables", "parquet", table.parquet), ("quarantine", "jsonl", table.quarantine)):
            path = folder / part / f"{name}.{suffix}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        path = folder / manifest.tables[name].file
        if hashlib.sha256(path.read_bytes()).hexdigest() != manifest.tables[name].file_sha256:
            raise ArtifactCorruptError(f"{path}: what was read back is not what was written. Check the disk.")
        if pq.read_metadata(path).num_rows != manifest.tables[name].rows:
            raise ArtifactCorruptError(f"{path}: holds another number of rows than were written. Check the disk.")
    return manifest.model_dump(mode="json")


def _event_range(table: Any, event_time: str | None) -> tuple[datetime | None, datetime | None]:
    import pyarrow.compute as pc

    if event_time is None or table.num_rows == 0:
        return None, None
    found = pc.min_max(table.column(event_time))
    return found["min"].as_py(), found["max"].as_py()


def _summary(manifest: SnapshotManifest, artifact: Artifact) -> str:
    rows = sum(table.rows for table in manifest.tables.values())
    aside = sum(table.quarantined for table in manifest.tables.values())
    reused = ", reused" if artifact.reused else ""
    return f"{rows:,} rows known at {manifest.cutoff:%Y-%m-%d %H:%M}Z, {aside} set aside{reused}"
