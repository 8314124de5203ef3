"""Rows of the ledger read back as events and checked: digests, links, rules, envelopes."""

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, CursorResult, select, text

from ml_platform.contracts.base import Name
from ml_platform.contracts.canonical import bytes_sha256, canonical_bytes
from ml_platform.contracts.events import Event
from ml_platform.errors import LedgerCorruptError
from ml_platform.lineage.keys import TrustedKeys
from ml_platform.lineage.ledger_envelopes import check_envelope
from ml_platform.lineage.ledger_schema import events
from ml_platform.lineage.replay import Replay

ROWS_AT_ONCE = 1_000

_HEADS = text(
    """
    WITH RECURSIVE named(product) AS (
        SELECT min(product) FROM events
        UNION ALL
        SELECT (SELECT min(product) FROM events WHERE product > named.product) FROM named WHERE product IS NOT NULL
    )
    SELECT product,
           (SELECT event_sha256 FROM events WHERE product = named.product ORDER BY sequence DESC LIMIT 1)
    FROM named WHERE product IS NOT NULL
    """
)

_COLUMNS = tuple(events.columns.keys())

_read_name = TypeAdapter(Name).validate_python

# What model_dump writes for the only field that is no text or number.
_spell_time = TypeAdapter(datetime).dump_python

# What canonical_bytes writes, for what came out of JSON and so has text keys only.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


@dataclass(frozen=True)
class VerifiedChain:
    """One product's chain that was found whole: its events, its epoch and the digest of its last event."""

    product: str
    events: int
    epoch: int
    head_sha256: str


def row_of(event: Event) -> dict[str, Any]:
    """The columns of an event."""
    plain = event.model_dump(mode="json")
    return plain | {"payload": canonical_bytes(event.payload).decode(), "event_sha256": event.sha256}


def events_of(connection: Connection, product: str | None, newest: int | None) -> tuple[Event, ...]:
    """Events in the order in which they were recorded, of one product or of all; with `newest`, the last so many."""
    query = select(events) if product is None else select(events).where(events.c.product == product)
    place = events.c.position if product is None else events.c.sequence
    order = place if newest is None else place.desc()
    rows = [read_row(row)[0] for row in connection.execute(query.order_by(order).limit(newest))]
    return tuple(rows if newest is None else reversed(rows))


def read_row(row: Sequence[Any]) -> tuple[Event, str]:
    """The event in a row and its digest. Raises LedgerCorruptError unless the row is exactly what was written.

    Every column must be spelled as writing the event again would spell it, so that the digest can be taken over
    the payload's stored text.
    """
    columns = dict(zip(_COLUMNS, row, strict=True))
    stored, said = columns["payload"], columns.pop("event_sha256")
    del columns["position"]
    where = f"event {columns['sequence']} of {columns['product']} ({columns['kind']})"
    try:
        event = Event.model_validate(columns | {"payload": json.loads(stored)})
        written = {
            "product": event.product,
            "sequence": event.sequence,
            "epoch": event.epoch,
            "kind": event.kind.value,
            "payload": _encode(event.payload),
            "previous_sha256": event.previous_sha256,
            "recorded_at": _spell_time(event.recorded_at, mode="json"),
            "actor": event.actor,
        }
        sha256 = _spliced_sha256(written)
    except (ValueError, TypeError, RecursionError):
        raise LedgerCorruptError(f"{where}: cannot be read. The row was changed or damaged.") from None
    if columns != written or sha256 != said:
        changed = sorted(key for key, value in columns.items() if written[key] != value) or ["event_sha256"]
        raise LedgerCorruptError(f"{where}: does not fit its digest ({', '.join(changed)}). The row was changed.")
    return event, sha256


def _spliced_sha256(written: dict[str, Any]) -> str:
    """The digest of the event's canonical JSON, the payload's text put in; of the rest only the actor is free text."""
    return bytes_sha256(
        f'{{"actor":{_encode(written["actor"])},"epoch":{written["epoch"]},"kind":"{written["kind"]}",'
        f'"payload":{written["payload"]},"previous_sha256":"{written["previous_sha256"]}",'
        f'"product":"{written["product"]}","recorded_at":"{written["recorded_at"]}",'
        f'"sequence":{written["sequence"]}}}'.encode()
    )


def catch_up(connection: Connection, replay: Replay) -> Replay:
    """Takes in what was recorded since the replay's last event, which must still be there."""
    with _rows_from(connection, replay.product, replay.sequence) as rows:
        if replay.sequence:
            last = rows.fetchone()
            _require_seen(replay.product, replay.sequence, replay.head_sha256, last and last.event_sha256)
        with _no_collection():
            for row in rows:
                replay.add(*read_row(row))
    if not replay.sequence:
        _require_name(replay.product)
    return replay


def _require_name(product: str) -> None:
    """Raises LedgerCorruptError for what no product was ever called: a new one has no chain either."""
    try:
        _read_name(product)
    except ValidationError:
        raise _without_chain(product) from None


def _without_chain(product: str) -> LedgerCorruptError:
    return LedgerCorruptError(
        f"product {product!r}: no chain begins under that name. An event's product was changed or damaged, and is "
        "missing from the end of its own chain. Restore the ledger from a backup."
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's collector rests: a replay makes no cycles, and to look through its growing heap costs a quarter more."""
    rests = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if rests:
            gc.enable()


def heads_of(connection: Connection) -> dict[str, str]:
    """The digest of each product's last event, as it stands there; a few steps in an index, however long the chains."""
    return dict(connection.execute(_HEADS).all())


def require_event(connection: Connection, product: str, sequence: int, sha256: str) -> None:
    """Raises LedgerCorruptError unless the event of that digest is still there."""
    query = select(events.c.event_sha256).where(events.c.product == product, events.c.sequence == sequence)
    _require_seen(product, sequence, sha256, connection.scalar(query))


def _require_seen(product: str, sequence: int, sha256: str, found: str | None) -> None:
    if found != sha256:
        raise LedgerCorruptError(
            f"event {sequence} of {product}: is gone or another one since it was last read. The ledger was rewritten "
            "or restored from an old copy."
        )


def _rows_from(connection: Connection, product: str, sequence: int) -> CursorResult[Any]:
    """The rows of a product from a sequence on; a whole chain comes in pieces, not into memory at once."""
    query = select(events).where(events.c.product == product, events.c.sequence >= sequence)
    if sequence == 0:
        query = query.execution_options(yield_per=ROWS_AT_ONCE)
    return connection.execute(query.order_by(events.c.sequence))


def verify_chain(
    connection: Connection, product: str, trusted: TrustedKeys | None, operators: TrustedKeys | None = None
) -> VerifiedChain:
    """Reads one product's chain and envelopes again; with keys, every signature too, those of revoked keys among them:
    what they signed no longer counts, and is not damaged."""
    replay = Replay(product)
    position = 0
    with _rows_from(connection, product, 0) as rows:
        for row in rows:
            event, sha256 = read_row(row)
            replay.add(event, sha256)
            if row.position <= position:
                raise LedgerCorruptError(f"{event.where}: stands before the one that it follows. Rows were reordered.")
            position = row.position
            check_envelope(connection, event, trusted, operators)
    if not replay.sequence:
        raise _without_chain(product)
    return VerifiedChain(product, replay.sequence, replay.epoch, replay.head_sha256)
