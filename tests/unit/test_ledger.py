"""The ledger, the same on SQLite and on a real PostgreSQL."""

import json
import multiprocessing
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from ml_platform.contracts.canonical import canonical_bytes
from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.events import PolicyRecorded, ReleaseEligible, ReleaseRegistered
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.slot_moves import CanaryOpened
from ml_platform.errors import ContractError, EpochConflictError, LedgerCorruptError, RefusedError, StorageError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.ledger_rows import read_row
from ml_platform.lineage.ledger_schema import events, open_engine
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.statements import sign_evidence
from tests.samples.postgres import make_database
from tests.samples.releases import NOW, PRODUCT, make_evidence, make_policy, make_release, trusting

KEY = SigningKey.generate()
POLICY = make_policy()
RELEASE = make_release()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'ledger.sqlite'}"
    return make_database(request.getfixturevalue("postgres"))


def fill(url: str, product: str = PRODUCT) -> Ledger:
    """A ledger with one registered, proven and opened release of a product."""
    ledger = Ledger(url)
    release = make_release(product=product)
    with ledger.write(product, NOW, "tester") as transaction:
        transaction.append(PolicyRecorded(policy=POLICY))
        transaction.append(ReleaseRegistered(release=release))
        for gate in POLICY.gate_names:
            evidence = make_evidence(release, POLICY, gate)
            transaction.append_evidence(evidence, sign_evidence(evidence, KEY))
        transaction.append(eligible(release.release_id))
        transaction.append(CanaryOpened(release_id=release.release_id, step=1, exposure=0.05))
    return ledger


def eligible(release_id: str) -> ReleaseEligible:
    return ReleaseEligible(release_id=release_id, policy_sha256=POLICY.sha256, expires_at=NOW + timedelta(days=30))


def execute(url: str, *statements: str) -> None:
    """Runs SQL as somebody would who has the database but not this library."""
    engine = open_engine(url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def disarm(url: str) -> None:
    """Drops the triggers, as only an owner of the database can."""
    if url.startswith("sqlite"):
        names = ("events_no_update", "events_no_delete", "events_in_order", "envelopes_no_update")
        execute(url, *(f"DROP TRIGGER {name}" for name in (*names, "envelopes_no_delete", "envelopes_no_replace")))
    else:
        execute(url, *(f"DROP TRIGGER {name}_append_only ON {name}" for name in ("events", "envelopes")))


def test_a_new_ledger_is_empty_and_whole(url: str) -> None:
    ledger = Ledger(url)
    assert ledger.products() == ()
    assert ledger.events() == ()
    assert ledger.verify() == ()
    assert ledger.state(PRODUCT).slots == {}


def test_state_is_a_replay_of_the_events(url: str) -> None:
    ledger = fill(url)
    state = ledger.state(PRODUCT)
    assert state == Replay(PRODUCT).add_all(ledger.events(PRODUCT)).state() == Ledger(url).replay(PRODUCT).state()
    assert state.slots == {SlotName.CANARY: RELEASE.release_id}
    assert (state.epoch, state.sequence, state.exposure) == (1, len(ledger.events()), 0.05)
    assert state.releases == {RELEASE.release_id: ReleaseState.CANARY}


def test_products_have_chains_of_their_own(url: str) -> None:
    fill(url, "first")
    ledger = fill(url, "second")
    assert ledger.products() == ("first", "second")
    assert [(chain.product, chain.epoch) for chain in ledger.verify(trusting(KEY))] == [("first", 1), ("second", 1)]
    assert {event.product for event in ledger.events("first")} == {"first"}


def test_a_block_that_raises_leaves_nothing_behind(url: str) -> None:
    ledger = fill(url)
    before = ledger.state(PRODUCT)

    def fail() -> None:
        with ledger.write(PRODUCT, NOW, "tester") as transaction:
            transaction.append(ReleaseRegistered(release=make_release(seed=2)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert ledger.state(PRODUCT) == Ledger(url).state(PRODUCT) == before


def test_an_event_that_the_rules_forbid_is_refused_and_the_rest_rolled_back(url: str) -> None:
    ledger = fill(url)
    other = make_release(seed=2)

    def jump() -> None:
        with ledger.write(PRODUCT, NOW, "tester") as transaction:
            transaction.append(ReleaseRegistered(release=other))
            transaction.append(CanaryOpened(release_id=other.release_id, step=1, exposure=0.05))

    with pytest.raises(RefusedError, match="is registered, expected eligible"):
        jump()
    assert other.release_id not in ledger.state(PRODUCT).releases


def test_a_moved_slot_is_an_epoch_conflict(url: str) -> None:
    ledger = fill(url)
    with (
        pytest.raises(EpochConflictError, match="at epoch 1, expected 0"),
        ledger.write(PRODUCT, NOW, "tester") as transaction,
    ):
        transaction.expect_epoch(0)


def test_what_another_process_recorded_is_seen(url: str) -> None:
    ledger, other = fill(url), Ledger(url)
    assert other.state(PRODUCT) == ledger.state(PRODUCT)
    with other.write(PRODUCT, NOW, "other") as transaction:
        transaction.append(ReleaseRegistered(release=make_release(seed=2)))
    assert ledger.state(PRODUCT) == other.state(PRODUCT)
    with ledger.write(PRODUCT, NOW, "tester") as transaction:
        assert transaction.state == other.state(PRODUCT)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'nobody'",
        "DELETE FROM events WHERE sequence = 3",
        "UPDATE envelopes SET content = content",
        "DELETE FROM envelopes",
    ],
)
def test_the_database_itself_refuses_to_change_what_was_recorded(url: str, statement: str) -> None:
    ledger = fill(url)
    with pytest.raises(DBAPIError, match="append-only"):
        execute(url, statement)
    assert ledger.verify(trusting(KEY))


def test_sqlite_refuses_to_replace_a_row(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    fill(url)
    for statement in (
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE sequence = 2",
        "INSERT OR REPLACE INTO envelopes SELECT * FROM envelopes LIMIT 1",
    ):
        with pytest.raises(DBAPIError, match="append-only"):
            execute(url, statement)


def test_postgresql_refuses_to_truncate(url: str) -> None:
    fill(url)
    words = "append-only" if url.startswith("postgresql") else "syntax error"
    with pytest.raises(DBAPIError, match=words):
        execute(url, "TRUNCATE events")


TAMPERING: dict[str, tuple[str, str]] = {
    "another actor": ("UPDATE events SET actor = 'nobody' WHERE sequence = 3", "event 3 of"),
    "another time": ("UPDATE events SET recorded_at = '2013-04-01T06:00:01Z' WHERE sequence = 3", "event 3 of"),
    "a time written otherwise": (
        "UPDATE events SET recorded_at = '2013-04-01T06:00:00+00:00' WHERE sequence = 3",
        "event 3 of",
    ),
    "another kind": ("UPDATE events SET kind = 'release_held' WHERE sequence = 10", "event 10 of"),
    "an unknown kind": ("UPDATE events SET kind = 'forgiven' WHERE sequence = 10", "event 10 of"),
    "another payload": ("UPDATE events SET payload = replace(payload, '0.05', '0.95')", "event 1 of|event 11 of"),
    "a payload written otherwise": ("UPDATE events SET payload = payload || ' ' WHERE sequence = 4", "event 4 of"),
    "no payload": ("UPDATE events SET payload = '' WHERE sequence = 4", "event 4 of"),
    "another epoch": ("UPDATE events SET epoch = 7 WHERE sequence = 11", "event 11 of"),
    "a row gone": ("DELETE FROM events WHERE sequence = 5", "event 6 of .*its sequence is 6, expected 5"),
    "the first row gone": ("DELETE FROM events WHERE sequence = 1", "event 2 of"),
    "an envelope gone": (
        "DELETE FROM envelopes WHERE envelope_sha256 = (SELECT min(envelope_sha256) FROM envelopes)",
        "is missing",
    ),
    "an envelope exchanged": (
        "UPDATE envelopes SET content = (SELECT content FROM envelopes ORDER BY envelope_sha256 LIMIT 1)",
        "was changed",
    ),
    "a link broken": ("UPDATE events SET previous_sha256 = event_sha256 WHERE sequence = 4", "event 4 of"),
    "rows reordered": ("UPDATE events SET position = 1000 WHERE sequence = 2", "event 3 of .*reordered"),
}


@pytest.mark.parametrize(("statement", "words"), TAMPERING.values(), ids=TAMPERING.keys())
def test_what_an_owner_of_the_database_changes_is_found_and_named(url: str, statement: str, words: str) -> None:
    ledger = fill(url)
    ledger.state(PRODUCT)
    disarm(url)
    execute(url, statement)
    with pytest.raises(LedgerCorruptError, match=words):
        Ledger(url).verify()


@pytest.mark.parametrize("value", ["content || ' '", "7", "1e300", "''", "9223372036854775807"])
def test_an_envelope_that_is_no_bytes_any_more_is_found(tmp_path: Path, value: str) -> None:
    """SQLite takes a value of any type in any column."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    fill(url)
    disarm(url)
    execute(url, f"UPDATE envelopes SET content = {value}")  # noqa: S608 - ours
    with pytest.raises(LedgerCorruptError, match=r"envelope \w+ was changed"):
        Ledger(url).verify()


def test_a_change_of_any_character_of_a_row_is_found(url: str) -> None:
    """Every bit that keeps a character ASCII, of every column of every event, and every number one up and down."""
    with fill(url)._reading() as connection:
        rows = [tuple(row) for row in connection.execute(select(events))]
    changed = 0
    for row in rows:
        assert read_row(row)[1] in row
        for column, value in list(enumerate(row))[1:]:
            for other in neighbours(value):
                with pytest.raises(LedgerCorruptError, match=r"event .* of "):
                    read_row((*row[:column], other, *row[column + 1 :]))
                changed += 1
    assert changed > 20_000


def neighbours(value: str | int) -> Iterator[str | int]:
    """Values that differ from this one in a single bit of one character, or by one."""
    if isinstance(value, int):
        yield from (value - 1, value + 1)
        return
    for place, character in enumerate(value):
        for bit in range(7):
            yield value[:place] + chr(ord(character) ^ 1 << bit) + value[place + 1 :]


def test_an_actor_of_any_characters_is_read_back(url: str) -> None:
    actor = 'Zoë "the \\ op"\n\u2028\x7f 🛫'
    with Ledger(url).write(PRODUCT, NOW, actor) as transaction:
        event = transaction.append(PolicyRecorded(policy=POLICY))
    assert Ledger(url).events() == (event,)
    assert Ledger(url).state(PRODUCT).head_sha256 == event.sha256


def test_a_writer_that_came_late_need_not_read_everything_again(url: str) -> None:
    ledger = fill(url)
    known = ledger._replays[PRODUCT]
    with pytest.raises(EpochConflictError), ledger.write(PRODUCT, NOW, "tester") as transaction:
        transaction.expect_epoch(0)
    assert ledger._replays[PRODUCT] is known


def test_a_forged_chain_that_fits_its_digests_still_needs_signatures(url: str) -> None:
    """Whoever owns the database can write a whole new chain, but cannot sign evidence."""
    fill(url)
    stranger = trusting(SigningKey.generate())
    with pytest.raises(LedgerCorruptError, match=r"event 3 of assistant .* is not trusted"):
        Ledger(url).verify(stranger)


def test_evidence_that_says_something_else_than_its_envelope_is_found(url: str) -> None:
    ledger = Ledger(url)
    evidence = make_evidence(RELEASE, POLICY, "late_recall")
    other = make_evidence(RELEASE, POLICY, "schema_valid")
    with ledger.write(PRODUCT, NOW, "forger") as transaction:
        transaction.append(PolicyRecorded(policy=POLICY))
        transaction.append(ReleaseRegistered(release=RELEASE))
        transaction.append_evidence(other, sign_evidence(evidence, KEY))
    with pytest.raises(LedgerCorruptError, match=r"event 3 .*says something else than its envelope"):
        ledger.verify()


def test_a_ledger_that_was_restored_from_an_old_copy_is_noticed_by_who_knew_more(url: str) -> None:
    ledger = fill(url)
    ledger.state(PRODUCT)
    disarm(url)
    execute(url, "DELETE FROM events WHERE sequence > 9")
    for _ in range(3):
        with pytest.raises(LedgerCorruptError, match="event 11 of assistant: is gone"):
            ledger.state(PRODUCT)
        with (
            pytest.raises(LedgerCorruptError, match="event 11 of assistant: is gone"),
            ledger.write(PRODUCT, NOW, "tester"),
        ):
            raise AssertionError


def test_the_log_tells_every_event_in_order(url: str) -> None:
    sentences = [sentence for _, sentence in fill(url).log(PRODUCT)]
    assert sentences[0] == "promotion policy 1.0.0 was recorded"
    assert sentences[2].startswith("gate schema_valid says PASS of release ")
    assert sentences[-1] == f"release {RELEASE.release_id[:12]} became the canary at 5%"
    assert len(sentences) == 11


def _register(url: str, writer: int, releases: int) -> int:
    ledger = Ledger(url)
    won = 0
    for number in range(releases):
        release = make_release(date(2013, 1, 1) + timedelta(days=number))
        with ledger.write(PRODUCT, NOW, f"writer {writer}") as transaction:
            if POLICY.sha256 not in transaction.replay.policies:
                transaction.append(PolicyRecorded(policy=POLICY))
            if release.release_id not in transaction.replay.releases:
                transaction.append(ReleaseRegistered(release=release))
                won += 1
    return won


def test_writers_at_once_record_everything_once(url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        won = pool.starmap(_register, [(url, writer, 10) for writer in range(4)], chunksize=1)
    ledger = Ledger(url)
    assert sum(won) == 10
    assert len(ledger.events()) == 11
    assert ledger.verify()


def test_a_url_of_another_database_is_refused() -> None:
    for url in ("mysql://host/ledger", "sqlite://", "sqlite:///:memory:", "no url"):
        with pytest.raises(ContractError, match="ledger URL"):
            Ledger(url).products()


def test_the_password_of_a_url_is_never_shown() -> None:
    ledger = Ledger("postgresql://user:secret@127.0.0.1:1/ledger?connect_timeout=2")
    with pytest.raises(StorageError) as caught:
        ledger.products()
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database at all, but long enough to be looked at as one" * 20)
    with pytest.raises(LedgerCorruptError, match=r"ledger sqlite:///.*not a database"):
        Ledger(f"sqlite:///{path}").products()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Nothing was recorded"):
        Ledger(f"sqlite:///{tmp_path / 'file' / 'ledger.sqlite'}").products()


def test_the_digest_covers_every_field_of_an_event(url: str) -> None:
    event = fill(url).events()[-1]
    plain: dict[str, Any] = json.loads(event.canonical_bytes())
    digests = {event.sha256}
    changes = {
        "product": "other",
        "sequence": 99,
        "epoch": 99,
        "kind": "canary_paused",
        "payload": {},
        "previous_sha256": "f" * 64,
        "recorded_at": "2014-01-01T00:00:00Z",
        "actor": "other",
    }
    assert set(changes) == set(plain)
    for key, value in changes.items():
        digests.add(type(event).model_validate(plain | {key: value}).sha256)
    assert len(digests) == len(changes) + 1
    assert canonical_bytes(plain) == event.canonical_bytes()
