"""Online features: the same values as offline at the same moment, published whole or not at all."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.errors import InvalidInputError, OperationError
from ml_platform.features import online, tables
from ml_platform.features.build import build_features
from ml_platform.features.definitions import definitions_sha256
from ml_platform.features.join import join_features
from ml_platform.features.publication import KEPT_PUBLICATIONS, current_publication
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.snapshots.extract import load_table
from tests.samples.online import ROW, minute, publish, read, reader_of, said, shelf


@pytest.fixture
def new_york_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine stands in New York, where 2013-03-10 has no hour from 2 to 3."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def plain(value: Any) -> Any:
    return None if pd.isna(value) else value


@pytest.mark.parametrize("at", ["2013-01-12T11:07:31.5Z", "2013-01-15T04:00:00Z", "2013-01-21T00:00:00Z"])
def test_online_equals_offline_for_every_entity_at_the_same_moment(january_20: Any, at: str) -> None:
    product, features, home, moment = january_20.product, january_20.features, january_20.home, pd.Timestamp(at)
    schedule = load_table(january_20.snapshot, "schedule")
    entities = schedule[["route", "origin", "carrier"]].drop_duplicates(ignore_index=True)
    publish(january_20, moment.to_pydatetime())
    reader = reader_of(january_20)
    answers = [reader.read({str(k): v for k, v in row.items()}, None) for row in entities.to_dict("records")]
    joined = join_features(product, features, entities.assign(event_timestamp=moment), home)
    names = product.features.feature_names
    offline = [{name: plain(row[name]) for name in names} for row in joined.to_dict("records")]
    assert [answer.values for answer in answers] == offline
    assert len(entities) > 300
    assert sum(answer.values["route_delay_mean_30d"] is not None for answer in answers) > 200
    assert all(time is None or time <= moment for answer in answers for time in answer.event_at.values())


def test_a_value_that_is_not_known_yet_is_not_published(plant: Any) -> None:
    built = plant({"at": 0, "known": 0, "value": 1.0}, {"at": 60, "known": 300, "value": 99.0})
    publish(built, minute(299))
    assert said(built, "value") == (1.0, minute(0))
    publish(built, minute(300))
    assert said(built, "value") == (99.0, minute(60))


def test_every_type_comes_back_as_it_went_in(plant: Any) -> None:
    built = plant({"at": 0, "known": 0, "value": None, "label": "naïve", "works": False})
    publish(built, minute(30))
    found = read(built, ROW).values
    expected = {"count_3h": 1, "label": "naïve", "mean_3h": None, "reading_number": 0, "value": None, "works": False}
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in expected.items()}


def test_the_time_of_a_reading_is_exact_wherever_the_machine_stands(plant: Any, new_york_clock: None) -> None:
    in_the_missing_hour = 24 * 60 + 2.5 * 60 + 0.00123
    built = plant({"at": in_the_missing_hour, "known": in_the_missing_hour})
    publish(built, minute(24 * 60 + 200))
    assert said(built, "value")[1] == minute(in_the_missing_hour)


def test_a_value_expires_with_its_ttl(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    publish(built, minute(10))
    assert said(built, "value", now=minute(24 * 60)) == (1.0, minute(0))
    assert said(built, "value", now=minute(24 * 60 + 1)) == (None, minute(0))


def test_an_unknown_entity_has_neither_values_nor_times(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    publish(built, minute(10))
    found = read(built, {"sensor": "b", "site": 7})
    assert set(found.values.values()) == set(found.event_at.values()) == {None}
    assert said(built, "value")[0] == 1.0


def test_a_reading_says_what_was_asked_and_where_it_comes_from(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    publish(built, minute(10))
    found = read(built, {**ROW, "more": "than needed"}, minute(20))
    assert (found.service, found.keys) == ("everything", ROW)
    assert found.definitions_sha256 == definitions_sha256(built.product)
    assert found.features_sha256 == built.features.sha256
    assert (found.published_at, found.read_at) == (minute(10), minute(20))
    assert read(built, ROW).read_at == minute(10)


def test_an_empty_key_finds_nothing_and_leaves_other_views_alone(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    publish(built, minute(60))
    found = read(built, {"sensor": "a", "site": None})
    assert (found.values["value"], found.values["count_3h"], found.keys) == (None, 1, {"sensor": "a"})


def test_a_publication_that_fails_midway_leaves_the_former(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built = plant({"at": 0, "known": 0, "value": 1.0}, {"at": 60, "known": 60, "value": 2.0})
    former = publish(built, minute(30))
    original = tables.latest_known

    def fails_on_the_second_view(view: Any, file: Any, at: datetime) -> Any:
        if file.name == "trailing.parquet":
            raise OSError("the disk is full")
        return original(view, file, at)

    monkeypatch.setattr(online, "latest_known", fails_on_the_second_view)
    with pytest.raises(OSError, match="disk is full"):
        publish(built, minute(90))
    assert current_publication(shelf(built)) == former
    assert said(built, "value")[0] == 1.0
    monkeypatch.undo()
    publish(built, minute(90))
    assert said(built, "value")[0] == 2.0
    assert not list(shelf(built).glob(".unfinished-*"))


def test_readers_never_see_half_a_publication(plant: Any) -> None:
    built = plant(
        *({"at": 0, "known": 0, "sensor": s, "value": 1.0} for s in "abc"),
        *({"at": 60, "known": 60, "sensor": s, "value": 2.0} for s in "abc"),
    )
    publish(built, minute(30))
    reader, seen, done = reader_of(built), [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            pinned = reader.pinned()
            seen.append({pinned.read({"sensor": s, "site": 7}, None).values["value"] for s in "abc"})

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    for number in range(6):
        publish(built, minute(90 if number % 2 == 0 else 30), going_back=True)
        assert reader.refresh().publication.at == minute(90 if number % 2 == 0 else 30)
    done.set()
    for thread in asking:
        thread.join()
    assert {len(values) for values in seen} == {1}
    assert set.union(*seen) == {1.0, 2.0}
    assert len(seen) > 10


def test_an_earlier_moment_never_replaces_a_later_one_unless_asked(plant: Any) -> None:
    built = plant({"at": 0, "known": 0, "value": 1.0}, {"at": 60, "known": 60, "value": 2.0})
    newest = publish(built, minute(90))
    assert publish(built, minute(30)) == newest
    assert said(built, "value")[0] == 2.0
    assert publish(built, minute(30), going_back=True).at == minute(30)
    assert said(built, "value")[0] == 1.0


def test_old_publications_are_removed_and_a_repeated_one_is_kept(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    published = [publish(built, minute(10 + n)) for n in range(5)]
    assert publish(built, minute(14)) == published[-1]
    folders = {path.name for path in shelf(built).iterdir() if path.is_dir()}
    assert folders == {publication.folder for publication in published[-KEPT_PUBLICATIONS:]}


@pytest.mark.parametrize("at", [datetime(2013, 3, 9), datetime(2013, 3, 13, 0, 0, 1, tzinfo=UTC)])  # noqa: DTZ001
def test_a_moment_without_zone_or_beyond_the_snapshot_cannot_be_published(plant: Any, at: datetime) -> None:
    built = plant({"at": 0, "known": 0})
    with pytest.raises(InvalidInputError, match="expected a time with a zone up to 2013-03-13"):
        publish(built, at)


def test_reading_says_what_is_wrong(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    with pytest.raises(OperationError, match="no features of flight_assistant are online yet"):
        read(built, ROW)
    publish(built, minute(10))
    with pytest.raises(InvalidInputError, match=r"'site' is missing, expected int"):
        read(built, {"sensor": "a"})
    with pytest.raises(InvalidInputError, match="'site' is '7', expected int"):
        read(built, {"sensor": "a", "site": "7"})
    with pytest.raises(InvalidInputError, match="Publish as of the earlier moment"):
        read(built, ROW, minute(9))
    assert read(built, ROW, minute(10) - timedelta(seconds=2)).read_at == minute(10)


def test_other_definitions_have_a_publication_of_their_own(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    publish(built, minute(10))
    data = built.product.features.model_dump()
    data["views"]["as_known"]["ttl_hours"] = 1
    product = replace(built.product, features=FeatureSpec.parse(data, where="changed"))
    store = LocalArtifactStore(built.home.artifacts)
    changed = replace(built, product=product, features=build_features(product, built.snapshot, store))
    with pytest.raises(OperationError, match="online yet"):
        read(changed, ROW)
    publish(changed, minute(20))
    assert said(changed, "value", now=minute(70))[0] is None
    assert said(built, "value", now=minute(70))[0] == 1.0
    assert (read(changed, ROW).published_at, read(built, ROW).published_at) == (minute(20), minute(10))
