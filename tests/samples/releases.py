"""Small real values for tests of gates, evidence, ledger and releases."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ml_platform.contracts.canonical import digest
from ml_platform.contracts.evidence import (
    CheckResult,
    Comparison,
    Evidence,
    GateResult,
    Measurement,
    Producer,
    Verdict,
)
from ml_platform.contracts.pin import PolicyPin
from ml_platform.contracts.policy import PromotionPolicy
from ml_platform.contracts.release import (
    CodePart,
    DataPart,
    EnvironmentPart,
    ModelPart,
    Release,
    VersionedPart,
)
from ml_platform.contracts.report import Decoding, EvaluationReport
from ml_platform.lineage.keys import SigningKey, TrustedKeys
from ml_platform.lineage.ledger import Ledger
from ml_platform.release.controller import Controller

NOW = datetime(2013, 4, 1, 6, 0, tzinfo=UTC)
PRODUCT = "assistant"
OPERATOR = SigningKey.of(Ed25519PrivateKey.from_private_bytes(b"operator" * 4))
"""The operator whose policy pins count; the same in every process of a test."""

PRODUCER = Producer(component="ml_platform.gates", version="0.1.0", source_sha256="a" * 64)


def make_policy(**changes: Any) -> PromotionPolicy:
    """A policy with every kind of gate."""
    gates: list[dict[str, Any]] = [
        {"kind": "check", "gate": "schema_valid", "claim": "c", "check": "schema_valid"},
        {"kind": "check", "gate": "no_leakage", "claim": "c", "check": "no_leakage"},
        {
            "kind": "threshold",
            "gate": "late_recall",
            "claim": "c",
            "metric": "late_recall",
            "at_least": 0.65,
            "min_n": 40,
        },
        {
            "kind": "slices",
            "gate": "critical_slices_pass",
            "claim": "c",
            "metric": "risk_accuracy",
            "dimensions": ["origin", "carrier"],
            "at_least": 0.8,
            "min_n": 10,
            "min_slices": 3,
        },
        {
            "kind": "paired",
            "gate": "not_worse_than_production",
            "claim": "c",
            "metrics": ["json_valid", "risk_accuracy"],
            "margin": 0.05,
            "min_n": 100,
        },
        {
            "kind": "budget",
            "gate": "cost_within_budget",
            "claim": "c",
            "metric": "cost_per_request_usd",
            "at_most": 0.001,
            "min_n": 50,
        },
        {
            "kind": "budget",
            "gate": "latency_within_budget",
            "claim": "c",
            "metric": "latency_p95_ms",
            "at_most": 3000,
            "min_n": 20,
        },
    ]
    values = {
        "version": "1.0.0",
        "confidence": 0.95,
        "evidence_valid_days": 30,
        "gates": gates,
        "canary": {"steps": [0.05, 0.2], "min_minutes_per_step": 30},
        "quarantine": {"first_hours": 24, "for_good_after": 3},
    }
    return PromotionPolicy.model_validate(values | changes)


def measured(
    metric: str, value: float | None, n: int, low: float | None, high: float | None, **more: Any
) -> Measurement:
    """A measurement of a share unless `unit` says otherwise."""
    return Measurement(metric=metric, value=value, n=n, low=low, high=high, **{"unit": "share", **more})


def compared(metric: str, difference: float = 0.01, low: float = -0.02, **more: Any) -> Comparison:
    """A comparison that a policy with a margin of 0.05 lets through."""
    values = {
        "metric": metric,
        "candidate": 0.9 + difference,
        "reference": 0.9,
        "difference": difference,
        "low": low,
        "high": difference + 0.03,
        "detectable": 0.04,
        "p_value": 0.5,
        "n": 160,
    }
    return Comparison.model_validate(values | more)


def make_report(**changes: Any) -> EvaluationReport:
    """A report that passes every gate of `make_policy`."""
    slices = [
        measured("risk_accuracy", 0.9, 40, 0.8, 0.95, slice={"origin": "JFK"}),
        measured("risk_accuracy", 0.85, 30, 0.7, 0.93, slice={"origin": "LGA"}),
        measured("risk_accuracy", 0.9, 50, 0.8, 0.95, slice={"carrier": "UA"}),
        measured("risk_accuracy", 0.5, 4, 0.1, 0.9, slice={"carrier": "HA"}),
    ]
    values: dict[str, Any] = {
        "product": PRODUCT,
        "candidate_sha256": "c" * 64,
        "reference": "base",
        "decoding": Decoding(max_new_tokens=96, batch_size=16),
        "confidence": 0.95,
        "inputs": {"snapshot": "1" * 64, "candidate": "c" * 64},
        "measurements": (
            measured("late_recall", 0.8, 84, 0.71, 0.87),
            measured("risk_accuracy", 0.9, 70, 0.85, 0.94),
            measured("cost_per_request_usd", 0.0004, 120, 0.0003, 0.0005, unit="USD"),
            measured("latency_p95_ms", 1500.0, 20, 1400.0, None, unit="ms"),
            *slices,
        ),
        "comparisons": (
            compared("json_valid"),
            compared("risk_accuracy"),
            *(compared("risk_accuracy", n=20, slice=one.slice) for one in slices),
        ),
        "checks": (
            CheckResult(check="schema_valid", passed=True, examined=1000),
            CheckResult(check="no_leakage", passed=True, examined=600),
        ),
    }
    return EvaluationReport.model_validate(values | changes)


def make_release(
    as_of: date = date(2013, 3, 31), seed: int = 1, policy: PromotionPolicy | None = None, product: str = PRODUCT
) -> Release:
    """A release whose id differs with each argument."""
    part = VersionedPart(version="1.0.0", content_sha256="d" * 64)
    of_seed = digest([seed, as_of.isoformat()])
    return Release(
        product=product,
        data=DataPart(as_of=as_of, snapshot_sha256="1" * 64, training_set_sha256="2" * 64),
        features=None,
        model=ModelPart(
            family="lora",
            base_model="smollm2-135m-instruct",
            base_sha256="3" * 64,
            candidate_sha256=of_seed,
            adapter_sha256="5" * 64,
            training={"rank": 16, "hardware": {"device": "cpu"}},
            seed=seed,
        ),
        prompt=part,
        guardrails=part,
        action_policy=None,
        promotion_policy=VersionedPart(version="1.0.0", content_sha256=(policy or make_policy()).sha256),
        monitor_policy=part,
        code=CodePart(version="0.1.0", source_sha256="6" * 64, git_commit=None),
        environment=EnvironmentPart(python="3.11.9", accelerator="cpu", packages={}),
    )


def inputs_of(release: Release, reference: str = "base") -> dict[str, str]:
    """What evidence of a release rests on."""
    return {"eval_report": "e" * 64, "candidate": release.model.candidate_sha256, "reference": reference}


def make_results(policy: PromotionPolicy, verdict: Verdict = Verdict.PASS, **other: Verdict) -> list[GateResult]:
    """One result for every gate of the policy, `other` by gate."""
    return [
        GateResult(gate=gate, claim="c", verdict=other.get(gate, verdict), reason=f"{gate} was looked at.")
        for gate in policy.gate_names
    ]


def make_evidence(
    release: Release, policy: PromotionPolicy, gate: str, verdict: Verdict = Verdict.PASS, at: datetime = NOW
) -> Evidence:
    """Evidence of one gate, valid for 30 days."""
    return Evidence(
        product=release.product,
        release_id=release.release_id,
        result=GateResult(gate=gate, claim="c", verdict=verdict, reason=f"{gate} was looked at."),
        policy_sha256=policy.sha256,
        inputs=inputs_of(release),
        producer=PRODUCER,
        measured_at=at,
        expires_at=at + timedelta(days=30),
    )


def trusting(*keys: SigningKey) -> TrustedKeys:
    """These keys, trusted."""
    return {key.key_id: key.public for key in keys}


def make_controller(folder: Path, key: SigningKey) -> Controller:
    """A controller on a new SQLite ledger in a folder; it trusts OPERATOR, and no policy is pinned yet."""
    return Controller(Ledger(f"sqlite:///{folder / 'ledger.sqlite'}"), trusting(key), PRODUCER, trusting(OPERATOR))


def pin(controller: Controller, policy: PromotionPolicy | None = None, at: datetime = NOW) -> PolicyPin | None:
    """The operator's word that this policy counts."""
    return controller.pin_policy(PRODUCT, policy or make_policy(), OPERATOR, "tests", at, "operator")
