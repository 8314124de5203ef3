"""Whoever may write the artifact store cannot have a measurement of their own signed: the held release stays held."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance, ExecuteInProcessResult

from assets.continuous_training import job_name
from benchmarks.tiny_product import LAST_COMPLETE_DAY, write_tiny_product
from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.home import Home
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.lineage.attested import NAMED_BY_CONTENT, STATEMENT, AttestedStore
from ml_platform.lineage.ledger import Ledger
from tests.samples.trained_here import definitions_training_here

Change = Callable[[Path], None]
TRAINED_ELSEWHERE = "candidate"
"""Training may run where no key is; the gates measure the very bytes of what came of it."""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a product whose only release is held, for its answers are no JSON and come too late."""
    root = tmp_path_factory.mktemp("held")
    folder = write_tiny_product(root)
    policy = yaml.safe_load((folder / "promotion_policy.yaml").read_text())
    policy["gates"][-1]["at_most"] = 0.5
    valid = {"kind": "threshold", "gate": "valid", "claim": "Answers are JSON.", "metric": "json_valid"}
    policy["gates"].append(valid | {"at_least": 0.5, "min_n": 5})
    (folder / "promotion_policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        patch.setenv("ML_PLATFORM_HOME", str(root / "home"))
        assert run(folder, instance).success
    return root


@pytest.fixture
def desk(held: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The product's folder, and beside it its home, for somebody to write to."""
    shutil.copytree(held / "home", tmp_path / "home")
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    return shutil.copytree(held / "parcel_desk", tmp_path / "parcel_desk")


def run(folder: Path, instance: DagsterInstance) -> ExecuteInProcessResult:
    job = definitions_training_here([folder]).resolve_job_def(job_name(folder.name))
    return job.execute_in_process(instance=instance, partition_key=LAST_COMPLETE_DAY)


def home_of(desk: Path) -> Home:
    return Home(desk.parent / "home")


def made(home: Home) -> dict[str, set[str]]:
    """The digests of what is found by recipe, by kind."""
    found: dict[str, set[str]] = {}
    for index in home.artifacts.glob("*/by_recipe/*"):
        found.setdefault(index.parts[-3], set()).add(index.read_text())
    return found


def forge(home: Home, kind: str, change: Change) -> None:
    """Puts a changed copy of the one artifact of that kind below its recipe, with digests that fit."""
    (sha256,) = made(home)[kind]
    store = LocalArtifactStore(home.artifacts)
    honest = store.open(kind, sha256)

    def build(folder: Path) -> dict[str, Any]:
        shutil.copytree(honest.path, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        change(folder)
        return honest.facts

    forged = store.make(kind, honest.manifest.recipe, build, lambda _: False)
    assert made(home)[kind] == {forged.sha256} != {sha256}


def praise(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    better = {"json_valid": 1.0, "latency_p95_ms": 0.1}
    for one in report["measurements"]:
        if not one["slice"] and one["metric"] in better:
            one.update(value=better[one["metric"]], low=better[one["metric"]], high=better[one["metric"]])
    (folder / "report.json").write_text(json.dumps(report))


def answer_in_json(folder: Path) -> None:
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    said = json.dumps({"state": "on_time", "reply": "Soon."})
    lines = [json.dumps(answer | {"text": said, "finished": True}) for answer in answers]
    (folder / "answers.jsonl").write_text("".join(f"{line}\n" for line in lines))


def hurry(folder: Path) -> None:
    (folder / "latencies.json").write_text("[0.1,0.1]")


@pytest.mark.parametrize(
    "forged",
    [{"eval_report": praise}, {"candidate_answers": answer_in_json, "latencies": hurry}],
    ids=["the report", "answers and latencies"],
)
def test_a_forged_measurement_is_measured_anew_and_leaves_the_release_held(
    desk: Path, instance: DagsterInstance, forged: dict[str, Change]
) -> None:
    home = home_of(desk)
    for kind, change in forged.items():
        forge(home, kind, change)
    lies = {kind: made(home)[kind] for kind in forged}
    assert run(desk, instance).success
    state = Ledger(home.ledger_url).replay("parcel_desk").state()
    assert not state.slots
    assert set(state.releases.values()) == {ReleaseState.HELD}
    assert all(made(home)[kind].isdisjoint(lies[kind]) for kind in forged)


def test_everything_that_the_chain_finds_again_is_signed_and_nothing_is_made_twice(
    desk: Path, instance: DagsterInstance
) -> None:
    home = home_of(desk)
    before, ours = made(home), AttestedStore(LocalArtifactStore(home.artifacts), home)
    assert run(desk, instance).success
    assert made(home) == before

    unsigned = {
        kind
        for kind, found in before.items()
        if not all(ours.is_attested(opened(home, kind, sha256)) for sha256 in found)
    }
    assert unsigned == {TRAINED_ELSEWHERE, STATEMENT, *NAMED_BY_CONTENT & before.keys()}


def opened(home: Home, kind: str, sha256: str) -> Artifact:
    return LocalArtifactStore(home.artifacts).open(kind, sha256)
