"""Promotion policies: every gate, every threshold, nothing by default."""

import copy
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.base import Contract, read_mapping
from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.mandatory import why_in_name_only
from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.policy import MANDATORY_GATES, ActionPolicy, PromotionPolicy
from ml_platform.contracts.product import ProductSpec
from ml_platform.contracts.serving import ServingSpec
from ml_platform.errors import ContractError

PRODUCT = Path(__file__).parents[2] / "products" / "flight_assistant"
POLICY: dict[str, Any] = read_mapping(PRODUCT / "promotion_policy.yaml")


def policy() -> dict[str, Any]:
    return copy.deepcopy(POLICY)


@pytest.mark.parametrize("gate", sorted(MANDATORY_GATES))
def test_a_policy_that_lacks_a_mandatory_gate_is_refused(gate: str) -> None:
    data = policy()
    data["gates"] = [found for found in data["gates"] if found["gate"] != gate]
    with pytest.raises(ContractError, match=f"policy.yaml: the policy lacks the gates {gate}. Add them"):
        PromotionPolicy.parse(data, where="policy.yaml")


BUDGET = {"kind": "budget", "metric": "cost_per_request_usd", "at_most": 1.0, "min_n": 1}
IN_NAME_ONLY = [
    ("schema_valid", {"kind": "check", "check": "no_leakage"}, "a check of 'schema_valid'"),
    ("no_leakage", {"kind": "check", "check": "schema_valid"}, "a check of 'no_leakage'"),
    ("not_worse_than_production", BUDGET, "of kind paired"),
    ("cost_within_budget", BUDGET | {"metric": "latency_p95_ms"}, "a budget on a metric that begins with 'cost_'"),
    (
        "latency_within_budget",
        {"kind": "threshold", "metric": "latency_p95_ms", "at_least": 1.0, "min_n": 1},
        "a budget on a metric that begins with 'latency_'",
    ),
]


@pytest.mark.parametrize(("gate", "instead", "wanted"), IN_NAME_ONLY)
def test_a_mandatory_gate_proves_what_it_is_called_after(gate: str, instead: dict[str, Any], wanted: str) -> None:
    data = policy()
    assert why_in_name_only(PromotionPolicy.parse(data, where="policy.yaml")) == ""
    data["gates"] = [{"gate": gate, "claim": "c", **instead} if one["gate"] == gate else one for one in data["gates"]]
    stored = PromotionPolicy.parse(data, where="the ledger, which must stay readable")
    assert why_in_name_only(stored) == f"mandatory gates are there in name only: '{gate}' must be {wanted}"


def test_a_threshold_at_most_is_a_budget_too() -> None:
    data = policy()
    instead = BUDGET | {"gate": "cost_within_budget", "claim": "c", "kind": "threshold"}
    data["gates"] = [instead if one["gate"] == "cost_within_budget" else one for one in data["gates"]]
    assert why_in_name_only(PromotionPolicy.parse(data, where="policy.yaml")) == ""


def test_a_policy_that_names_a_gate_twice_is_refused() -> None:
    data = policy()
    data["gates"].append(data["gates"][0])
    with pytest.raises(ContractError, match="names these gates more than once: schema_valid"):
        PromotionPolicy.parse(data, where="policy.yaml")


@pytest.mark.parametrize("key", ["version", "confidence", "evidence_valid_days", "gates", "canary", "quarantine"])
def test_nothing_in_a_policy_has_a_default(key: str) -> None:
    data = policy()
    del data[key]
    with pytest.raises(ContractError, match=f"key '{key}' is missing and has no default"):
        PromotionPolicy.parse(data, where="policy.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [("first_hours", 0), ("first_hours", float("nan")), ("first_hours", 9000), ("for_good_after", 0), ("more", 1)],
)
def test_a_quarantine_is_some_time_and_ends_for_good_at_some_count(key: str, value: object) -> None:
    data = policy()
    data["quarantine"][key] = value
    with pytest.raises(ContractError, match=f"quarantine.{key}"):
        PromotionPolicy.parse(data, where="policy.yaml")
    del data["quarantine"]["first_hours"]
    with pytest.raises(ContractError, match=r"quarantine\.first_hours"):
        PromotionPolicy.parse(data, where="policy.yaml")


def test_no_threshold_of_any_gate_has_a_default() -> None:
    for position, gate in enumerate(POLICY["gates"]):
        for key in gate:
            data = policy()
            del data["gates"][position][key]
            with pytest.raises(ContractError):
                PromotionPolicy.parse(data, where="policy.yaml")


def test_no_number_of_a_policy_may_be_nan() -> None:
    for position, gate in enumerate(POLICY["gates"]):
        for key in (key for key, value in gate.items() if isinstance(value, int | float)):
            data = policy()
            data["gates"][position][key] = float("nan")
            with pytest.raises(ContractError, match=f"{key}'"):
                PromotionPolicy.parse(data, where="policy.yaml")


def test_a_threshold_gate_has_exactly_one_side() -> None:
    data = policy()
    gate = next(found for found in data["gates"] if found["kind"] == "threshold")
    gate["at_most"] = gate["at_least"] = 0.5
    with pytest.raises(ContractError, match="needs exactly one of at_least and at_most"):
        PromotionPolicy.parse(data, where="policy.yaml")


@pytest.mark.parametrize("steps", [[], [0.0, 0.9], [0.5, 0.1], [0.1, 0.1], [0.1, 1.5], [float("nan")], [True]])
def test_the_steps_of_a_canary_rise_from_above_zero_to_at_most_one(steps: list[float]) -> None:
    data = policy()
    data["canary"]["steps"] = steps
    with pytest.raises(ContractError, match=r"canary"):
        PromotionPolicy.parse(data, where="policy.yaml")


def test_times_that_no_calendar_holds_are_refused() -> None:
    data = policy()
    for too_long, key in (
        ({"evidence_valid_days": 1e9}, "evidence_valid_days"),
        ({"canary": data["canary"] | {"min_minutes_per_step": 1e12}}, "min_minutes_per_step"),
    ):
        with pytest.raises(ContractError, match=f"{key}.*less than or equal to"):
            PromotionPolicy.parse(data | too_long, where="policy.yaml")


TOO_LONG: list[tuple[type[Contract], str, str, float]] = [
    (ProductSpec, "product.yaml", "max_staleness_days", 1e9),
    (MonitorPolicy, "monitor_policy.yaml", "label_age_hours", 1e12),
    (MonitorPolicy, "monitor_policy.yaml", "drift.window_days", 10**9),
    (MonitorPolicy, "monitor_policy.yaml", "retrain.days_before_deprecation", 10**9),
    (MonitorPolicy, "monitor_policy.yaml", "retrain.back_off_hours", 1e12),
    (MonitorPolicy, "monitor_policy.yaml", "hard_limits.0.window_seconds", 1e15),
    (FeatureSpec, "features.yaml", "views.origin_now.ttl_hours", 1e12),
    (ServingSpec, "serving.yaml", "lookups.flight.keep_hours", 1e12),
    (ProductSpec, "product.yaml", "sources.answered.keep_days", 1e6),
]


@pytest.mark.parametrize(("contract", "file", "key", "value"), TOO_LONG)
def test_a_product_names_no_time_beyond_a_century(contract: type[Contract], file: str, key: str, value: float) -> None:
    """One that overflowed took every product's chain down, or the controller's rounds."""
    data = read_mapping(PRODUCT / file)
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    place: Any = data
    for part in path:
        place = place[part]
    place[last] = value
    with pytest.raises(ContractError, match=f"{last}.*less than or equal to"):
        contract.parse(data, where=file)


@pytest.mark.parametrize("confidence", [0.5, 1.0, 95, float("nan"), None])
def test_confidence_lies_between_a_half_and_one(confidence: object) -> None:
    with pytest.raises(ContractError, match="key 'confidence'"):
        PromotionPolicy.parse({**policy(), "confidence": confidence}, where="policy.yaml")


def test_a_policy_cannot_be_changed_once_it_is_read() -> None:
    found = PromotionPolicy.parse(policy(), where="policy.yaml")
    with pytest.raises(ValueError, match="frozen"):
        found.confidence = 0.6


def test_the_digest_of_a_policy_tells_every_change_of_a_threshold() -> None:
    before = PromotionPolicy.parse(policy(), where="policy.yaml").sha256
    data = policy()
    data["gates"][-1]["min_n"] += 1
    assert PromotionPolicy.parse(data, where="policy.yaml").sha256 != before


def test_the_level_of_facts_is_the_first_level_with_a_rule_that_holds() -> None:
    levels = [
        {"level": "high", "any": [{"fact": "delay", "at_least": 30}, {"fact": "rate", "at_least": 0.5}]},
        {"level": "low", "any": [{"fact": "delay", "at_most": 5}]},
    ]
    found = ActionPolicy.parse(
        {"version": "1.0.0", "field": "risk", "levels": levels, "otherwise": "some"}, where="actions.yaml"
    )
    assert found.level({"delay": 30}) == "high"
    assert found.level({"delay": 0, "rate": 0.9}) == "high"
    assert found.level({"delay": 5}) == "low"
    assert found.level({"delay": 10}) == "some"


@pytest.mark.parametrize("facts", [{}, {"delay": None}, {"delay": "40"}, {"delay": True}, {"delay": float("nan")}])
def test_a_fact_that_is_missing_or_no_number_makes_no_rule_true(facts: dict[str, object]) -> None:
    found = ActionPolicy.parse(
        {
            "version": "1.0.0",
            "field": "risk",
            "levels": [{"level": "high", "any": [{"fact": "delay", "at_least": 1}, {"fact": "delay", "at_most": 1}]}],
            "otherwise": "some",
        },
        where="actions.yaml",
    )
    assert found.level(facts) == "some"


TOLD = {
    "version": "1.0.0",
    "field": "risk",
    "levels": [{"level": "high", "any": [{"fact": "delay", "at_least": 30}]}],
    "otherwise": "low",
}


def test_the_level_is_told_last_among_the_facts_and_only_where_the_policy_names_a_fact_for_it() -> None:
    facts = {"delay": 40, "to": "MIA"}
    assert ActionPolicy.parse(TOLD, where="actions.yaml").show(facts) == facts
    told = ActionPolicy.parse(TOLD | {"shown_as": "level"}, where="actions.yaml")
    assert list(told.show(facts).items()) == [("delay", 40), ("to", "MIA"), ("level", "high")]
    assert facts == {"delay": 40, "to": "MIA"}


def test_a_level_that_facts_bring_along_is_the_policy_s_own_or_none() -> None:
    told = ActionPolicy.parse(TOLD | {"shown_as": "level"}, where="actions.yaml")
    assert told.show({"level": "high", "delay": 1}) == {"delay": 1, "level": "low"}


def test_a_policy_that_shows_no_level_keeps_the_digest_that_it_had_before_it_could() -> None:
    without, said = (ActionPolicy.parse(one, where="actions.yaml") for one in (TOLD, TOLD | {"shown_as": None}))
    assert without.sha256 == said.sha256
    assert "shown_as" not in without.model_dump(mode="json")
    assert ActionPolicy.parse(TOLD | {"shown_as": "level"}, where="actions.yaml").sha256 != without.sha256


def test_a_level_cannot_be_shown_as_a_fact_that_it_follows_from() -> None:
    with pytest.raises(ContractError, match="shown_as 'delay' is a fact that the levels follow from"):
        ActionPolicy.parse(TOLD | {"shown_as": "delay"}, where="actions.yaml")
