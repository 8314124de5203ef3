"""The acts of the demonstration that move releases: real gateway, shipper and controller, an engine of rules.

Training, drift reports and the sensor's run have tests of their own, and `make demo` plays them all.
"""

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ml_platform.cli.demonstration.board import Board, Watcher
from ml_platform.cli.demonstration.page import write_page
from ml_platform.cli.demonstration.plan import DemoPlan, read_plan
from ml_platform.cli.demonstration.planting import controller_of
from ml_platform.cli.demonstration.processes import Processes
from ml_platform.cli.demonstration.stage import Stage
from ml_platform.cli.demonstration.story import Story, Told
from ml_platform.cli.demonstration.variant import write_variant
from ml_platform.cli.environment import child_environment
from ml_platform.contracts.drift import DriftReport
from ml_platform.contracts.events import EventKind
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.products import Product, load_product
from ml_platform.contracts.release import FeaturesPart, Release, VersionedPart
from ml_platform.features.definitions import definitions_sha256
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.lineage.contents import keep_contents
from ml_platform.lineage.keys import operator_key, signing_key
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.looks import LookStore
from ml_platform.snapshots.extract import take_snapshot
from tests.samples.releases import inputs_of, make_release, make_results

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE = CHECKOUT / "products" / "flight_assistant"
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def plan() -> DemoPlan:
    return read_plan(SOURCE)


class RuledStage(Stage):
    """The stage, but for the trained model: releases are made at once, drift is told, an engine of rules answers."""

    def run_chain(self, as_of: date) -> str:
        return proven_release(self.home, self.product, as_of, "base")

    def report_drift(self, day: date) -> DriftReport:
        return DriftReport.parse(drift_of(self.form.product, day), where="a test")

    def start_daemon(self) -> None:
        self.processes.states()

    def end_daemon(self) -> None:
        self.processes.states()

    def wait_for_release(self, known: set[str], *, minutes: int) -> str:  # noqa: ARG002 - as Stage has it
        (good,) = self.state().slots.values()
        return proven_release(self.home, self.product, self.form.looks[-1], good)

    def _start(self, name: str, *arguments: str) -> None:
        if name != "engine":
            super()._start(name, *arguments)
            return
        port, base = arguments[arguments.index("--port") + 1], self.product.spec.training.base_model
        self.processes.start(name, [sys.executable, "-m", "tests.samples.ruled_engine", port, base])


@pytest.fixture
def stage(plan: DemoPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Iterator[RuledStage]:
    fault, home = plan.fault(request.param), Home(tmp_path / "home")
    folder = write_variant(SOURCE, plan.short, tmp_path / "products")
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home.root))
    monkeypatch.setenv("ML_PLATFORM_PRODUCTS", str(folder.parent))
    home.dagster.mkdir(parents=True)  # as the chain leaves it, which is not run here
    board, store = Board(plan.short.product, fault.title), LocalArtifactStore(home.artifacts)
    with Processes(CHECKOUT, child_environment(home), tmp_path / "logs") as processes:
        product = load_product(folder)
        yield RuledStage(home, CHECKOUT, plan.short, fault, board, processes, product, store, Ledger(home.ledger_url))


@pytest.mark.parametrize("stage", ["skewed_feature", "worse_prompt", "slow", "unsafe"], indirect=True)
def test_the_bad_release_is_stopped_by_proof_and_the_good_one_promoted(stage: RuledStage) -> None:
    told = played(stage)
    events = {kind: [one for one in stage.ledger.events(stage.form.product) if one.kind is kind] for kind in EventKind}
    (aborted,) = events[EventKind.CANARY_ABORTED]
    assert aborted.payload["release_id"] == told.bad
    assert "controller" in aborted.actor
    assert told.identical
    assert told.during is not None
    assert told.before is not None
    assert told.during.text != told.before.text or stage.fault.padding_times
    promoted = events[EventKind.RELEASE_PROMOTED][-1]
    assert (promoted.payload["release_id"], promoted.actor.split()[0]) == (told.new, "controller")
    assert stage.state().slots == {SlotName.PRODUCTION: told.new}
    assert stage.state().frozen is not None
    (asked,) = [note.text for note in stage.board.notes if note.text.startswith("the sensor, asked now")]
    assert "Frozen" in asked
    decided = [one.payload["decision"] for one in events[EventKind.DECISION_RECORDED]]
    assert {"abort", "promote"} <= {one["action"] for one in decided}
    assert all(one["readings"] or one["breaches"] for one in decided if one["action"] in ("abort", "promote"))
    assert any(one["breaches"] for one in decided) == ("fast path" in stage.fault.seen_by)
    page = write_page(stage.home, stage.board, told, stage.form, stage.fault).read_text()
    numbers = {int(found) for found in re.findall(r'<td class="time">#(\d+)', page)}
    assert numbers == set(range(1, stage.ledger.replay(stage.form.product).sequence + 1))


def played(stage: RuledStage) -> Told:
    story = Story(stage)
    with Watcher(stage.board, Ledger(stage.home.ledger_url), LookStore(stage.home.monitoring_url), show=lambda: None):
        return story.play()


def proven_release(home: Home, product: Product, as_of: date, reference: str) -> str:
    """A release of the variant that passed every gate, as the canary; its adapter holds nothing."""
    store, now = LocalArtifactStore(home.artifacts), datetime.now(UTC)
    snapshot = take_snapshot(product, as_of, store)
    keep_contents(store, product)

    def build(folder: Path) -> dict[str, Any]:
        (folder / "adapter").mkdir()
        weights = {"lora_A": np.full((4, 8), float(as_of.month), np.float32)}
        save_file(weights, folder / "adapter" / "adapter_model.safetensors")
        (folder / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
        return {"month": as_of.month}

    candidate = store.make("candidate", {"month": as_of.month}, build)
    plain = make_release(as_of, as_of.month, product.promotion_policy, product.name).model_dump()
    plain["data"]["snapshot_sha256"] = snapshot.sha256
    assert product.features is not None
    plain["features"] = FeaturesPart(service=product.features.service, definitions_sha256=definitions_sha256(product))
    plain["model"] |= {
        "base_model": product.spec.training.base_model,
        "candidate_sha256": candidate.sha256,
        "adapter_sha256": candidate.manifest.files["adapter/adapter_model.safetensors"].file_sha256,
    }
    for name in ("prompt", "guardrails", "action_policy", "promotion_policy", "monitor_policy"):
        content = getattr(product, name)
        plain[name] = VersionedPart(version=content.version, content_sha256=content.sha256)
    plain["serving"] = VersionedPart(version=product.serving.version, content_sha256=product.serving_content.sha256)
    release, key, operator = Release.model_validate(plain), signing_key(home), operator_key(home)
    assert operator is not None
    door, policy = controller_of(home), product.promotion_policy
    door.pin_policy(product.name, policy, operator, "a test", now, "a test", only_first=True)
    door.register_release(release, policy, now, "a test")
    said = door.record_verdicts(release, make_results(policy), inputs_of(release, reference), key, now, "a test")
    assert said.eligible, said.reasons
    door.open_canary(product.name, release.release_id, now, "a test")
    return release.release_id


def drift_of(product: str, day: date) -> dict[str, Any]:
    """A report that proves drift from June on."""
    verdict = "FAIL" if day.month >= 6 else "PASS"
    return {
        "product": product,
        "as_of": day.isoformat(),
        "window_from": "2013-06-02T00:00:00Z",
        "window_until": "2013-06-30T00:00:00Z",
        "verdict": verdict,
        "reason": "as the test wants it",
        "effect": 1.5,
        "release_id": None,
        "reference_as_of": None,
        "reference_snapshot_sha256": None,
        "current_snapshot_sha256": "a" * 64,
        "monitor_policy_sha256": "b" * 64,
        "parts": [{"part": "features", "verdict": verdict, "reason": "told", "effect": 1.5}],
    }
