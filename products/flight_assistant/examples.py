"""Examples of flight_assistant: real flights, what was known two hours before, and what then happened."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

from ml_platform.contracts.example import Example
from ml_platform.evaluation.groundedness import is_grounded
from ml_platform.families.lora.examples import ExamplesContext, plain
from ml_platform.snapshots.splits import split_examples, wording

ASKED_HOURS_BEFORE = 2
HISTORY_DAYS = 8
RESERVED_OF = 20
"""One flight of so many is kept for golden sets and never becomes an example."""

POOL = 6
"""Flights looked at for each example, so that every level of risk is seen often enough to be learnt."""
RISK_SHARES = {"low": 0.4, "elevated": 0.33, "high": 0.27}

BUSIEST_LANES = 8
AIRPORTS = {"EWR": "Newark", "JFK": "Kennedy", "LGA": "LaGuardia"}
INTENTS = (
    *("delay_risk", "out_of_scope", "expected_delay", "out_of_scope", "compare_with_usual", "override_attempt"),
    *("out_of_scope", "weather", "out_of_scope", "why", "out_of_scope", "schedule", "out_of_scope", "why"),
    *("out_of_scope", "delay_risk", "out_of_scope", "expected_delay", "override_attempt", "out_of_scope", "schedule"),
    *("weather", "out_of_scope", "compare_with_usual"),
)
"""Twenty-four questions as they come; the order spreads every intent over each split.

Nearly half are out of scope: of fewer, harmless look-alikes of attacks were at times taken for attacks.
"""
REFUSED = ("out_of_scope", "override_attempt")


def build(context: ExamplesContext) -> list[Example]:
    """One example a flight: `max_examples` flights whose outcome is known, none of them reserved.

    Which flights, which questions and which wordings is decided by hashes, never by the order of rows.
    What will be the test split asks in wordings that training never saw.
    """
    flights = _asked_flights(context, reserved=False)
    pool = _first(context, flights, POOL * context.max_examples)
    chosen = _balanced(context, _with_facts(context, pool), context.max_examples)
    splits = split_examples([_unasked(flight) for flight in chosen], context.product.spec.examples.splits)
    by_id = {flight["flight_id"]: flight for flight in chosen}
    asked = [
        example
        for name, members in splits.items()
        for example in ask(context, [by_id[one.entity] for one in members], "held_out" if name == "test" else "train")
    ]
    return [*asked, *_taught(context, set(flights["lane"]))]


def ask(
    context: ExamplesContext, flights: Sequence[Mapping[str, Any]], part: str, intents: Sequence[str] = INTENTS
) -> list[Example]:
    """The flights with a question each, in the wordings of a part of phrasings.yaml, every wording equally often."""
    phrasings = yaml.safe_load((context.product.folder / "phrasings.yaml").read_text(encoding="utf-8"))
    asked: dict[str, int] = {}
    examples = []
    for place, flight in enumerate(sorted(flights, key=lambda one: context.order(f"question {one['flight_id']}"))):
        intent = intents[place % len(intents)]
        known = sorted(phrasings[intent][part], key=lambda text: context.order(f"{part} {text}"))
        number = asked[intent] = asked.get(intent, -1) + 1
        wording = known[number % len(known)]
        phrasing_id = f"{intent}/{part}/{phrasings[intent][part].index(wording):02d}"
        examples.append(_example(context, flight, intent, wording, phrasing_id))
    return examples


def _taught(context: ExamplesContext, lanes: set[str]) -> Iterator[Example]:
    """What travellers and labellers said would have been right, of flights and in words that nothing is measured by."""
    held_out = _held_out_wordings(context)
    for example in context.taught():
        facts = example.facts
        if reason := _reason_against(context, example, held_out):
            context.set_aside(example.example_id, reason)
            continue
        lane = f"{facts['from']}-{facts['to']}"
        slices = {
            "origin": str(facts["from"]),
            "carrier": str(facts["flight"])[:2],
            "lane": lane if lane in lanes else "other",
            "intent": example.answer["intent"],
        }
        yield example.model_copy(update={"slices": slices})


def _reason_against(context: ExamplesContext, example: Example, held_out: Sequence[re.Pattern[str]]) -> str:
    answer, facts = example.answer, example.facts
    risk = "none" if answer["intent"] in REFUSED else context.product.action_policy.level(dict(facts))
    if not {"flight", "from", "to"} <= set(facts):
        return "shows no flight"
    if is_reserved(example.entity):
        return "is about a flight that is reserved for golden sets"
    if any(pattern.fullmatch(wording(example.utterance)) for pattern in held_out):
        return "asks in words that candidates are measured by"
    if answer["risk"] != risk:
        return f"says risk {answer['risk']}, where the policy says {risk}"
    return "" if is_grounded(answer["reply"], facts, example.utterance) else "says what stands in no fact"


def _held_out_wordings(context: ExamplesContext) -> list[re.Pattern[str]]:
    """The wordings of the test split and the golden answers, whatever flight they are filled in with."""
    phrasings = yaml.safe_load((context.product.folder / "phrasings.yaml").read_text(encoding="utf-8"))
    texts = [text for parts in phrasings.values() for text in parts["held_out"]]
    words = [wording(re.sub(r"\{\w+\}", "filledin", text)) for text in texts]
    return [re.compile(text.replace("filledin", r"\w+( \w+)?")) for text in words]


def golden_flights(context: ExamplesContext, count: int) -> list[dict[str, Any]]:
    """Reserved flights for the golden answers: two thirds really left late, for recall is counted on these.

    They are taken as they come: balanced by risk, the share of them that was called at risk would be of our making.
    """
    flights = _with_facts(context, _asked_flights(context, reserved=True))
    late, punctual = ([flight for flight in flights if flight["outcome"]["late"] is kind] for kind in (True, False))
    drawn = sorted(late, key=lambda one: context.order(one["flight_id"]))[: 2 * count // 3]
    return [*drawn, *_balanced(context, punctual, count - len(drawn))]


def is_reserved(flight_id: str) -> bool:
    """Whether a flight is kept for golden sets, whatever the seed and the snapshot."""
    return int(hashlib.sha256(flight_id.encode()).hexdigest(), 16) % RESERVED_OF == 0


def _asked_flights(context: ExamplesContext, *, reserved: bool) -> pd.DataFrame:
    """Flights with their known outcomes and the moment of the question, late enough to have a history."""
    departures = context.table("departures")[["flight_id", "cancelled", "departure_delay_min", "late"]]
    flights = context.table("schedule").merge(departures, on="flight_id", validate="one_to_one")
    flights["prediction_time"] = flights["scheduled_departure"] - pd.Timedelta(hours=ASKED_HOURS_BEFORE)
    begins = flights["scheduled_departure"].min() + pd.Timedelta(days=HISTORY_DAYS)
    kept = flights["flight_id"].map(is_reserved) == reserved
    lanes = flights["route"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    busiest = set(lanes.index[:BUSIEST_LANES])
    flights["lane"] = [route if route in busiest else "other" for route in flights["route"]]
    return flights[kept & (flights["prediction_time"] >= begins)].reset_index(drop=True)


def _first(context: ExamplesContext, flights: pd.DataFrame, count: int) -> pd.DataFrame:
    order = flights["flight_id"].map(context.order)
    return flights.loc[order.sort_values().index[:count]].reset_index(drop=True)


def _with_facts(context: ExamplesContext, flights: pd.DataFrame) -> list[dict[str, Any]]:
    entities = flights[["route", "origin", "carrier"]].assign(event_timestamp=flights["prediction_time"])
    features = context.join(entities).drop(columns=list(entities.columns))
    rows = pd.concat([flights, features.reset_index(drop=True)], axis=1).to_dict("records")
    return [_flight(context, {str(name): plain(value) for name, value in row.items()}) for row in rows]


def _flight(context: ExamplesContext, row: dict[str, Any]) -> dict[str, Any]:
    facts = context.product.hook("facts.py:facts_of")(row)
    policy = context.product.action_policy
    return {
        "flight_id": row["flight_id"],
        "prediction_time": row["prediction_time"],
        "facts": facts,
        "risk": policy.level(dict(facts)),
        "slices": {"origin": row["origin"], "carrier": row["carrier"], "lane": row["lane"]},
        "outcome": {"late": bool(row["late"]), "departure_delay_min": row["departure_delay_min"]},
    }


def _balanced(context: ExamplesContext, flights: Iterable[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` flights with the wanted shares of risk, as far as there are enough of each."""
    ordered = sorted(flights, key=lambda one: context.order(one["flight_id"]))
    chosen = {
        flight["flight_id"]: flight
        for risk, share in RISK_SHARES.items()
        for flight in [one for one in ordered if one["risk"] == risk][: round(share * count)]
    }
    rest = (flight for flight in ordered if flight["flight_id"] not in chosen)
    return [*chosen.values(), *(flight for flight, _ in zip(rest, range(count - len(chosen)), strict=False))]


def _unasked(flight: Mapping[str, Any]) -> Example:
    name = flight["flight_id"]
    return Example(
        example_id=name, entity=name, prediction_time=flight["prediction_time"], utterance=name, facts={}, answer=""
    )


def _example(
    context: ExamplesContext, flight: Mapping[str, Any], intent: str, wording: str, phrasing_id: str
) -> Example:
    facts, name = flight["facts"], flight["flight_id"]
    risk = "none" if intent in REFUSED else flight["risk"]
    write = context.product.hook("replies.py:write_reply")
    number = int(context.order(f"wording {name}"), 16)
    words = {
        **{key: facts[key] for key in ("flight", "from", "to", "departs", "day")},
        "airport": AIRPORTS[facts["from"]],
    }
    return Example(
        example_id=f"{name}/{intent}",
        entity=name,
        prediction_time=flight["prediction_time"],
        utterance=wording.format_map(words),
        phrasing_id=phrasing_id,
        facts=facts,
        answer={"intent": intent, "risk": risk, "reply": write(intent, facts, risk, number)},
        slices={**flight["slices"], "intent": intent},
        outcome=flight["outcome"],
    )
