"""One changed byte anywhere: an envelope, a pin, a policy, a release, a manifest, an adapter. Refused, by name."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.events import EvidenceRecorded, PolicyPinned
from ml_platform.contracts.policy import PromotionPolicy
from ml_platform.errors import ContractError, EvidenceError, LedgerCorruptError, RefusedError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.statements import verify_pin
from ml_platform.release.controller import Controller, Held, Move
from tests.samples.releases import (
    NOW,
    OPERATOR,
    PRODUCT,
    inputs_of,
    make_controller,
    make_policy,
    make_release,
    make_results,
    pin,
    trusting,
)

KEY = SigningKey.generate()
POLICY, RELEASE = make_policy(), make_release()
LATER = NOW + timedelta(hours=1)
PATTERNS = (0x01, 0x20, 0x80, 0xFF)
"""One bit, another case, no ASCII, every bit."""


def flips(data: bytes, every: int = 1) -> Iterator[bytes]:
    """The data with one byte changed, each place in turn, the patterns taking turns too."""
    for index in range(0, len(data), every):
        pattern = PATTERNS[(index // every) % len(PATTERNS)]
        yield data[:index] + bytes([data[index] ^ pattern]) + data[index + 1 :]


def all_flips(data: bytes) -> Iterator[bytes]:
    """The data with one byte changed, in each place by each pattern."""
    for index in range(len(data)):
        for pattern in PATTERNS:
            yield data[:index] + bytes([data[index] ^ pattern]) + data[index + 1 :]


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    """A controller on a ledger with a pinned policy and a proven release, which would open at once."""
    controller = make_controller(tmp_path, KEY)
    pin(controller)
    controller.register_release(RELEASE, POLICY, NOW, "run")
    assert controller.record_verdicts(RELEASE, make_results(POLICY), inputs_of(RELEASE), KEY, NOW, "run").eligible
    return controller


@pytest.fixture
def database(controller: Controller, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The ledger's database in the hands of its owner, who dropped the triggers; it must be whole again at the end."""
    before = controller.ledger.verify(trusting(KEY), trusting(OPERATOR))
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("PRAGMA synchronous = OFF")
        yield connection
    assert controller.ledger.verify(trusting(KEY), trusting(OPERATOR)) == before
    assert isinstance(open_canary(controller), Move)


def open_canary(controller: Controller) -> Move | Held:
    return controller.open_canary(PRODUCT, RELEASE.release_id, LATER, "run")


@contextmanager
def replaced(
    database: sqlite3.Connection, table: str, column: str, row: int, value: bytes, kind: str
) -> Iterator[None]:
    """One field with another value, as long as the block lasts."""
    read = f"SELECT {column} FROM {table} WHERE rowid = ?"  # noqa: S608 - names of ours
    write = f"UPDATE {table} SET {column} = CAST(? AS {kind}) WHERE rowid = ?"  # noqa: S608 - names of ours
    (before,) = database.execute(read, (row,)).fetchone()
    assert before != value
    database.execute(write, (value, row))
    try:
        yield
    finally:
        database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (before, row))  # noqa: S608 - names of ours


def test_every_byte_of_a_stored_envelope_is_watched_by_the_controller_and_the_verifier(
    controller: Controller, database: sqlite3.Connection
) -> None:
    """The envelope of one gate, in place in the database: the move stops and says which gate of which release."""
    said = controller.ledger.replay(PRODUCT).evidence[RELEASE.release_id][2]
    query = "SELECT rowid, content FROM envelopes WHERE envelope_sha256 = ?"
    row, envelope = database.execute(query, (said.envelope_sha256,)).fetchone()
    words = f"evidence for gate 'late_recall' of release {RELEASE.release_id[:12]}.*was changed"
    for number, changed in enumerate(flips(envelope)):
        with replaced(database, "envelopes", "content", row, changed, "BLOB"):
            with pytest.raises(LedgerCorruptError, match=words):
                open_canary(controller)
            if number % 20 == 0:
                with pytest.raises(LedgerCorruptError, match=words):
                    controller.ledger.verify()


@pytest.mark.parametrize("kind", ["policy_recorded", "release_registered", "policy_pinned", "evidence_recorded"])
def test_every_byte_of_a_recorded_policy_release_pin_and_verdict_is_watched(
    controller: Controller, database: sqlite3.Connection, kind: str
) -> None:
    """The payload of an event, in place in the database: whoever reads the ledger anew names the event."""
    query = "SELECT position, sequence, CAST(payload AS BLOB) FROM events WHERE kind = ?"
    row, sequence, payload = database.execute(query, (kind,)).fetchone()
    for number, changed in enumerate(flips(payload)):
        with replaced(database, "events", "payload", row, changed, "TEXT"):
            with pytest.raises(LedgerCorruptError, match=rf"event {sequence} of {PRODUCT} \({kind}\)"):
                controller.ledger.replay(PRODUCT)
            if number % 50 == 0:
                with pytest.raises(LedgerCorruptError, match=f"event {sequence} of"):
                    open_canary(Controller(Ledger(controller.ledger.url), trusting(KEY), controller.producer))


def test_changed_evidence_in_a_chain_that_fits_it_still_opens_nothing(tmp_path: Path, controller: Controller) -> None:
    """Whoever owns the database can write every digest anew, but cannot sign: the release is held, by name."""
    envelopes = controller.ledger.envelopes(PRODUCT, RELEASE.release_id)
    evidence = controller.ledger.replay(PRODUCT).evidence[RELEASE.release_id]
    for number, changed in enumerate(flips(envelopes[2], every=127)):
        forged = make_controller(tmp_path / str(number), KEY)
        pin(forged)
        forged.register_release(RELEASE, POLICY, NOW, "run")
        with forged.ledger.write(PRODUCT, NOW, "forger") as transaction:
            for said, envelope in zip(evidence, [*envelopes[:2], changed, *envelopes[3:]], strict=True):
                transaction._keep(envelope)
                told = said.model_dump() | {"envelope_sha256": bytes_sha256(envelope)}
                transaction.append(EvidenceRecorded.model_validate(told))
        held = open_canary(forged)
        assert isinstance(held, Held)
        assert held.gates == ("evidence", "late_recall")
        assert held.reasons["evidence"].startswith(f"Envelope {bytes_sha256(changed)[:12]}: ")
        with pytest.raises(LedgerCorruptError, match=f"event 6 .*envelope {bytes_sha256(changed)[:12]}: "):
            forged.ledger.verify(trusting(KEY))


def test_every_changed_byte_of_a_pin_is_refused(controller: Controller) -> None:
    ((_, envelope),) = controller.ledger.pins(PRODUCT)
    assert verify_pin(envelope, trusting(OPERATOR)).policy_sha256 == POLICY.sha256
    for changed in all_flips(envelope):
        with pytest.raises(EvidenceError, match=f"envelope {bytes_sha256(changed)[:12]}: "):
            verify_pin(changed, trusting(OPERATOR))


def test_a_changed_pin_in_a_chain_that_fits_it_pins_nothing(tmp_path: Path, controller: Controller) -> None:
    ((_, envelope),) = controller.ledger.pins(PRODUCT)
    for number, changed in enumerate(flips(envelope, every=127)):
        forged = make_controller(tmp_path / str(number), KEY)
        forged.register_release(RELEASE, POLICY, NOW, "run")
        assert forged.record_verdicts(RELEASE, make_results(POLICY), inputs_of(RELEASE), KEY, NOW, "run").eligible
        with forged.ledger.write(PRODUCT, NOW, "forger") as transaction:
            said = {"policy_sha256": POLICY.sha256, "envelope_sha256": transaction._keep(changed)}
            transaction.append(PolicyPinned.model_validate(said))
        held = open_canary(forged)
        assert isinstance(held, Held)
        assert held.gates == ("policy_pinned",)
        assert "No promotion policy of assistant is pinned by a trusted operator" in held.reasons["policy_pinned"]


def test_a_policy_with_any_other_byte_is_another_policy_and_serves_nothing(controller: Controller) -> None:
    """What somebody loosens in a working copy: it cannot be read, or a release names it and is held for it."""
    written = POLICY.canonical_bytes()
    others: dict[str, PromotionPolicy] = {}
    for changed in all_flips(written):
        try:
            other = PromotionPolicy.parse(json.loads(changed), where="promotion_policy.yaml")
        except (ContractError, ValueError):
            continue  # no JSON, or no policy
        assert other.sha256 != POLICY.sha256
        others[other.sha256] = other
        with pytest.raises(
            RefusedError, match=f"names promotion policy {POLICY.sha256[:12]}, given was {other.sha256[:12]}"
        ):
            controller.register_release(RELEASE, other, LATER, "run")
    assert len(others) > 100, "there are many ways to loosen a policy by one byte"
    for other in list(others.values())[:: len(others) // 20]:
        release = make_release(policy=other)
        controller.register_release(release, other, LATER, "run")
        held = controller.open_canary(PRODUCT, release.release_id, LATER, "run")
        assert isinstance(held, Held)
        assert held.gates == ("policy_pinned",)
        for word in (other.sha256[:12], POLICY.sha256[:12], f"`mlp policy pin {PRODUCT} --reason"):
            assert word in held.reasons["policy_pinned"]


def test_who_noticed_once_that_the_chain_was_cut_notices_it_every_time(
    controller: Controller, database: sqlite3.Connection
) -> None:
    """A shorter chain is whole in itself: only a reader that remembers can tell, and must not forget by asking."""
    controller.state(PRODUCT)
    database.execute("BEGIN")
    rows = database.execute("SELECT * FROM events ORDER BY position DESC LIMIT 2").fetchall()
    database.execute("DELETE FROM events WHERE sequence > ?", (rows[0][2] - 2,))
    database.execute("COMMIT")
    for _ in range(3):
        for ask in (lambda: controller.state(PRODUCT), lambda: open_canary(controller)):
            with pytest.raises(LedgerCorruptError, match=f"event {rows[0][2]} of {PRODUCT}: is gone"):
                ask()
    database.executemany(f"INSERT INTO events VALUES ({', '.join('?' * len(rows[0]))})", rows)  # noqa: S608 - marks only


def test_an_event_whose_product_was_damaged_is_noticed_by_the_verifier_and_by_who_reads_that_product(
    controller: Controller, database: sqlite3.Connection
) -> None:
    """Even the last one, without which its chain is whole in itself; by any byte, also of no UTF-8."""
    row, last = database.execute(
        "SELECT position, CAST(product AS BLOB) FROM events ORDER BY 1 DESC LIMIT 1"
    ).fetchone()
    for changed in all_flips(last):
        with replaced(database, "events", "product", row, changed, "TEXT"):
            ledger = Ledger(controller.ledger.url)
            with pytest.raises(LedgerCorruptError):
                ledger.verify()
            (stray,) = set(ledger.products()) - {PRODUCT}
            assert stray in ledger.heads()
            for read in (ledger.state, ledger.replay):
                with pytest.raises(LedgerCorruptError):
                    read(stray)


def test_values_of_any_type_in_any_column_are_named_like_the_rest(
    controller: Controller, database: sqlite3.Connection
) -> None:
    """SQLite keeps any type in any column; what is no text, no number or not even UTF-8 must not end in a traceback."""
    (row,) = database.execute("SELECT position FROM events WHERE sequence = 4").fetchone()
    names = [name for _, name, *_ in database.execute("PRAGMA table_info(events)").fetchall()]
    texts = [(value, kind) for value in (b"\xff\xfe", b"x", b"") for kind in ("BLOB", "TEXT")]
    for column in set(names) - {"position"}:
        for value, kind in [*texts, (b"0.5", "REAL"), (b"1000000000000000", "INTEGER")]:
            changed = replaced(database, "events", column, row, value, kind)
            with changed, pytest.raises(LedgerCorruptError, match=r"event .* of "):
                controller.ledger.verify()
    ((row, kept),) = database.execute("SELECT rowid, content FROM envelopes LIMIT 1").fetchall()
    for value, kind in ((kept + b" ", "TEXT"), (b"10000000000000", "INTEGER"), (b"0.5", "REAL"), (b"", "BLOB")):
        changed = replaced(database, "envelopes", "content", row, value, kind)
        with changed, pytest.raises(LedgerCorruptError, match="was changed"):
            controller.ledger.verify()
