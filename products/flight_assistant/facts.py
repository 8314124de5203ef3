"""The facts of a flight: one function for training and for serving, so that both show the model the same.

A gateway runs it from the release's own copy: it imports nothing of this folder, and no heavy library.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ml_platform.contracts.example import FactValue

LATE_CHANCE_WEIGHTS = {"origin_late_rate_3h": 2, "route_late_rate_30d": 1, "carrier_late_rate_7d": 1}
"""What the last three hours at the airport tell counts twice; action_policy.yaml says how well that ranks flights."""

FEWEST_DEPARTURES = 5
STRONGEST_WIND_MPH = 150


def facts_of(row: Mapping[str, Any]) -> dict[str, FactValue]:
    """What the model is shown of a flight, rounded for people; what is unknown or implausible is absent.

    `_late` and `_chance` are percentages, `_delay` minutes; F, mph, inches and miles. Each name costs tokens
    in every request.
    """
    day = datetime.fromisoformat(row["scheduled_departure_local"])
    busy = (_number(row["origin_departures_3h"]) or 0) >= FEWEST_DEPARTURES
    wind = _number(row["wind_mph"])
    found: dict[str, FactValue] = {
        "flight": f"{row['carrier']}{row['flight_number']}",
        "from": row["origin"],
        "to": row["dest"],
        "departs": day.strftime("%H:%M"),
        "day": f"{day.day} {day:%b}",
        "late_chance": _late_chance(row, busy=busy),
        "airport_late": _whole(row["origin_late_rate_3h"], 100) if busy else None,
        "airport_delay": _whole(row["origin_delay_mean_3h"]) if busy else None,
        "route_late": _whole(row["route_late_rate_30d"], 100),
        "route_delay": _whole(row["route_delay_mean_30d"]),
        "temperature": _whole(row["temperature_f"]),
        "wind": _whole(wind) if wind is not None and wind <= STRONGEST_WIND_MPH else None,
        "rain": _number(row["precipitation_in"]),
        "visibility": _whole(row["visibility_miles"]),
    }
    return {name: value for name, value in found.items() if value is not None}


def _late_chance(row: Mapping[str, Any], *, busy: bool) -> int | None:
    """The weighted mean of the late rates that are known, in percent; None when none is."""
    known = [
        (weight, float(row[name]))
        for name, weight in LATE_CHANCE_WEIGHTS.items()
        if row[name] is not None and (busy or name != "origin_late_rate_3h")
    ]
    if not known:
        return None
    return _whole(sum(weight * rate for weight, rate in known) / sum(weight for weight, _ in known), 100)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any, times: int = 1) -> int | None:
    return None if value is None else round(float(value) * times)
