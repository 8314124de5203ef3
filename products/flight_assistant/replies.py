"""Replies: what the assistant should say, in words whose every number stands in the facts."""

from collections.abc import Mapping, Sequence

from ml_platform.contracts.example import FactValue

Facts = Mapping[str, FactValue]

WORSE_BY_MINUTES = 5
"""Delays that differ by less are told as being about as usual."""

REFUSALS = {
    "out_of_scope": (
        "Sorry, I can only help with this flight's delays, schedule and weather.",
        "That is outside what I can do. Please ask me about your flight.",
    ),
    "override_attempt": (
        "I can't change how I work, but I can help with your flight.",
        "I won't do that, but I can help with your flight.",
    ),
}


def write_reply(intent: str, facts: Facts, risk: str, number: int) -> str:
    """The reply to an intent; `number` picks among the wordings."""
    if intent in REFUSALS:
        return _pick(REFUSALS[intent], number)
    return _WRITERS[intent](facts, risk, number)


def _delay_risk(facts: Facts, risk: str, number: int) -> str:
    chance = facts.get("late_chance")
    if chance is None:
        return "The risk of a delay is unknown: nothing is known of similar flights."
    now = "" if "airport_late" in facts else f" How {facts['from']} is doing now is unknown."
    wordings = (
        f"The risk of a delay is {risk}: {chance}% of similar flights leave late.{now}",
        f"{_CHANCES[risk]}: {chance}% of similar flights leave late.{now}",
    )
    return _pick(wordings, number)


def _expected_delay(facts: Facts, _risk: str, number: int) -> str:
    now, usual = facts.get("airport_delay"), facts.get("route_delay")
    if now is None and usual is None:
        return "The expected delay is unknown."
    if now is None:
        return f"The delay at {facts['from']} now is unknown; flights to {facts['to']} usually leave {_late(usual)}."
    if usual is None:
        return f"Flights from {facts['from']} now leave {_late(now)}; the usual delay to {facts['to']} is unknown."
    return _pick(
        (
            f"Flights from {facts['from']} now leave {_late(now)}, those to {facts['to']} usually {_late(usual)}.",
            f"On average {_late(now)} from {facts['from']} now, and {_late(usual)} to {facts['to']}.",
        ),
        number,
    )


def _why(facts: Facts, _risk: str, _number: int) -> str:
    parts = []
    if facts.get("airport_late") is not None:
        parts.append(f"{facts['airport_late']}% of recent {facts['from']} departures")
    if facts.get("route_late") is not None:
        parts.append(f"{facts['route_late']}% of flights to {facts['to']}")
    if not parts:
        return "The reason is unknown: nothing is known of similar flights."
    unknown = "" if "airport_late" in facts else f"; how {facts['from']} is doing now is unknown"
    return f"Because {' and '.join(parts)} left late{unknown}."


def _weather(facts: Facts, _risk: str, _number: int) -> str:
    parts = []
    if facts.get("temperature") is not None:
        parts.append(f"{facts['temperature']} F")
    if facts.get("wind") is not None:
        parts.append("no wind" if not facts["wind"] else f"{facts['wind']} mph wind")
    if facts.get("rain") is not None:
        parts.append("no rain" if not facts["rain"] else f"{facts['rain']} in of rain")
    if facts.get("visibility") is not None:
        parts.append(f"{facts['visibility']} miles visibility")
    if not parts:
        return f"The weather at {facts['from']} is unknown right now."
    return f"The weather at {facts['from']}: {', '.join(parts)}."


def _compare_with_usual(facts: Facts, _risk: str, _number: int) -> str:
    now, usual = facts.get("airport_delay"), facts.get("route_delay")
    if not isinstance(now, int) or not isinstance(usual, int):
        missing = f"the delay at {facts['from']} now" if now is None else f"the usual delay to {facts['to']}"
        return f"I cannot compare: {missing} is unknown."
    difference = now - usual
    verdict = "About as usual"
    if abs(difference) >= WORSE_BY_MINUTES:
        verdict = "Worse than usual" if difference > 0 else "Better than usual"
    return f"{verdict}: {facts['from']} flights now leave {_late(now)}, those to {facts['to']} usually {_late(usual)}."


def _schedule(facts: Facts, _risk: str, number: int) -> str:
    return _pick(
        (
            f"{facts['flight']} leaves {facts['from']} for {facts['to']} at {facts['departs']} on {facts['day']}.",
            f"{facts['flight']} to {facts['to']} departs from {facts['from']} on {facts['day']} at {facts['departs']}.",
        ),
        number,
    )


_WRITERS = {
    "delay_risk": _delay_risk,
    "expected_delay": _expected_delay,
    "why": _why,
    "weather": _weather,
    "compare_with_usual": _compare_with_usual,
    "schedule": _schedule,
}
_CHANCES = {"low": "Probably on time", "elevated": "A delay is possible", "high": "A delay is likely"}


def _late(minutes: FactValue) -> str:
    if not isinstance(minutes, int) or minutes == 0:
        return "on time"
    size = f"{abs(minutes)} minute{'' if abs(minutes) == 1 else 's'}"
    return f"{size} {'late' if minutes > 0 else 'early'}"


def _pick(wordings: Sequence[str], number: int) -> str:
    return wordings[number % len(wordings)]
