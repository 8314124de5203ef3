"""The store holds each record once, whatever how often it comes, and never puts one in the place of another."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from ml_platform.contracts.provenance import Feedback, FeedbackKind, LoggedContract
from ml_platform.contracts.routing import Cohort
from ml_platform.errors import ContractError, IntegrityError, RefusedError, StorageError
from ml_platform.lineage.provenance import store as store_module
from ml_platform.lineage.provenance.frames import Frame, Kind
from ml_platform.lineage.provenance.recorder import KINDS
from ml_platform.lineage.provenance.shipping import Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.wal import WriteAheadLog
from ml_platform.lineage.provenance.writing import Progress
from tests.samples.postgres import make_database
from tests.samples.provenance import (
    LATER,
    NOW,
    PRODUCT,
    RELEASES,
    make_feedback,
    make_outcome,
    make_record,
    response_id_of,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'provenance.sqlite'}"
    return make_database(request.getfixturevalue("postgres"))


@pytest.fixture
def store(url: str) -> Iterator[ProvenanceStore]:
    opened = ProvenanceStore(url)
    yield opened
    opened.close()


def put(store: ProvenanceStore, *values: LoggedContract | bytes, segment: str = "1-a.wal") -> int:
    """Writes values as one turn of the shipper does; returns the conflicts."""
    frames, end = [], 0
    for value in values:
        if isinstance(value, bytes):
            kind, payload = Kind.RESPONSE, value
        else:
            kind, payload = KINDS[type(value)], value.log_bytes()
        frames.append(Frame(kind, payload, end, end + len(payload), 0))
        end += len(payload)
    return store.write(Progress(segment, tuple(frames), (), end))


def edit(url: str, statement: str) -> None:
    """Changes the database behind the store's back."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_record_is_found_by_its_response_and_nothing_else_is(store: ProvenanceStore) -> None:
    put(store, *(make_record(number) for number in range(20)))
    assert store.find(response_id_of(7)) == make_record(7)
    assert store.find(response_id_of(77)) is None
    assert store.find("'; DROP TABLE responses; --") is None


def test_text_of_any_kind_comes_back_from_the_store(store: ProvenanceStore) -> None:
    strange = make_record(1, utterance="nul \0, quotes \"', 飛行機 ✈, \\u0000, line\nend", answer="")
    put(store, strange)
    assert store.find(strange.response_id) == strange


def test_the_same_record_again_changes_nothing(store: ProvenanceStore) -> None:
    records = [make_record(number) for number in range(5)]
    for segment in ("1-a.wal", "1-a.wal", "2-b.wal"):
        assert put(store, *records, *records, segment=segment) == 0
    assert list(store.scan(PRODUCT, NOW, LATER)) == records
    assert store.conflicts() == ()


def test_another_content_under_the_same_id_is_an_error_on_record_and_never_overwrites(store: ProvenanceStore) -> None:
    kept, other = make_record(1), make_record(1, answer="something else")
    assert put(store, kept, other) == 1
    assert put(store, other, kept) == 0, "it is on record already"
    assert store.find(kept.response_id) == kept
    (conflict,) = store.conflicts()
    assert (conflict.kind, conflict.key, conflict.product) == ("response", kept.response_id, PRODUCT)
    assert conflict.kept_sha256 != conflict.refused_sha256
    assert "stored with another content" in conflict.reason


def test_what_cannot_be_read_is_kept_beside_and_stops_nothing(store: ProvenanceStore) -> None:
    assert put(store, b'{"format":2}', b"\xff\x00", make_record(1)) == 2
    assert store.find(make_record(1).response_id) == make_record(1)
    assert ["expected 1" in conflict.reason for conflict in store.conflicts()] == [True, False]


def test_a_record_that_was_changed_in_the_store_is_noticed(store: ProvenanceStore) -> None:
    put(store, make_record(1))
    edit(store.url, "UPDATE responses SET content = replace(content, 'high', 'low')")
    with pytest.raises(IntegrityError, match="was changed in the store"):
        store.find(make_record(1).response_id)
    with pytest.raises(IntegrityError, match="was changed in the store"):
        list(store.scan(PRODUCT, NOW, LATER))


def test_a_scan_gives_a_window_of_a_release_and_a_cohort_by_time(
    store: ProvenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PAGE", 7)
    records = [make_record(number) for number in range(60)]
    same_moment = [make_record(100 + number, answered_at=NOW + timedelta(seconds=30)) for number in range(20)]
    other = make_record(200, product="second_product", answered_at=NOW)
    put(store, *reversed(records), *same_moment, other)
    everything = list(store.scan(PRODUCT, NOW, LATER))
    assert sorted(record.response_id for record in everything) == sorted(
        record.response_id for record in [*records, *same_moment]
    )
    assert [record.answered_at for record in everything] == sorted(record.answered_at for record in everything)
    assert [found.record for found in store.scan_answered(PRODUCT, NOW, LATER)] == everything
    window = list(store.scan(PRODUCT, NOW + timedelta(seconds=10), NOW + timedelta(seconds=20)))
    assert window == records[10:20], "from the first moment, until before the last"
    canary = list(store.scan(PRODUCT, NOW, NOW + timedelta(seconds=30), cohort=Cohort.CANARY))
    assert canary == list(store.scan(PRODUCT, NOW, NOW + timedelta(seconds=30), release_id=RELEASES[1]))
    assert canary == [records[0], records[10], records[20]]
    assert list(store.scan(PRODUCT, NOW, LATER, release_id=RELEASES[1], cohort=Cohort.PRODUCTION)) == []
    assert list(store.scan("second_product", NOW, LATER)) == [other]


def test_feedback_and_outcomes_join_by_response_or_entity_late_and_out_of_order(store: ProvenanceStore) -> None:
    about_five = make_outcome(5)
    correction = make_feedback(
        9, response_id=response_id_of(5), kind=FeedbackKind.CORRECTION, text="It left on time.", received_at=LATER
    )
    put(store, about_five, correction, make_feedback(5))
    put(store, *(make_record(number) for number in range(10)), segment="2-b.wal")
    late = make_outcome(5, idempotency_key="revised", received_at=LATER, values={"arrival_delay_min": 40})
    put(store, late, segment="3-c.wal")
    answered = {found.record.response_id: found for found in store.scan_answered(PRODUCT, NOW, LATER)}
    assert len(answered) == 10
    five = answered.pop(response_id_of(5))
    assert five.feedback == (make_feedback(5), correction), "in the order in which they were received"
    assert five.outcomes == (about_five, late)
    assert all((found.feedback, found.outcomes) == ((), ()) for found in answered.values())


def test_everybody_who_asked_about_a_flight_gets_its_outcome_and_its_own_feedback_only(store: ProvenanceStore) -> None:
    put(store, make_record(3), make_record(503), make_record(4), make_outcome(3), make_feedback(503))
    three, other, four = store.join([make_record(3), make_record(503), make_record(4)])
    assert three.outcomes == other.outcomes == (make_outcome(3),)
    assert (three.feedback, other.feedback, four) == ((), (make_feedback(503),), four)
    assert four.outcomes == ()


def test_what_another_product_says_is_never_joined(store: ProvenanceStore) -> None:
    foreign = make_feedback(1, product="second_product")
    put(store, make_record(1), foreign, make_outcome(1, product="second_product"))
    (answered,) = store.join([make_record(1)])
    assert (answered.feedback, answered.outcomes) == ((), ())


def test_feedback_sent_again_is_the_same_and_another_under_its_key_is_on_record(store: ProvenanceStore) -> None:
    first = make_feedback(1)
    again = first.model_copy(update={"received_at": LATER})
    other = make_feedback(1, kind=FeedbackKind.THUMBS_DOWN)
    elsewhere = make_feedback(1, product="second_product")
    assert put(store, make_record(1), first, again, elsewhere) == 0
    assert put(store, other) == 1
    (answered,) = store.join([make_record(1)])
    assert answered.feedback == (first,)
    assert [(found.kind, found.key) for found in store.conflicts()] == [("feedback", first.idempotency_key)]


def test_progress_only_grows_and_is_forgotten_when_told(store: ProvenanceStore) -> None:
    put(store, make_record(1), make_record(2))
    far = store.shipped_until("1-a.wal")
    put(store, make_record(1))
    assert store.shipped_until("1-a.wal") == far > 0
    store.forget("1-a.wal")
    assert store.shipped_until("1-a.wal") == 0
    assert store.find(make_record(2).response_id) is not None


def test_what_fails_half_way_writes_nothing(store: ProvenanceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("killed here")

    put(store, make_record(1))
    with monkeypatch.context() as patch:
        patch.setattr("ml_platform.lineage.provenance.writing._note_progress", fail)
        with pytest.raises(RuntimeError, match="killed here"):
            put(store, make_record(2), segment="2-b.wal")
    assert store.find(make_record(2).response_id) is None


def test_the_questions_that_are_asked_often_are_answered_from_an_index(tmp_path: Path) -> None:
    store = ProvenanceStore(f"sqlite:///{tmp_path / 'provenance.sqlite'}")
    put(store, make_record(1), make_feedback(1), make_outcome(1))
    asked: list[str] = []

    def plan_of(connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith("SELECT"):
            rows = connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[attr-defined]
            asked.extend(row[3] for row in rows)

    from sqlalchemy import event

    event.listen(store._engine, "before_cursor_execute", plan_of)
    store.find("resp_12345678")
    list(store.scan(PRODUCT, NOW, LATER))
    list(store.scan(PRODUCT, NOW, LATER, release_id=RELEASES[0], cohort=Cohort.PRODUCTION))
    store.join([make_record(1)])
    text = " | ".join(asked)
    assert "SCAN responses" not in text
    assert "SCAN feedback" not in text
    assert "SCAN outcomes" not in text
    expected = (
        "responses_by_id",
        "responses_by_time",
        "responses_by_cohort",
        "outcomes_by_entity",
        "feedback_by_response",
    )
    assert [name for name in expected if name not in text] == []
    assert "TEMP B-TREE" not in text.partition("feedback")[0], "scans come sorted from the index"
    store.close()


def test_a_store_of_another_version_or_another_kind_is_refused(url: str, tmp_path: Path) -> None:
    opened = ProvenanceStore(url)
    put(opened, make_record(1))
    opened.close()
    edit(url, "UPDATE provenance_version SET version = 99")
    with pytest.raises(RefusedError, match="is of version 99"):
        ProvenanceStore(url).find("resp_12345678")
    for wrong in ("mysql://somewhere/db", "sqlite://", "no url"):
        with pytest.raises(ContractError, match="sqlite:///PATH"):
            ProvenanceStore(wrong).find("resp_12345678")


def test_a_store_that_is_down_says_so_without_its_password() -> None:
    store = ProvenanceStore("postgresql://user:secret@localhost:1/nowhere")
    with pytest.raises(StorageError, match="The log keeps what is not stored") as told:
        store.find("resp_12345678")
    assert "secret" not in str(told.value)


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "provenance.sqlite").write_bytes(b"this is no database at all, only text" * 100)
    with pytest.raises(StorageError, match="provenance store sqlite"):
        ProvenanceStore(f"sqlite:///{tmp_path / 'provenance.sqlite'}").find("resp_12345678")


def test_feedback_is_read_as_feedback(store: ProvenanceStore) -> None:
    put(store, make_record(1), make_feedback(1))
    (found,) = store.join([make_record(1)])[0].feedback
    assert isinstance(found, Feedback)


def test_gateways_of_two_machines_share_a_store(url: str, tmp_path: Path) -> None:
    """Each ships its own log at the same moment; some records came to both, in another order."""
    both = [make_record(number) for number in range(10)]
    failures: list[BaseException] = []

    def ship(machine: int) -> None:
        log, store = WriteAheadLog(tmp_path / f"log-{machine}"), ProvenanceStore(url)
        own = [make_record(machine * 1000 + number) for number in range(700)]
        for record in [*own, *both] if machine == 1 else [*own, *reversed(both)]:
            future = log.submit(record.log_bytes())
        future.result(60)
        log.close()
        try:
            Shipper(log.folder, store).ship()
        except BaseException as error:  # noqa: BLE001 - told to the test, which fails
            failures.append(error)
        store.close()

    machines = [threading.Thread(target=ship, args=(machine,)) for machine in (1, 2)]
    for thread in machines:
        thread.start()
    for thread in machines:
        thread.join()
    assert failures == []
    store = ProvenanceStore(url)
    found = [record.response_id for record in store.scan(PRODUCT, NOW, LATER)]
    assert len(found) == len(set(found)) == 1410
    assert store.conflicts() == ()
    store.close()
