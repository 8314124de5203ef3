"""Which answers a drift report looks at: users' own, in the product's time, drawn whatever the order they came in."""

import random
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.contracts.home import Home
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.contracts.routing import Cohort, RouteReason
from ml_platform.contracts.serving import ServingTime
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.monitoring.drift.live import Traffic, read_traffic
from ml_platform.monitoring.drift.tables import Window
from tests.samples.observed import put
from tests.samples.provenance import NOW, PRODUCT, RELEASES, make_record

WINDOW = Window(NOW, NOW + timedelta(days=1))


def read(home: Home, time: ServingTime = ServingTime.CLOCK, most: int = 1000, window: Window = WINDOW) -> Traffic:
    return read_traffic(home, PRODUCT, time, window, RELEASES[0], most)


def kept(home: Home, records: list[ProvenanceRecord]) -> Home:
    put(ProvenanceStore(home.provenance_url), *records)
    return home


def test_where_nothing_was_recorded_there_is_no_traffic_and_no_file_is_made(tmp_path: Path) -> None:
    assert read(Home(tmp_path)) == Traffic()
    assert list(tmp_path.iterdir()) == []


def test_answers_in_the_window_are_everybodys_and_those_before_it_the_releases_own(tmp_path: Path) -> None:
    before = [make_record(n, answered_at=NOW - timedelta(hours=1, seconds=n)) for n in range(1, 21)]
    within = [make_record(n) for n in range(100, 130)]
    after = make_record(200, answered_at=WINDOW.until)
    found = read(kept(Home(tmp_path), [*before, *within, after]))
    assert {one.response_id for one in found.window} == {one.response_id for one in within}
    assert (found.asked, found.before) == (30, 18)
    assert {one.release_id for one in found.earlier} == {RELEASES[0]}


def test_copies_for_a_shadow_and_trials_of_operators_are_nobodys_questions(tmp_path: Path) -> None:
    shadow = make_record(1, cohort=Cohort.SHADOW, shadow_of="resp_00000001")
    trial = make_record(2, cohort=Cohort.OPERATOR, route_reason=RouteReason.OVERRIDE)
    found = read(kept(Home(tmp_path), [shadow, trial, make_record(3)]))
    assert [one.response_id for one in found.window] == [make_record(3).response_id]


def test_a_product_that_replays_its_past_is_read_in_the_time_of_its_data(tmp_path: Path) -> None:
    records = []
    for number in range(10):
        plain = make_record(number, answered_at=datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=number))
        assert plain.features is not None
        at = NOW + timedelta(days=number - 5)
        records.append(plain.model_copy(update={"features": plain.features.model_copy(update={"published_at": at})}))
    found = read(kept(Home(tmp_path), records), ServingTime.FEATURES)
    assert [one.response_id for one in found.window] == [records[5].response_id]
    assert found.before == 4  # number 0 is the canary's


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_drawn_depends_on_names_and_not_on_the_order_of_arrival(tmp_path: Path, seed: int) -> None:
    records = [make_record(n) for n in range(1, 300)]
    first = read(kept(Home(tmp_path / "a"), records), most=40)
    shuffled = records.copy()
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - no secret
    second = read(kept(Home(tmp_path / "b"), shuffled), most=40)
    assert len(first.window) == 40
    assert first.asked == 299
    assert {one.response_id for one in first.window} == {one.response_id for one in second.window}
    assert first.sha256 == second.sha256
    fewer = read(Home(tmp_path / "a"), most=20).window
    assert {one.response_id for one in fewer} < {one.response_id for one in first.window}


def test_a_store_with_a_record_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    home = kept(Home(tmp_path), [make_record(3)])
    with sqlite3.connect(tmp_path / "provenance.sqlite") as connection:
        connection.execute("update responses set content = replace(content, 'Houston', 'Boston')")
    connection.close()
    found = read(home)
    assert (found.window, found.asked) == ((), 0)
    assert "was changed in the store" in found.damaged
