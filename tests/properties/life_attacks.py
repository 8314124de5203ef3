"""What is done to a ledger from outside: rows changed past the triggers, writers that die between two appends."""

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event

from ml_platform.contracts.events import Event, EventKind
from ml_platform.errors import MlPlatformError
from ml_platform.lineage.ledger import Ledger

ROWS = ("state", "replay", "verify", "events")
"""The readers who look at every row anew; `events` looks at each for itself, and misses no row."""


ENVELOPE_OF = "SELECT json_extract(payload, '$.envelope_sha256') FROM events WHERE sequence = :n"


class DiedError(BaseException):
    """The writer's process is gone; nobody catches that."""


@dataclass(frozen=True)
class Tampering:
    """What somebody does who owns the database, `:n` being an event and `:envelope` the one that it names; and which
    readers must see it."""

    statements: tuple[str, ...]
    seen_by: tuple[str, ...] = ROWS
    kinds: tuple[EventKind, ...] = tuple(EventKind)

    def fits(self, one: Event) -> bool:
        """Whether there is something to change."""
        return one.kind in self.kinds

    def commit(self, path: Path, sequence: int) -> None:
        """Changes the database past its triggers, which an owner can drop."""
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                database.execute(f"DROP TRIGGER {name}")
            found = database.execute(ENVELOPE_OF, {"n": sequence}).fetchone()
            for statement in self.statements:
                values = {"n": sequence, "envelope": found and found[0]}
                assert database.execute(statement, values).rowcount > 0


ENVELOPES = (EventKind.EVIDENCE_RECORDED, EventKind.POLICY_PINNED, EventKind.PROMOTION_SIGNED)
TAMPERING = {
    "another actor": Tampering(("UPDATE events SET actor = 'nobody' WHERE sequence = :n",)),
    "another time": Tampering(("UPDATE events SET recorded_at = '2013-01-01T00:00:00Z' WHERE sequence = :n",)),
    "another kind": Tampering(
        ("UPDATE events SET kind = iif(kind = 'canary_opened', 'canary_paused', 'canary_opened') WHERE sequence = :n",)
    ),
    "another payload": Tampering(("UPDATE events SET payload = payload || ' ' WHERE sequence = :n",)),
    "another epoch": Tampering(("UPDATE events SET epoch = epoch + 1 WHERE sequence = :n",)),
    "a digest of its own": Tampering(("UPDATE events SET event_sha256 = previous_sha256 || 'x' WHERE sequence = :n",)),
    "a row dropped": Tampering(("DELETE FROM events WHERE sequence = :n",), ("state", "replay", "verify")),
    "rows exchanged": Tampering(
        (
            "UPDATE events SET sequence = -1 WHERE sequence = :n",
            "UPDATE events SET sequence = :n WHERE sequence = :n + 1",
            "UPDATE events SET sequence = :n + 1 WHERE sequence = -1",
        )
    ),
    "rows reordered": Tampering(("UPDATE events SET position = position + 100000 WHERE sequence = :n",), ("verify",)),
    "an envelope changed": Tampering(
        ("UPDATE envelopes SET content = content || ' ' WHERE envelope_sha256 = :envelope",), ("verify",), ENVELOPES
    ),
    "an envelope dropped": Tampering(
        ("DELETE FROM envelopes WHERE envelope_sha256 = :envelope",), ("verify",), ENVELOPES
    ),
}


def cut_the_end(path: Path, rows: int) -> None:
    """Takes the last events away, as restoring an old copy would."""
    last = Tampering(("DELETE FROM events WHERE sequence > (SELECT max(sequence) FROM events) - :n",))
    last.commit(path, rows)


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """Puts the copy of a database back at the end; nobody has it open meanwhile."""
    copy = path.read_bytes()
    assert not path.with_name(path.name + "-wal").exists(), "everybody closed the database"
    try:
        yield
    finally:
        path.write_bytes(copy)


def read(ledger: Ledger, product: str, reader: str) -> Any:
    """What one of the readers gives."""
    return getattr(ledger, reader)(*(() if reader == "verify" else (product,)))


@contextmanager
def dying_after(ledger: Ledger, inserts: int, die: Callable[[], None]) -> Iterator[None]:
    """Lets a writer die right after so many rows, inside its transaction."""
    seen = 0

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal seen
        seen += statement.startswith("INSERT")
        if seen >= inserts:
            die()

    event.listen(ledger._engine, "after_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(ledger._engine, "after_cursor_execute", count)


def raise_death() -> None:
    raise DiedError


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(work: Callable[[], object]) -> bool:
    """Does the work in a forked process; False when that was killed on the way."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except MlPlatformError:
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True
