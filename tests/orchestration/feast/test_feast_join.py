"""The point-in-time join through Feast: nothing known later enters, and every row stays where it was."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.errors import ContractError, InvalidInputError
from ml_platform.features.definitions import feast_name, feast_objects
from ml_platform.features.join import join_features
from ml_platform.features.store import open_store
from ml_platform.snapshots.extract import load_table

# ibis 12 asks duckdb 2 for its tables by a name that is going away; only Feast's own store uses ibis.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")


@pytest.fixture
def new_york_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine stands in New York, where 2013-03-10 has 23 hours."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def january_flights(built: Any, day: str, count: int) -> pd.DataFrame:
    """Flights of a day, asked two hours before their scheduled departure."""
    schedule = load_table(built.snapshot, "schedule")
    flights = schedule[schedule["scheduled_departure_local"].str.startswith(day)].sample(count, random_state=1)
    asked = flights["scheduled_departure"] - pd.Timedelta(hours=2)
    return flights[["flight_id", "route", "origin", "carrier"]].assign(event_timestamp=asked)


def test_a_value_that_arrives_late_does_not_leak(plant: Any) -> None:
    built = plant({"at": 0, "known": 0, "value": 1.0}, {"at": 60, "known": 300, "value": 99.0})
    joined = join_features(built.product, built.features, plant.asking(120, 299, 300), built.home)
    assert joined["value"].tolist() == [1.0, 1.0, 99.0]


def test_without_the_created_filter_it_would_leak(plant: Any, tmp_path: Path) -> None:
    built = plant({"at": 0, "known": 0, "value": 1.0}, {"at": 60, "known": 300, "value": 99.0})
    store = open_store(tmp_path)
    store.apply(feast_objects(built.product, built.features.path))
    service = store.get_feature_service(feast_name(built.product.name, "everything"))
    leaked = store.get_historical_features(plant.asking(120), features=service).to_arrow()
    filtered = store.get_historical_features(plant.asking(120), features=service, filter_by_created_timestamp=True)
    assert leaked["value"].to_pylist() == [99.0]
    assert filtered.to_arrow()["value"].to_pylist() == [1.0]
    assert filtered.to_df()["value"].tolist() == [1.0]


def test_a_correction_counts_from_when_it_became_known(plant: Any) -> None:
    built = plant({"at": 0, "known": 10, "value": 1.0}, {"at": 0, "known": 90, "value": 2.0})
    joined = join_features(built.product, built.features, plant.asking(5, 10, 89, 90), built.home)
    assert joined["value"].isna().tolist() == [True, False, False, False]
    assert joined["value"].tolist()[1:] == [1.0, 1.0, 2.0]


def test_a_late_row_about_the_past_never_replaces_a_newer_event(plant: Any) -> None:
    built = plant({"at": 60, "known": 60, "value": 2.0}, {"at": 0, "known": 120, "value": 1.0})
    joined = join_features(built.product, built.features, plant.asking(119, 121), built.home)
    assert joined["value"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("step", [1, -1], ids=["oldest first", "newest first"])
def test_of_rows_that_became_known_at_once_the_newest_event_answers(plant: Any, step: int) -> None:
    batch = [{"at": at, "known": 600, "value": float(at)} for at in range(0, 600, 4)][::step]
    built = plant(*batch, {"at": 0, "known": 0, "value": -1.0})
    joined = join_features(built.product, built.features, plant.asking(599, 600, 700), built.home)
    assert joined["value"].tolist() == [-1.0, 596.0, 596.0]


def test_trailing_windows_take_a_row_when_it_became_known(plant: Any) -> None:
    built = plant({"at": 0, "known": 0, "value": 4.0}, {"at": 10, "known": 150, "value": 8.0})
    joined = join_features(built.product, built.features, plant.asking(119, 180, 181, 330, 390), built.home)
    assert joined["mean_3h"].tolist()[:4] == [4.0, 8.0, 8.0, 8.0]
    assert joined["count_3h"].tolist() == [1, 1, 1, 1, 0]
    assert pd.isna(joined["mean_3h"].iloc[4])


def test_a_value_older_than_its_ttl_is_missing(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    joined = join_features(built.product, built.features, plant.asking(24 * 60, 24 * 60 + 1), built.home)
    assert joined["value"].isna().tolist() == [False, True]


@pytest.mark.parametrize("offline_store", ["ml_platform.features.asof.AsofOfflineStore", "duckdb"])
def test_a_ttl_lasts_its_hours_across_daylight_saving(plant: Any, new_york_clock: None, offline_store: str) -> None:
    built = plant({"at": 24 * 60, "known": 24 * 60})
    asked = plant.asking(48 * 60, 48 * 60 + 1)
    joined = join_features(built.product, built.features, asked, built.home, offline_store=offline_store)
    assert joined["value"].isna().tolist() == [False, True]
    assert joined["event_timestamp"].tolist() == asked["event_timestamp"].tolist()


def test_rows_keep_their_order_index_columns_and_repetitions(plant: Any) -> None:
    built = plant({"at": 0, "known": 0, "value": 1.0}, {"at": 60, "known": 60, "value": 2.0})
    asked = plant.asking(90, 30, 90, 5).assign(note=["x", "y", "z", "w"]).set_index(pd.Index([9, 3, 3, 0]))
    joined = join_features(built.product, built.features, asked, built.home)
    pd.testing.assert_frame_equal(joined[list(asked.columns)], asked)
    assert joined["value"].tolist() == [2.0, 1.0, 2.0, 1.0]
    names = ["count_3h", "label", "mean_3h", "reading_number", "value", "works"]
    assert list(joined.columns) == [*asked.columns, *names]


def test_types_do_not_depend_on_what_is_missing(plant: Any) -> None:
    built = plant({"at": 0, "known": 0, "label": "naïve 'quoted'"}, {"at": 60, "known": 60, "value": None})
    some = join_features(built.product, built.features, plant.asking(30, 90), built.home)
    none = join_features(built.product, built.features, plant.asking(30, sensor="unheard of"), built.home)
    empty = join_features(built.product, built.features, plant.asking(30).head(0), built.home)
    assert some.dtypes.to_dict() == none.dtypes.to_dict() == empty.dtypes.to_dict()
    assert some["reading_number"].tolist() == [0, 1]
    assert some["label"].tolist() == ["naïve 'quoted'", "fine"]
    assert some["works"].tolist() == [True, True]
    assert some["value"].isna().tolist() == [False, True]
    assert none[list(built.product.features.feature_names)].isna().all().all()
    assert empty.empty


def test_a_row_without_an_entity_gets_nothing(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    asked = plant.asking(30, 40).assign(sensor=["a", None])
    joined = join_features(built.product, built.features, asked, built.home)
    assert joined["mean_3h"].isna().tolist() == [False, True]
    assert joined["value"].isna().tolist() == [False, True]


def test_every_entity_column_takes_part(plant: Any) -> None:
    built = plant({"at": 0, "known": 0, "site": 7, "value": 7.0}, {"at": 0, "known": 0, "site": 8, "value": 8.0})
    asked = plant.asking(30, 30, 30).assign(site=[8, 7, 9])
    joined = join_features(built.product, built.features, asked, built.home)
    assert joined["value"].tolist()[:2] == [8.0, 7.0]
    assert pd.isna(joined["value"].iloc[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="site"), "no column site.*needs sensor, site, event_timestamp"),
        (lambda f: f.assign(event_timestamp=f["event_timestamp"].dt.tz_localize(None)), "expected times with a zone"),
        (lambda f: f.assign(event_timestamp=f["event_timestamp"].where(f.index != 1)), "is empty in row 1"),
        (lambda f: f.assign(site="7"), "entity column 'site' is object, first value '7'; expected integer"),
        (lambda f: f.assign(site=7.5), "expected integer"),
        (lambda f: f.assign(sensor=1), "expected string"),
        (lambda f: f.assign(value=1.0), "already have the features value"),
    ],
)
def test_rows_that_cannot_be_joined_are_refused(plant: Any, change: Any, message: str) -> None:
    built = plant({"at": 0, "known": 0})
    with pytest.raises(InvalidInputError, match=message):
        join_features(built.product, built.features, change(plant.asking(30, 60)), built.home)


def test_features_of_other_definitions_are_refused(plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    data = built.product.features.model_dump()
    data["views"]["trailing"]["ttl_hours"] = 13
    changed = replace(built.product, features=FeatureSpec.parse(data, where="changed"))
    with pytest.raises(ContractError, match="Build the features again"):
        join_features(changed, built.features, plant.asking(30), built.home)
    with pytest.raises(ContractError, match="does not hold the features of flight_assistant"):
        join_features(built.product, built.snapshot, plant.asking(30), built.home)


def test_our_store_and_feasts_own_give_the_same_real_features(january_20: Any) -> None:
    asked = january_flights(january_20, "2013-01-1", 400)
    ours = join_features(january_20.product, january_20.features, asked, january_20.home)
    feasts = join_features(january_20.product, january_20.features, asked, january_20.home, offline_store="duckdb")
    pd.testing.assert_frame_equal(ours, feasts)
    assert ours["carrier_delay_mean_7d"].notna().mean() > 0.95


def test_two_partitions_join_at_once_without_disturbing_each_other(january_20: Any, january_25: Any) -> None:
    runs = [
        (january_20, "2013-01-18"),
        (january_25, "2013-01-24"),
        (january_20, "2013-01-15"),
        (january_25, "2013-01-22"),
    ]

    def join(run: tuple[Any, str]) -> pd.DataFrame:
        built, day = run
        return join_features(built.product, built.features, january_flights(built, day, 50), built.home)

    with ThreadPoolExecutor(len(runs)) as pool:
        together = list(pool.map(join, runs))
    for run, joined in zip(runs, together, strict=True):
        pd.testing.assert_frame_equal(joined, join(run))
    assert not list(january_20.home.work.glob("join-*"))
