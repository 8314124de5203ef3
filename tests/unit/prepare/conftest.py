"""A product made of files only, from rows that a test brings."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_platform.contracts.products import load_product
from ml_platform.contracts.progress import Reporter, silent
from ml_platform.families.lora.prepare import make_training_set
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.snapshots.extract import take_snapshot
from tests.samples.monitoring import WITHOUT_OUTCOMES

Prepare = Callable[..., Artifact]

COLUMNS = {"id": "string", "at": "timestamp", "text": "string", "label": "string"}
SOURCE: dict[str, Any] = {"kind": "jsonl", "path": "rows.jsonl", "columns": COLUMNS, "key": ["id"], "event_time": "at"}
FILES = ("prompt", "promotion_policy", "monitor_policy", "guardrails")
EXAMPLES: dict[str, Any] = {
    "source": "rows",
    "entity": "id",
    "prediction_time": "at",
    "utterance": "{text}",
    "answer": {"label": "{label}"},
    "max_examples": 1000,
    "splits": {"validation_share": 0.2, "test_share": 0.2},
}
TRAINING = {
    "base_model": "smollm2-135m-instruct",
    "rank": 4,
    "alpha": 4,
    "learning_rate": 0.001,
    "epochs": 1,
    "pack_tokens": 64,
    "packs_per_step": 1,
    "max_example_tokens": 64,
    "evaluations_per_epoch": 1,
    "early_stopping_patience": 1,
    "seed": 1,
}
POLICY: dict[str, Any] = {
    "version": "1.0.0",
    "confidence": 0.95,
    "evidence_valid_days": 1,
    "gates": [
        {"kind": "check", "gate": "schema_valid", "claim": "c", "check": "schema_valid"},
        {"kind": "check", "gate": "no_leakage", "claim": "c", "check": "no_leakage"},
        {
            "kind": "paired",
            "gate": "not_worse_than_production",
            "claim": "c",
            "metrics": ["json_valid"],
            "margin": 0.1,
            "min_n": 1,
        },
        *(
            {"kind": "budget", "gate": f"{of}_within_budget", "claim": "c", "metric": metric, "at_most": 1, "min_n": 1}
            for of, metric in (("cost", "cost_per_request_usd"), ("latency", "latency_p95_ms"))
        ),
    ],
    "canary": {"steps": [0.5], "min_minutes_per_step": 1},
    "quarantine": {"first_hours": 24, "for_good_after": 3},
}


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """The training set of JSON rows, as a product made of files only."""

    def run(
        rows: list[dict[str, Any]],
        *,
        source: dict[str, Any] | None = None,
        examples: dict[str, Any] | None = None,
        field: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        characters: int = 500,
        serving: dict[str, Any] | None = None,
        files: dict[str, bytes] | None = None,
        report: Reporter = silent,
    ) -> Artifact:
        folder = tmp_path / "anything"
        folder.mkdir(exist_ok=True)
        for name, data in (files or {}).items():
            (folder / name).write_bytes(data)
        (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        spec = {
            "name": "anything",
            "title": "t",
            "description": "d",
            "owner": "team:x",
            "family": "lora",
            "first_as_of": "2026-01-01",
            "max_staleness_days": None,
            "files": {name: f"{name}.yaml" for name in (*FILES, *(["serving"] if serving is not None else []))},
            "sources": {"rows": {**SOURCE, **(source or {})}},
            "examples": {**EXAMPLES, **(examples or {})},
            "training": TRAINING,
            "evaluation": {
                "answer_format": "json",
                "fields": {"label": {"kind": "label", **(field or {})}},
                "max_test_examples": 10,
                "max_reference_examples": 10,
                "latency_requests": 1,
                "decoding": {"max_new_tokens": 8, "batch_size": 1},
                "cost": {"input_usd_per_million": 0, "output_usd_per_million": 0},
                **(evaluation or {}),
            },
        }
        # What is compared with production is what answers of this form are measured by.
        compared = "answer_exact" if (evaluation or {}).get("answer_format") == "text" else "json_valid"
        gates = [one | {"metrics": [compared]} if one["kind"] == "paired" else one for one in POLICY["gates"]]
        contracts: dict[str, Any] = {
            "product": spec,
            "promotion_policy": POLICY | {"gates": gates},
            "prompt": {"version": "1.0.0", "system": 'Facts:\n{facts}\nSay {"label": ...}.'},
            "monitor_policy": WITHOUT_OUTCOMES,
            "guardrails": {"version": "1.0.0", "max_utterance_characters": characters, "safe_reply": "no"},
        }
        if serving is not None:
            contracts["serving"] = {"version": "1.0.0", **serving}
        for name, data in contracts.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), "utf-8")
        product = load_product(folder)
        store = LocalArtifactStore(tmp_path / "store")
        return make_training_set(product, take_snapshot(product, date(2026, 6, 1), store), None, store, report)

    return run
