"""A parcel desk whose parcels may change from a day on, with a release that learnt from its first days."""

import csv
import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.tiny_product import FIRST_DAY, STATES, _monitor_policy, _product, _promotion_policy
from ml_platform.contracts.drift import DriftReport
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product, load_product
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.contracts.release import DataPart, Release, VersionedPart
from ml_platform.families.lora.prepare import make_training_set
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.lineage.contents import keep_contents
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.monitoring.drift.report import load_drift_report, make_drift_report
from ml_platform.release.controller import Controller, Held
from ml_platform.snapshots.extract import take_snapshot
from tests.samples.observed import put
from tests.samples.provenance import make_record
from tests.samples.releases import OPERATOR, PRODUCER, inputs_of, make_policy, make_release, make_results, trusting

PARCELS_A_DAY = 40
LEARNT, LATER = date(2024, 2, 10), date(2024, 3, 20)
"""The day that the release learnt until, and one whose four weeks lie behind it."""
GOLDEN = [
    {
        "example_id": f"G{number}",
        "entity": f"G{number}",
        "prediction_time": "2024-01-20T08:00:00Z",
        "utterance": f"Where is my parcel G{number} to Oslo?",
        "facts": {"days_underway": 2},
        "answer": {"state": "on_time", "reply": "It has been underway for 2 days."},
    }
    for number in range(3)
]


def write_drifting_product(root: Path, changes_on: date | None = None, **drift: Any) -> Path:
    """The product's folder; from `changes_on` parcels take twelve days longer, and go to a new city, too.

    `drift` are other values of the policy's part of that name.
    """
    folder = root / "parcel_desk"
    folder.mkdir(parents=True)
    product = _product("parcel_desk", root / "no_base")
    product["files"] |= {"features": "features.yaml", "serving": "serving.yaml"}
    product["max_staleness_days"] = None
    product["examples"]["max_examples"] = 300
    product["evaluation"]["golden_sets"] = {"answers": {"path": "golden.jsonl", "version": "1.2.0"}}
    policy = _monitor_policy()
    policy["drift"] |= drift
    recent = {"function": "mean", "column": "days_underway", "window_hours": 72}
    view = {"source": "parcels", "entity": ["city"], "every_hours": 24, "ttl_hours": 240}
    files = {
        "product.yaml": product,
        "prompt.yaml": {"version": "1.0.0", "system": "{facts}\nAnswer in JSON."},
        "promotion_policy.yaml": _promotion_policy(),
        "monitor_policy.yaml": policy,
        "guardrails.yaml": {"version": "1.0.0", "max_utterance_characters": 200, "safe_reply": "Please call us."},
        "features.yaml": {"service": "desk", "views": {"city_now": view | {"aggregates": {"city_days_3d": recent}}}},
        "serving.yaml": {
            "version": "1.0.0",
            "entity": ["parcel_id"],
            "given": ["days_underway", "city"],
            "time": "clock",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    (folder / "golden.jsonl").write_text("".join(json.dumps(one) + "\n" for one in GOLDEN), encoding="utf-8")
    _write_parcels(folder / "parcels.csv", changes_on)
    return folder


def _write_parcels(path: Path, changes_on: date | None) -> None:
    draw = np.random.default_rng(5)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["parcel_id", "city", "days_underway", "state", "asked_at"])
        for number in range(100 * PARCELS_A_DAY):
            day = FIRST_DAY + timedelta(days=number // PARCELS_A_DAY)
            asked = day + timedelta(minutes=30 * (number % PARCELS_A_DAY))
            changed = changes_on is not None and day.date() >= changes_on
            cities = ("Oslo", "Lagos", "Lima", "Quito") if changed else ("Oslo", "Lagos", "Lima")
            days = int(draw.integers(0, 25)) + 12 * changed
            writer.writerow([f"P{number:05d}", draw.choice(cities), days, draw.choice(STATES), asked.isoformat()])


@dataclass
class Desk:
    """A home of the parcel desk."""

    home: Home
    product: Product
    key: SigningKey = field(default_factory=SigningKey.generate)

    @classmethod
    def make(cls, root: Path, changes_on: date | None = None, **drift: Any) -> "Desk":
        return cls(Home(root / "home"), load_product(write_drifting_product(root / "products", changes_on, **drift)))

    @property
    def store(self) -> LocalArtifactStore:
        return LocalArtifactStore(self.home.artifacts)

    def snapshot(self, as_of: date) -> Artifact:
        return take_snapshot(self.product, as_of, self.store)

    def serve(self, as_of: date = LEARNT) -> Release:
        """A release that learnt until a day, in production."""
        self.home.root.mkdir(parents=True, exist_ok=True)
        taken = self.snapshot(as_of)
        learnt = make_training_set(self.product, taken, None, self.store)
        keep_contents(self.store, self.product)
        policy, now = make_policy(), datetime.now(UTC) - timedelta(hours=1)
        monitored = VersionedPart(version="1.0.0", content_sha256=self.product.monitor_policy.sha256)
        data = DataPart(as_of=as_of, snapshot_sha256=taken.sha256, training_set_sha256=learnt.sha256)
        made = make_release(as_of, 1, policy, self.product.name)
        made = made.model_copy(update={"data": data, "monitor_policy": monitored})
        door = Controller(Ledger(self.home.ledger_url), trusting(self.key), PRODUCER, trusting(OPERATOR))
        door.pin_policy(self.product.name, policy, OPERATOR, "tests", now, "operator", only_first=True)
        door.register_release(made, policy, now, "tests")
        door.record_verdicts(made, make_results(policy), inputs_of(made), self.key, now, "tests")
        for move in (door.open_canary, door.promote):
            moved = move(self.product.name, made.release_id, now, "tests")
            assert not isinstance(moved, Held), moved
        return made

    def answer(self, release: Release, day: date, utterances: list[str], state: str = "on_time") -> None:
        """Answers of a release on a day, each to a user of its own, straight into the store."""
        at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        records = [
            self._record(release, at + timedelta(seconds=number), utterance, state)
            for number, utterance in enumerate(utterances)
        ]
        put(ProvenanceStore(self.home.provenance_url), *records, segment=f"{day}-{state}.wal")

    def _record(self, release: Release, at: datetime, utterance: str, state: str) -> ProvenanceRecord:
        number = int(at.timestamp())
        return make_record(
            number,
            product=self.product.name,
            release_id=release.release_id,
            answered_at=at,
            utterance=utterance,
            user_sha256=f"{number:064x}",
            features=None,
            answer=json.dumps({"state": state, "reply": "It is on its way."}),
        )

    def report(self, as_of: date = LATER) -> DriftReport:
        return load_drift_report(make_drift_report(self.product, self.snapshot(as_of), self.store, self.home))
