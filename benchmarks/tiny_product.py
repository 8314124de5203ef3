"""A whole product in seconds: a parcel desk with 90 rows of CSV and a base model of two random layers.

Everything runs that runs for a real product; only the model is too small to learn much.
"""

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 30
ROWS_A_DAY = 3
LAST_COMPLETE_DAY = "2024-01-30"
STATES = ("on_time", "delayed", "lost")
CITIES = ("Oslo", "Lagos", "Lima")


def write_tiny_product(root: Path, name: str = "parcel_desk") -> Path:
    """The product folder `root/name`, with its data and its base model beside it; returns the folder."""
    folder = root / name
    folder.mkdir(parents=True)
    write_base_model(root / "tiny_base")
    write_parcels(folder / "parcels.csv")
    files: dict[str, dict[str, Any]] = {
        "product.yaml": _product(name, root / "tiny_base"),
        "prompt.yaml": {"version": "1.0.0", "system": "{facts}\nAnswer in JSON."},
        "promotion_policy.yaml": _promotion_policy(),
        "monitor_policy.yaml": _monitor_policy(),
        "guardrails.yaml": {"version": "1.0.0", "max_utterance_characters": 200, "safe_reply": "Please call us."},
    }
    for file, content in files.items():
        (folder / file).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return folder


def write_parcels(path: Path, days: int = DAYS) -> None:
    """One row a parcel: where it was going, how far it was, and what became of it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["parcel_id", "city", "days_underway", "state", "asked_at"])
        for number in range(days * ROWS_A_DAY):
            asked = FIRST_DAY + timedelta(days=number // ROWS_A_DAY, hours=8 + number % ROWS_A_DAY)
            row = (f"P{number:04d}", CITIES[number * 7 % 3], number * 5 % 11, STATES[number * 5 % 11 // 4])
            writer.writerow([*row, asked.isoformat()])


def write_base_model(folder: Path) -> None:
    """A two-layer Llama with random weights and a byte tokenizer, saved as a Hugging Face folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *letters])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special[2],
        pad_token=special[2],
        bos_token=special[1],
        unk_token=special[0],
    )
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(special) + len(letters),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def _product(name: str, base: Path) -> dict[str, Any]:
    return {
        "name": name,
        "title": "Parcel desk",
        "description": "Tells people what became of their parcel.",
        "owner": "Parcel Desk",
        "family": "lora",
        "first_as_of": (FIRST_DAY + timedelta(days=20)).date().isoformat(),
        "max_staleness_days": 7,
        "files": {
            "prompt": "prompt.yaml",
            "promotion_policy": "promotion_policy.yaml",
            "monitor_policy": "monitor_policy.yaml",
            "guardrails": "guardrails.yaml",
        },
        "sources": {
            "parcels": {
                "kind": "csv",
                "path": "parcels.csv",
                "columns": {
                    "parcel_id": "string",
                    "city": "string",
                    "days_underway": "integer",
                    "state": "string",
                    "asked_at": "timestamp",
                },
                "key": ["parcel_id"],
                "event_time": "asked_at",
            }
        },
        "examples": {
            "source": "parcels",
            "entity": "parcel_id",
            "prediction_time": "asked_at",
            "utterance": "Where is my parcel {parcel_id} to {city}?",
            "facts": ["days_underway"],
            "answer": {"state": "{state}", "reply": "It has been underway for {days_underway} days."},
            "slices": ["city"],
            "max_examples": 80,
            "splits": {"validation_share": 0.1, "test_share": 0.2},
        },
        "training": {
            "base_model": str(base),
            "rank": 4,
            "alpha": 8,
            "learning_rate": 0.01,
            "epochs": 1,
            "pack_tokens": 1024,
            "packs_per_step": 1,
            "max_example_tokens": 512,
            "evaluations_per_epoch": 2,
            "early_stopping_patience": 2,
            "seed": 7,
        },
        "evaluation": {
            "answer_format": "json",
            "fields": {"state": {"kind": "label", "values": list(STATES)}, "reply": {"kind": "text", "grounded": True}},
            "max_test_examples": 12,
            "max_reference_examples": 12,
            "latency_requests": 2,
            "decoding": {"max_new_tokens": 8, "batch_size": 12},
            "cost": {"input_usd_per_million": 0.05, "output_usd_per_million": 0.2},
        },
    }


def _promotion_policy() -> dict[str, Any]:
    def gate(kind: str, name: str, claim: str, **values: Any) -> dict[str, Any]:
        return {"kind": kind, "gate": name, "claim": claim, **values}

    return {
        "version": "1.0.0",
        "confidence": 0.95,
        "evidence_valid_days": 30,
        "gates": [
            gate("check", "schema_valid", "The snapshot looks as it must.", check="schema_valid"),
            gate("check", "no_leakage", "Nothing from the future was learned.", check="no_leakage"),
            gate(
                "paired",
                "not_worse_than_production",
                "Answers are valid at least as often as those of production.",
                metrics=["json_valid"],
                margin=0.5,
                min_n=5,
            ),
            gate(
                "budget",
                "cost_within_budget",
                "A request costs under a cent.",
                metric="cost_per_request_usd",
                at_most=0.01,
                min_n=5,
            ),
            gate(
                "budget",
                "latency_within_budget",
                "95 of 100 answers come within a minute.",
                metric="latency_p95_ms",
                at_most=60000,
                min_n=1,
            ),
        ],
        "canary": {"steps": [0.05, 0.25], "min_minutes_per_step": 30},
        "quarantine": {"first_hours": 24, "for_good_after": 3},
    }


def _monitor_policy() -> dict[str, Any]:
    return {
        "version": "1.0.0",
        "label_age_hours": 24,
        "min_coverage": 0.5,
        "alpha": 0.05,
        "beta": 0.05,
        "metrics": [
            {"kind": "rate", "metric": "error_rate", "signal": "error", "margin": 0.05, "at_most": 0.05},
            {"kind": "rate", "metric": "invalid_rate", "signal": "invalid", "margin": 0.05, "at_most": 0.2},
        ],
        "hard_limits": [{"signal": "error", "at_most": 0.5, "window_seconds": 60, "min_count": 20}],
        "moves": {"cool_down_minutes": 30, "max_per_day": 6, "min_users": 50},
        "sign_off": {"always": False, "cost_rises_by": None},
        "drift": {
            "window_days": 28,
            "alpha": 0.05,
            "psi": 0.25,
            "ks": 0.1,
            "wasserstein": 0.2,
            "embedding": 0.1,
            "share_of_columns": 0.3,
            "min_rows": 100,
            "sample_rows": 5000,
        },
        "retrain": {
            "on_drift": True,
            "on_quality": True,
            "new_labels": None,
            "every_days": None,
            "days_before_deprecation": None,
            "deprecations": [],
            "back_off_hours": 12,
            "max_failed": 3,
        },
    }
