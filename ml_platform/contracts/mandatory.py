"""The mandatory gates: what each of them must look at, so that it proves what it is called after."""

from ml_platform.contracts.policy import BudgetGate, CheckGate, Gate, PairedGate, PromotionPolicy, ThresholdGate

_KINDS = {
    "schema_valid": "a check of 'schema_valid'",
    "no_leakage": "a check of 'no_leakage'",
    "not_worse_than_production": "of kind paired",
    "cost_within_budget": "a budget on a metric that begins with 'cost_'",
    "latency_within_budget": "a budget on a metric that begins with 'latency_'",
}


def why_in_name_only(policy: PromotionPolicy) -> str:
    """Which mandatory gates of a policy prove something else than their names say; empty when none does.

    Ledgers keep policies from before this was asked. So it is asked where a policy is read from a product, pinned or
    about to let something through, and not where a stored one is read.
    """
    wrong = [f"'{gate.gate}' must be {_KINDS[gate.gate]}" for gate in policy.gates if not _proves_its_name(gate)]
    return f"mandatory gates are there in name only: {'; '.join(wrong)}" if wrong else ""


def _proves_its_name(gate: Gate) -> bool:
    match gate.gate:
        case "schema_valid" | "no_leakage":
            return isinstance(gate, CheckGate) and gate.check == gate.gate
        case "not_worse_than_production":
            return isinstance(gate, PairedGate)
        case "cost_within_budget":
            return _bounds(gate, "cost_")
        case "latency_within_budget":
            return _bounds(gate, "latency_")
        case _:
            return True


def _bounds(gate: Gate, amount: str) -> bool:
    """Whether a gate keeps an amount below something; a threshold at most does so with its upper bound."""
    if isinstance(gate, ThresholdGate):
        return gate.at_most is not None and gate.metric.startswith(amount)
    return isinstance(gate, BudgetGate) and gate.metric.startswith(amount)
