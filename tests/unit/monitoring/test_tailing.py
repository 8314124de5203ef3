"""Rows are read by number, each once, even where PostgreSQL commits them in another order."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, text

from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.lineage.provenance import tailing
from ml_platform.lineage.provenance.frames import Frame, Kind
from ml_platform.lineage.provenance.schema import responses
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.tailing import GAP_SECONDS, Tail
from ml_platform.lineage.provenance.writing import _row_of
from tests.samples.observed import put
from tests.samples.postgres import make_database
from tests.samples.provenance import PRODUCT, make_feedback, make_outcome, make_record, response_id_of


def sqlite(tmp_path: Path) -> ProvenanceStore:
    return ProvenanceStore(f"sqlite:///{tmp_path / 'provenance.sqlite'}")


def numbers(records: tuple[ProvenanceRecord, ...]) -> list[str]:
    return [record.response_id for record in records]


def row(number: int) -> dict[str, object]:
    record = make_record(number)
    return _row_of(record, record.log_bytes())


def test_a_row_that_was_committed_after_a_later_one_is_read_when_it_is_there(postgres: str | None) -> None:
    url = make_database(postgres)
    store = ProvenanceStore(url)
    put(store, make_record(0))
    tail = Tail(store, PRODUCT)
    assert numbers(tail.read().records) == [response_id_of(0)]
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as slow, slow.begin():
        # Three rows of a shipper that has its numbers and has not committed yet.
        slow.execute(insert(responses), [row(number) for number in (1, 2, 3)])
        put(store, make_record(4))
        assert numbers(tail.read().records) == [response_id_of(4)]
        put(store, make_record(5))
        assert numbers(tail.read().records) == [response_id_of(5)]
    assert numbers(tail.read().records) == [response_id_of(number) for number in (1, 2, 3)]
    assert tail.read().records == ()
    engine.dispose()
    store.close()


def test_numbers_that_were_used_up_by_nothing_are_given_up(postgres: str | None) -> None:
    store = ProvenanceStore(make_database(postgres))
    now = [0.0]
    tail = Tail(store, PRODUCT, monotonic=lambda: now[0])
    put(store, make_record(0))
    tail.read()
    # Sent twice, the second time it takes a number and no row.
    for number in (0, 1):
        put(store, make_record(number))
    assert numbers(tail.read().records) == [response_id_of(1)]
    places = tail._places
    assert places is not None
    assert places[0].gaps
    now[0] = GAP_SECONDS + 1
    assert tail.read().records == ()
    assert not places[0].gaps
    store.close()


def test_of_a_long_backlog_every_row_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "PAGE", 7)
    store = sqlite(tmp_path)
    put(store, *(make_record(number) for number in range(50)), make_feedback(1), make_outcome(1))
    tail = Tail(store, PRODUCT)
    pages = [tail.read()]
    while pages[-1].more:
        pages.append(tail.read())
    read = [name for news in pages for name in numbers(news.records)]
    assert (len(pages), sorted(read)) == (8, sorted(response_id_of(number) for number in range(50)))
    # What was said before it began is for the join: the tail only brings what is new.
    assert {(news.feedback, news.outcomes) for news in pages} == {((), ())}
    put(store, make_feedback(2), make_outcome(2))
    news = tail.read()
    assert (len(news.records), len(news.feedback), len(news.outcomes)) == (0, 1, 1)


def test_a_record_that_was_changed_is_left_out_and_named(tmp_path: Path) -> None:
    store = sqlite(tmp_path)
    put(store, *(make_record(number) for number in range(3)))
    engine = create_engine(store.url)
    with engine.begin() as connection:
        changed = "UPDATE responses SET content = replace(content, 'late', 'Late') WHERE response_id = :name"
        connection.execute(text(changed), {"name": response_id_of(1)})
    engine.dispose()
    news = Tail(store, PRODUCT).read()
    assert sorted(numbers(news.records)) == sorted([response_id_of(0), response_id_of(2)])
    (problem,) = news.damaged
    assert response_id_of(1) in problem


def test_a_frame_that_no_contract_fits_never_becomes_a_row(tmp_path: Path) -> None:
    store = sqlite(tmp_path)
    from ml_platform.lineage.provenance.writing import Progress

    store.write(Progress("1-a.wal", (Frame(Kind.RESPONSE, b"{}", 0, 2, 0),), (), 2))
    assert Tail(store, PRODUCT).read().records == ()
    assert len(store.conflicts()) == 1


def test_the_newest_answers_are_told_without_moving_the_place(tmp_path: Path) -> None:
    store = sqlite(tmp_path)
    put(store, *(make_record(number) for number in range(5)))
    tail = Tail(store, PRODUCT)
    assert numbers(tail.newest(2)) == [response_id_of(4), response_id_of(3)]
    assert len(tail.read().records) == 5


def test_a_store_that_was_put_back_to_an_earlier_state_is_read_anew(tmp_path: Path) -> None:
    store = sqlite(tmp_path)
    put(store, *(make_record(number) for number in range(5)))
    tail = Tail(store, PRODUCT)
    assert len(tail.read().records) == 5
    engine = create_engine(store.url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM responses WHERE number > 2"))
    engine.dispose()
    put(store, make_record(7), segment="2-b.wal")
    assert len(tail.read().records) == 3
    assert tail.read().records == ()
