"""An entity longer than an index holds stops nobody's records: what cannot be joined is kept, and the rest goes on."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform.contracts.provenance import LoggedContract
from ml_platform.lineage.provenance.recorder import KINDS
from ml_platform.lineage.provenance.schema import LONGEST_ENTITY_BYTES
from ml_platform.lineage.provenance.segments import segments_in
from ml_platform.lineage.provenance.shipping import Shipped, Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.wal import WriteAheadLog
from tests.samples.postgres import make_database
from tests.samples.provenance import make_feedback, make_outcome, make_record

FRAME = len('{"flight_id":""}')


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProvenanceStore]:
    if request.param == "sqlite":
        opened = ProvenanceStore(f"sqlite:///{tmp_path / 'provenance.sqlite'}")
    else:
        opened = ProvenanceStore(make_database(request.getfixturevalue("postgres")))
    yield opened
    opened.close()


def entity_of(size: int) -> dict[str, int | str]:
    """An entity whose text has so many bytes, which PostgreSQL cannot make shorter by compressing them."""
    return {"flight_id": hashlib.shake_128(b"flight").hexdigest(size)[: size - FRAME]}


def shipped(folder: Path, store: ProvenanceStore, *values: LoggedContract) -> Shipped:
    """What one turn of a shipper does with a log that holds these."""
    log = WriteAheadLog(folder)
    for future in [log.submit(value.log_bytes(), KINDS[type(value)]) for value in values]:
        future.result(60)
    log.close()
    done = Shipper(folder, store).ship()
    assert segments_in(folder) == ()
    return done


def test_what_is_said_of_too_long_an_entity_is_a_conflict_and_all_else_is_stored(
    tmp_path: Path, store: ProvenanceStore
) -> None:
    said = (
        make_feedback(2, entity=entity_of(LONGEST_ENTITY_BYTES + 1)),
        make_outcome(3, entity=entity_of(8_000), response_id=None),
    )
    assert shipped(tmp_path, store, make_record(1), *said, make_feedback(1)).conflicts == 2
    assert [conflict.key for conflict in store.conflicts()] == [one.idempotency_key for one in said]
    assert all("2,500 bytes" in conflict.reason for conflict in store.conflicts())
    (answered,) = store.join([make_record(1)])
    assert answered.feedback == (make_feedback(1),)


def test_an_answer_about_too_long_an_entity_is_kept_whole(tmp_path: Path, store: ProvenanceStore) -> None:
    record = make_record(1, entity=entity_of(8_000))
    assert shipped(tmp_path, store, record, make_feedback(1)).conflicts == 0
    assert store.find(record.response_id) == record
    assert store.join([record])[0].feedback == (make_feedback(1),)


def test_the_longest_entity_that_is_taken_is_joined_for_a_product_of_the_longest_name(
    tmp_path: Path, store: ProvenanceStore
) -> None:
    plain = {"product": "p" * 63, "entity": entity_of(LONGEST_ENTITY_BYTES)}
    record, outcome = make_record(1, **plain), make_outcome(1, **plain, response_id=None)
    assert shipped(tmp_path, store, record, outcome).conflicts == 0
    assert store.join([record])[0].outcomes == (outcome,)
