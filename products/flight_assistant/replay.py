"""The travellers of past days: each real flight is asked about before it leaves, and tells how late it was."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import yaml

from ml_platform.serving.replay.traffic import Asked, Happened, TrafficContext

EARLIEST_HOURS, LATEST_HOURS = 3.0, 1.0
"""Before the scheduled departure; the model learnt from what is known two hours before."""

MIX = {
    "delay_risk": 0.34,
    "expected_delay": 0.2,
    "compare_with_usual": 0.1,
    "weather": 0.1,
    "why": 0.08,
    "schedule": 0.08,
    "out_of_scope": 0.08,
    "override_attempt": 0.02,
}
"""What people ask; the shares of the training set are for learning, these are for living."""

AIRPORTS = {"EWR": "Newark", "JFK": "Kennedy", "LGA": "LaGuardia"}


def traffic(context: TrafficContext) -> Iterator[Asked | Happened]:
    """One question a flight in words that training never saw, and what became of the flight once it was known."""
    phrasings = yaml.safe_load((context.product.folder / "phrasings.yaml").read_text(encoding="utf-8"))
    for row in _flights(context).to_dict("records"):
        flight = {str(name): value for name, value in row.items()}
        yield _question(context, flight, phrasings)
        yield from _outcome(flight)


def _flights(context: TrafficContext) -> pd.DataFrame:
    """The flights that may be asked about in these days, with what the snapshot knows of how they went."""
    plan = context.table("schedule")
    leaves = plan["scheduled_departure"]
    earliest, latest = (timedelta(hours=hours) for hours in (EARLIEST_HOURS, LATEST_HOURS))
    plan = plan[(leaves >= context.first + latest) & (leaves < context.until + earliest)]
    left = context.table("departures").drop(columns=["carrier", "origin", "route"])
    arrived = context.table("arrivals")[["flight_id", "arrival_delay_min", "arrived_at"]]
    plan = plan.merge(left, on="flight_id", how="left").merge(arrived, on="flight_id", how="left")
    return plan.astype(object).where(plan.notna(), None)


def _question(context: TrafficContext, flight: Mapping[str, Any], phrasings: Mapping[str, Any]) -> Asked:
    name = flight["flight_id"]
    hours = LATEST_HOURS + (EARLIEST_HOURS - LATEST_HOURS) * context.draw(f"hours {name}")
    wordings = phrasings[_intent(context.draw(f"intent {name}"))]["held_out"]
    day = datetime.fromisoformat(flight["scheduled_departure_local"])
    words = {
        "flight": f"{flight['carrier']}{flight['flight_number']}",
        "from": flight["origin"],
        "to": flight["dest"],
        "airport": AIRPORTS[flight["origin"]],
        "departs": day.strftime("%H:%M"),
        "day": f"{day.day} {day:%b}",
    }
    return Asked(
        at=_moment(flight["scheduled_departure"]) - timedelta(hours=hours),
        name=name,
        user=context.user(name),
        utterance=wordings[int(len(wordings) * context.draw(f"wording {name}"))].format_map(words),
        metadata={"flight_id": name},
    )


def _intent(draw: float) -> str:
    for intent, share in MIX.items():
        draw -= share
        if draw < 0:
            return intent
    return next(iter(MIX))


def _outcome(flight: Mapping[str, Any]) -> Iterator[Happened]:
    """At its arrival; at its departure for one that was diverted, at the scheduled one for one that was cancelled."""
    if flight["departed_at"] is None:
        return
    values = {
        "cancelled": bool(flight["cancelled"]),
        "late": bool(flight["late"]),
        "departure_delay_min": _number(flight["departure_delay_min"]),
        "arrival_delay_min": _number(flight["arrival_delay_min"]),
    }
    yield Happened(
        at=_moment(flight["arrived_at"] or flight["departed_at"]),
        name=f"{flight['flight_id']}/landed",
        entity={"flight_id": flight["flight_id"]},
        values=values,
    )


def _moment(value: Any) -> datetime:
    return pd.Timestamp(value).to_pydatetime()


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
