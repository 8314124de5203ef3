"""Answers as monitoring finds them: records in a store, what was said of them, and releases that read them alike."""

import json
from datetime import datetime, timedelta
from typing import Any

from ml_platform.contracts.provenance import LoggedContract, ProvenanceRecord
from ml_platform.contracts.serving import ServingContent
from ml_platform.lineage.provenance.frames import Frame
from ml_platform.lineage.provenance.recorder import KINDS
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.writing import Progress
from ml_platform.monitoring.assigned import Releases
from tests.samples.provenance import make_record

EVALUATION: dict[str, Any] = {
    "answer_format": "json",
    "fields": {
        "intent": {"kind": "label", "values": ["risk", "schedule", "out_of_scope", "override_attempt"]},
        "risk": {"kind": "label", "values": ["low", "high", "none"]},
        "reply": {"kind": "text", "grounded": True},
    },
    "recall": {"late_recall": {"field": "risk", "positive": ["high"], "outcome": "late"}},
    "refusal": {"field": "intent", "out_of_scope": ["out_of_scope"], "attack": ["override_attempt"]},
    "max_test_examples": 10,
    "max_reference_examples": 10,
    "latency_requests": 1,
    "decoding": {"max_new_tokens": 32, "batch_size": 1},
    "cost": {"input_usd_per_million": 1.0, "output_usd_per_million": 2.0},
}
AGE = timedelta(hours=6)


def serving_content(time: str = "clock", **evaluation: Any) -> ServingContent:
    """How a product serves that says how likely a delay is; `evaluation` replaces parts of how it is read."""
    data = {
        "spec": {"version": "1.0.0", "entity": ["flight_id"], "time": time},
        "evaluation": EVALUATION | evaluation,
        "features": None,
    }
    return ServingContent.parse(data, where="a sample")


def releases(time: str = "clock") -> Releases:
    """Releases that all serve alike."""
    return Releases.alike(serving_content(time))


def answer(risk: str = "low", intent: str = "risk", reply: str = "It may well leave on time.") -> str:
    """An answer in the product's form."""
    return json.dumps({"intent": intent, "risk": risk, "reply": reply})


def make_answer(number: int, *, published_at: datetime | None = None, risk: str = "low", **changes: Any) -> Any:
    """The record of answer `number`; with `published_at` it read the features of then."""
    plain = make_record(number, **{"answer": answer(risk), "facts": {"flight": "UA1545"}} | changes)
    if published_at is None:
        return plain
    assert plain.features is not None
    read = plain.features.model_copy(update={"published_at": published_at})
    return plain.model_copy(update={"features": read})


def without_features(record: ProvenanceRecord) -> ProvenanceRecord:
    """The same answer, which read none."""
    return record.model_copy(update={"features": None})


def put(store: ProvenanceStore, *values: LoggedContract, segment: str = "1-a.wal") -> int:
    """Writes values as one turn of the shipper does; returns the conflicts."""
    frames, end = [], 0
    for value in values:
        payload = value.log_bytes()
        frames.append(Frame(KINDS[type(value)], payload, end, end + len(payload), 0))
        end += len(payload)
    return store.write(Progress(segment, tuple(frames), (), end))
