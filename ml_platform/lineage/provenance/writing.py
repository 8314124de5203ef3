"""How frames of the log become rows: each once, whatever how often it comes, and never in the place of another."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, select, tuple_
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.provenance import Feedback, Outcome, ProvenanceRecord
from ml_platform.errors import IntegrityError
from ml_platform.lineage.provenance.frames import Damage, Frame, Kind
from ml_platform.lineage.provenance.schema import (
    LONGEST_ENTITY_BYTES,
    conflicts,
    feedback,
    outcomes,
    responses,
    shipped,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CONTRACTS: dict[Kind, type[ProvenanceRecord | Feedback | Outcome]] = {
    Kind.RESPONSE: ProvenanceRecord,
    Kind.FEEDBACK: Feedback,
    Kind.OUTCOME: Outcome,
}
TABLES: dict[Kind, Table] = {Kind.RESPONSE: responses, Kind.FEEDBACK: feedback, Kind.OUTCOME: outcomes}


@dataclass(frozen=True)
class Progress:
    """A part of a segment on its way to the store: its frames, the damage in it, and where it ends."""

    segment: str
    frames: tuple[Frame, ...]
    damage: tuple[Damage, ...]
    end: int


def microseconds(moment: datetime) -> int:
    """A moment as microseconds since 1970, exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def write_frames(connection: Connection, progress: Progress) -> int:
    """Writes what is new and how far the segment is stored; returns how many conflicts are new."""
    refused = [_damaged(progress.segment, damage) for damage in progress.damage]
    for kind, table in TABLES.items():
        rows = []
        for frame in progress.frames:
            if frame.kind is kind:
                try:
                    rows.append(_row_of(CONTRACTS[kind].from_log(frame.payload), frame.payload))
                except IntegrityError as error:
                    refused.append(_unreadable(kind, progress.segment, frame, error))
        joinable = [row for row in rows if fits(row["entity"])]
        refused += [_too_long(kind, row) for row in rows if not fits(row["entity"])]
        refused += _insert(connection, kind, table, joinable)
    _note_progress(connection, progress)
    return sum(_refuse(connection, row) for row in refused)


def fits(entity: str | None) -> bool:
    """Whether something said of an entity with that text can be stored under it."""
    return entity is None or len(entity.encode()) <= LONGEST_ENTITY_BYTES


def _row_of(value: ProvenanceRecord | Feedback | Outcome, payload: bytes) -> dict[str, Any]:
    common = {
        "product": value.product,
        "response_id": value.response_id,
        "entity": value.entity_key,
        "content": payload.decode(),
    }
    if isinstance(value, ProvenanceRecord):
        return {
            **common,
            # An answer is kept whole all the same; nothing that is said of such an entity could be joined to it.
            "entity": common["entity"] if fits(common["entity"]) else None,
            "release_id": value.release_id,
            "cohort": value.cohort.value,
            "answered_us": microseconds(value.answered_at),
            "sha256": bytes_sha256(payload),
        }
    return {
        **common,
        "idempotency_key": value.idempotency_key,
        "received_us": microseconds(value.received_at),
        "sha256": value.said_sha256,
    }


def _insert(connection: Connection, kind: Kind, table: Table, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Inserts what has no row yet; returns those whose row says something else."""
    if not rows:
        return []
    key = ("response_id",) if kind is Kind.RESPONSE else ("product", "idempotency_key")
    # In one order everywhere: two machines that ship the same records wait for each other, and never both at once.
    rows = sorted(rows, key=lambda row: tuple(row[column] for column in key))
    names = [tuple(row[column] for column in key) for row in rows]
    connection.execute(_insert_into(connection, table), rows)
    columns = [table.c[column] for column in key]
    # One column is compared by IN alone: both databases look that up in the index for sure.
    named = columns[0].in_([name[0] for name in names]) if len(key) == 1 else tuple_(*columns).in_(names)
    kept = {tuple(row[:-1]): row.sha256 for row in connection.execute(select(*columns, table.c.sha256).where(named))}
    return [
        {
            "kind": kind.name.lower(),
            "product": row["product"],
            "key": name[-1],
            "kept_sha256": kept[name],
            "refused_sha256": row["sha256"],
            "refused": row["content"],
            "reason": f"{' '.join(name)} is stored with another content, which stays",
        }
        for row, name in zip(rows, names, strict=True)
        if kept[name] != row["sha256"]
    ]


def _insert_into(connection: Connection, table: Table) -> Any:
    """An INSERT that leaves alone what a unique index has already."""
    insert = insert_postgresql if connection.dialect.name == "postgresql" else insert_sqlite
    return insert(table).on_conflict_do_nothing()


def _refuse(connection: Connection, row: dict[str, Any]) -> bool:
    """Puts a conflict on record; whether it is new."""
    statement = _insert_into(connection, conflicts).values(row).returning(conflicts.c.number)
    return connection.scalar(statement) is not None


def _note_progress(connection: Connection, progress: Progress) -> None:
    insert = insert_postgresql if connection.dialect.name == "postgresql" else insert_sqlite
    statement = insert(shipped).values(segment=progress.segment, offset=progress.end)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[shipped.c.segment],
            set_={"offset": statement.excluded.offset},
            where=shipped.c.offset < statement.excluded.offset,
        )
    )


def _unreadable(kind: Kind, segment: str, frame: Frame, error: IntegrityError) -> dict[str, Any]:
    return {
        "kind": kind.name.lower(),
        "product": "",
        "key": f"{segment}:{frame.start}",
        "kept_sha256": None,
        "refused_sha256": bytes_sha256(frame.payload),
        "refused": frame.payload.decode(errors="backslashreplace").replace("\0", "\\0"),
        "reason": str(error),
    }


def _too_long(kind: Kind, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": kind.name.lower(),
        "product": row["product"],
        "key": row["idempotency_key"],
        "kept_sha256": None,
        "refused_sha256": row["sha256"],
        "refused": row["content"],
        "reason": f"its entity has more than {LONGEST_ENTITY_BYTES:,} bytes, which no index holds",
    }


def _damaged(segment: str, damage: Damage) -> dict[str, Any]:
    key = f"{segment}:{damage.start}"
    return {
        "kind": "damage",
        "product": "",
        "key": key,
        "kept_sha256": None,
        "refused_sha256": bytes_sha256(key.encode()),
        "refused": "",
        "reason": f"bytes {damage.start} to {damage.end} had been acknowledged and cannot be read: the disk lost them",
    }
