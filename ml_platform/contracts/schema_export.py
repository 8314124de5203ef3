"""JSON Schemas of the contracts that people write or other languages read."""

import json
from pathlib import Path

from ml_platform.contracts.base import Contract
from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.drift import DriftReport
from ml_platform.contracts.events import PAYLOADS, Event
from ml_platform.contracts.evidence import CheckResult, Evidence
from ml_platform.contracts.example import Example
from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.monitoring import Decision, Look
from ml_platform.contracts.pin import PolicyPin
from ml_platform.contracts.policy import ActionPolicy, PromotionPolicy
from ml_platform.contracts.product import GuardrailSpec, ProductSpec, PromptSpec
from ml_platform.contracts.provenance import Feedback, Outcome, ProvenanceRecord
from ml_platform.contracts.release import Candidate, Release
from ml_platform.contracts.report import EvaluationReport
from ml_platform.contracts.serving import ServingContent, ServingSpec
from ml_platform.contracts.snapshot import SnapshotManifest
from ml_platform.contracts.windows import QualityReport, WindowReport

FOLDER = Path(__file__).parent / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

EXPORTED: dict[str, type[Contract]] = {
    "product": ProductSpec,
    "prompt": PromptSpec,
    "features": FeatureSpec,
    "guardrails": GuardrailSpec,
    "promotion_policy": PromotionPolicy,
    "monitor_policy": MonitorPolicy,
    "action_policy": ActionPolicy,
    "serving": ServingSpec,
    "serving_content": ServingContent,
    "example": Example,
    "snapshot": SnapshotManifest,
    "candidate": Candidate,
    "evaluation_report": EvaluationReport,
    "check_result": CheckResult,
    "release": Release,
    "evidence": Evidence,
    "policy_pin": PolicyPin,
    "deployment_state": DeploymentState,
    "provenance_record": ProvenanceRecord,
    "feedback": Feedback,
    "outcome": Outcome,
    "decision": Decision,
    "look": Look,
    "drift_report": DriftReport,
    "window_report": WindowReport,
    "quality_report": QualityReport,
    "event": Event,
    **{f"event_{kind.value}": payload for kind, payload in PAYLOADS.items()},
}
"""Every exported contract by the name of its file; the first eight are files of a product folder."""


def schema_text(contract: type[Contract]) -> str:
    """The JSON Schema of a contract as it is read, with sorted keys."""
    schema = {"$schema": DIALECT, **contract.model_json_schema(mode="validation")}
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def export_schemas(folder: Path | None = None) -> list[str]:
    """Writes every schema and removes those that no contract has any more; returns the names of the files."""
    target = folder or FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for name, contract in EXPORTED.items():
        (target / f"{name}.schema.json").write_text(schema_text(contract), encoding="utf-8")
    for path in target.glob("*.schema.json"):
        if path.name.removesuffix(".schema.json") not in EXPORTED:
            path.unlink()
    return sorted(f"{name}.schema.json" for name in EXPORTED)


def outdated_schemas(folder: Path | None = None) -> list[str]:
    """The names of schema files that are missing, differ from their contract, or have none."""
    target = folder or FOLDER
    expected = {f"{name}.schema.json": schema_text(contract) for name, contract in EXPORTED.items()}
    found = {path.name: path.read_text(encoding="utf-8") for path in target.glob("*.schema.json")}
    return sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
