"""Online features: the same values as offline at the same moment, published whole or not at all."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from ml_platform.contracts.product import FeatureSpec
from ml_platform.errors import ContractError, InvalidInputError, OperationError
from ml_platform.features import online
from ml_platform.features.join import join_features
from ml_platform.features.online import FeatureReading, current_publication, publish_online, read_online
from ml_platform.snapshots.extract import load_table

ROW = {"sensor": "a", "site": 7}


@pytest.fixture
def new_york_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine stands in New York, where 2013-03-10 has no hour from 2 to 3."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def minute(number: float) -> datetime:
    return datetime(2013, 3, 9, tzinfo=UTC) + timedelta(minutes=number)


def plain(value: Any) -> Any:
    return None if pd.isna(value) else value


@pytest.mark.parametrize("at", ["2013-01-12T11:07:31.5Z", "2013-01-15T04:00:00Z", "2013-01-21T00:00:00Z"])
def test_online_equals_offline_for_every_entity_at_the_same_moment(january_20: Any, at: str) -> None:
    product, features, home, moment = january_20.product, january_20.features, january_20.home, pd.Timestamp(at)
    schedule = load_table(january_20.snapshot, "schedule")
    entities = schedule[["route", "origin", "carrier"]].drop_duplicates(ignore_index=True)
    publish_online(product, features, home, moment.to_pydatetime())
    read = read_online(product, home, entities.to_dict("records"))
    joined = join_features(product, features, entities.assign(event_timestamp=moment), home)
    names = product.features.feature_names
    offline = [{name: plain(row[name]) for name in names} for row in joined.to_dict("records")]
    assert [{name: reading.value for name, reading in row.items()} for row in read] == offline
    assert len(entities) > 300
    assert sum(row["route_delay_mean_30d"].value is not None for row in read) > 200
    assert all(r.event_timestamp is None or r.event_timestamp <= moment for row in read for r in row.values())


def test_a_value_that_is_not_known_yet_is_not_published(plant: Any) -> None:
    built = plant({"at": 0, "known": 0, "value": 1.0}, {"at": 60, "known": 300, "value": 99.0})
    publish_online(built.product, built.features, built.home, minute(299))
    assert read_online(built.product, built.home, [ROW])[0]["value"] == FeatureReading(1.0, minute(0))
    publish_online(built.product, built.features, built.home, minute(300))
    assert read_online(built.product, built.home, [ROW])[0]["value"] == FeatureReading(99.0, minute(60))


def test_every_type_comes_back_as_it_went_in(plant: Any) -> None:
    built = plant({"at": 0, "known": 0, "value": None, "label": "naïve", "works": False})
    publish_online(built.product, built.features, built.home, minute(30))
    read = read_online(built.product, built.home, [ROW])[0]
    assert list(read) == ["count_3h", "label", "mean_3h", "reading_number", "value", "works"]
    assert [reading.value for reading in read.values()] == [1, "naïve", None, 0, None, False]
    assert [type(reading.value) for reading in read.values()] == [int, str, type(None), int, type(None), bool]


def test_the_time_of_a_reading_is_exact_wherever_the_machine_stands(plant: Any, new_york_clock: None) -> None:
    in_the_missing_hour = 24 * 60 + 2.5 * 60 + 0.00123
    built = plant({"at": in_the_missing_hour, "known": in_the_missing_hour})
    publish_online(built.product, built.features, built.home, minute(24 * 60 + 200))
    read = read_online(built.product, built.home, [ROW])[0]
    assert read["value"].event_timestamp == minute(in_the_missing_hour)


def test_a_reading_expires_with_its_ttl(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    publish_online(built.product, built.features, built.home, minute(10))
    fresh = read_online(built.product, built.home, [ROW], now=minute(24 * 60))[0]["value"]
    expired = read_online(built.product, built.home, [ROW], now=minute(24 * 60 + 1))[0]["value"]
    assert fresh == FeatureReading(1.0, minute(0))
    assert expired == FeatureReading(None, minute(0))


def test_an_unknown_entity_has_neither_values_nor_times(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    publish_online(built.product, built.features, built.home, minute(10))
    read = read_online(built.product, built.home, [{"sensor": "b", "site": 7}, ROW])
    assert set(read[0].values()) == {FeatureReading(None, None)}
    assert read[1]["value"].value == 1.0


def test_more_rows_than_one_query_holds_are_read_in_order(plant: Any) -> None:
    rows = [{"at": 0, "known": 0, "site": site, "value": float(site)} for site in range(1_200)]
    built = plant(*rows)
    publish_online(built.product, built.features, built.home, minute(10))
    asked = [{"sensor": "a", "site": site} for site in reversed(range(1_200))]
    values = [row["value"].value for row in read_online(built.product, built.home, asked)]
    assert values == [float(site) for site in reversed(range(1_200))]
    assert read_online(built.product, built.home, []) == []


def test_a_publication_that_fails_midway_leaves_the_former(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built = plant({"at": 0, "known": 0, "value": 1.0}, {"at": 60, "known": 60, "value": 2.0})
    former = publish_online(built.product, built.features, built.home, minute(30))
    original = online.latest_known

    def fails_on_the_second_view(view: Any, file: Any, at: datetime) -> Any:
        if file.name == "trailing.parquet":
            raise OSError("the disk is full")
        return original(view, file, at)

    monkeypatch.setattr(online, "latest_known", fails_on_the_second_view)
    with pytest.raises(OSError, match="disk is full"):
        publish_online(built.product, built.features, built.home, minute(90))
    assert current_publication(built.product, built.home) == former
    assert read_online(built.product, built.home, [ROW])[0]["value"].value == 1.0
    monkeypatch.undo()
    publish_online(built.product, built.features, built.home, minute(90))
    assert read_online(built.product, built.home, [ROW])[0]["value"].value == 2.0
    assert not list((built.home.features / built.product.name).glob(".unfinished-*"))


def test_readers_never_see_half_a_publication(plant: Any) -> None:
    built = plant(
        *({"at": 0, "known": 0, "sensor": s, "value": 1.0} for s in "abc"),
        *({"at": 60, "known": 60, "sensor": s, "value": 2.0} for s in "abc"),
    )
    publish_online(built.product, built.features, built.home, minute(30))
    asked = [{"sensor": s, "site": 7} for s in "abc"]
    seen: list[set[Any]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append({row["value"].value for row in read_online(built.product, built.home, asked)})

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(6):
        publish_online(built.product, built.features, built.home, minute(90 if number % 2 == 0 else 30))
    done.set()
    reader.join()
    assert {len(values) for values in seen} == {1}
    assert set.union(*seen) <= {1.0, 2.0}
    assert len(seen) > 10


def test_old_publications_are_removed_and_a_repeated_one_is_kept(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    published = [publish_online(built.product, built.features, built.home, minute(10 + n)) for n in range(5)]
    assert publish_online(built.product, built.features, built.home, minute(14)) == published[-1]
    folders = {path.name for path in (built.home.features / built.product.name).iterdir() if path.is_dir()}
    assert folders == {publication.folder for publication in published[-online.KEPT_PUBLICATIONS :]}


@pytest.mark.parametrize("at", [datetime(2013, 3, 9), datetime(2013, 3, 13, 0, 0, 1, tzinfo=UTC)])  # noqa: DTZ001
def test_a_moment_without_zone_or_beyond_the_snapshot_cannot_be_published(plant: Any, at: datetime) -> None:
    built = plant({"at": 0, "known": 0})
    with pytest.raises(InvalidInputError, match="expected a time with a zone up to 2013-03-13"):
        publish_online(built.product, built.features, built.home, at)


def test_reading_says_what_is_wrong(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    with pytest.raises(OperationError, match="no features of flight_assistant are online yet"):
        read_online(built.product, built.home, [ROW])
    publish_online(built.product, built.features, built.home, minute(10))
    with pytest.raises(InvalidInputError, match=r"row 1 .* 'site' is missing, expected int"):
        read_online(built.product, built.home, [ROW, {"sensor": "a"}])
    with pytest.raises(InvalidInputError, match="'site' is '7', expected int"):
        read_online(built.product, built.home, [{"sensor": "a", "site": "7"}])
    with pytest.raises(InvalidInputError, match="Publish as of the earlier moment"):
        read_online(built.product, built.home, [ROW], now=minute(9))


def test_other_definitions_than_the_published_are_refused(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    publish_online(built.product, built.features, built.home, minute(10))
    data = built.product.features.model_dump()
    data["views"]["trailing"]["ttl_hours"] = 13
    changed = replace(built.product, features=FeatureSpec.parse(data, where="changed"))
    with pytest.raises(ContractError, match="Build and publish the features again"):
        read_online(changed, built.home, [ROW])
