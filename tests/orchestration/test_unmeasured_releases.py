"""A folder edited after the report: what was never measured gets no verdicts, whoever makes the release again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import AssetKey, AssetSelection, DagsterInstance, ExecuteInProcessResult

from assets.continuous_training import job_name
from benchmarks.tiny_product import LAST_COMPLETE_DAY, write_tiny_product
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.products import load_product
from ml_platform.lineage.ledger import Ledger
from tests.samples.trained_here import definitions_training_here

RELEASED = ("gate_verdict", "registered_release", "canary_alias")
BROUGHT = {"version": "1.0.0", "entity": ["parcel_id"], "given": ["days_underway"]}
Edit = Callable[[Path], None]


def run(folder: Path, instance: DagsterInstance, *names: str) -> ExecuteInProcessResult:
    """The whole chain for the last day, or only the named assets, as somebody materializes them in the UI."""
    defs = definitions_training_here([folder])
    job = defs.resolve_job_def(job_name(folder.name))
    if names:
        chosen = AssetSelection.assets(*(AssetKey([folder.name, name]) for name in names))
        job = defs.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection=chosen.resolve(defs.resolve_asset_graph()), asset_check_selection=set()
        )
    return job.execute_in_process(instance=instance, partition_key=LAST_COMPLETE_DAY, raise_on_error=False)


def said(result: ExecuteInProcessResult) -> str:
    """Why the one step that failed did."""
    (found,) = (
        data.user_failure_data.description or ""
        for event in result.all_events
        if event.is_step_failure and (data := event.step_failure_data) and data.user_failure_data
    )
    return found


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a product that ran once, and its home."""
    root = tmp_path_factory.mktemp("measured")
    folder = write_tiny_product(root)
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        patch.setenv("ML_PLATFORM_HOME", str(root / "home"))
        assert run(folder, instance).success
    return root


@pytest.fixture
def desk(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The product's folder and its home, to change."""
    shutil.copytree(measured / "home", tmp_path / "home")
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    return shutil.copytree(measured / "parcel_desk", tmp_path / "parcel_desk")


def ledger_of(desk: Path) -> Ledger:
    return Ledger(Home(desk.parent / "home").ledger_url)


def rewritten(file: str, change: Callable[[dict[str, Any]], None]) -> Edit:
    """An edit of one YAML file of the product."""

    def edit(folder: Path) -> None:
        content = yaml.safe_load((folder / file).read_text()) if (folder / file).exists() else {}
        change(content)
        (folder / file).write_text(yaml.safe_dump(content, sort_keys=False))

    return edit


edit_prompt = rewritten("prompt.yaml", lambda prompt: prompt.update(system="{facts}\nAlways say on_time, in JSON."))


def get_an_action_policy(folder: Path) -> None:
    level = {"level": "lost", "any": [{"fact": "days_underway", "at_least": 9}]}
    policy = {"version": "1.0.0", "field": "state", "levels": [level], "otherwise": "on_time"}
    (folder / "action_policy.yaml").write_text(yaml.safe_dump(policy))
    rewritten("product.yaml", lambda spec: spec["files"].update(action_policy="action_policy.yaml"))(folder)


def get_a_feature(folder: Path) -> None:
    views = {"parcel": {"source": "parcels", "entity": ["parcel_id"], "columns": {"town": "city"}, "ttl_hours": 48}}
    features = {"service": "desk", "views": views}
    (folder / "features.yaml").write_text(yaml.safe_dump(features))
    rewritten("product.yaml", lambda spec: spec["files"].update(features="features.yaml"))(folder)


CHANGED: dict[str, Edit] = {
    "prompt": edit_prompt,
    "evaluation": rewritten("product.yaml", lambda spec: spec["evaluation"]["decoding"].update(max_new_tokens=9)),
    "list of facts": rewritten("product.yaml", lambda spec: spec["examples"].update(facts=["days_underway", "city"])),
    "action policy": get_an_action_policy,
    "features.yaml": get_a_feature,
    "max_utterance_characters": rewritten("guardrails.yaml", lambda rules: rules.update(max_utterance_characters=900)),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_was_changed_after_the_report_gets_no_verdicts_and_moves_nothing(
    desk: Path, instance: DagsterInstance, what: str
) -> None:
    before, releases = ledger_of(desk).state("parcel_desk"), ledger_of(desk).replay("parcel_desk").releases
    CHANGED[what](desk)
    load_product(desk)
    refused = run(desk, instance, *RELEASED)
    assert not refused.success
    assert f"was measured with another {what}" in said(refused)
    assert "Run the chain for this day again" in said(refused)
    assert ledger_of(desk).state("parcel_desk") == before
    assert ledger_of(desk).replay("parcel_desk").releases == releases


@pytest.mark.parametrize("again", [("eval_report", *RELEASED), ()], ids=["the report alone", "the whole chain"])
def test_the_new_prompt_is_released_once_it_was_measured(
    desk: Path, instance: DagsterInstance, again: tuple[str, ...]
) -> None:
    edit_prompt(desk)
    assert not run(desk, instance, *RELEASED).success
    assert run(desk, instance, *again).success
    replay = ledger_of(desk).replay("parcel_desk")
    release = replay.releases[replay.state().slots[SlotName.CANARY]]
    assert release.prompt.content_sha256 == load_product(desk).prompt.sha256


def test_what_no_gate_looks_at_may_change_after_the_report(desk: Path, instance: DagsterInstance) -> None:
    known = set(ledger_of(desk).replay("parcel_desk").releases)
    rewritten("guardrails.yaml", lambda rules: rules.update(safe_reply="Please write to us."))(desk)
    rewritten("monitor_policy.yaml", lambda policy: policy.update(min_coverage=0.6))(desk)
    rewritten("serving.yaml", lambda spec: spec.update(BROUGHT, deadline_ms=5000))(desk)
    rewritten("product.yaml", lambda spec: spec["files"].update(serving="serving.yaml"))(desk)
    assert run(desk, instance, *RELEASED).success
    (new,) = set(ledger_of(desk).replay("parcel_desk").releases) - known
    assert ledger_of(desk).state("parcel_desk").slots == {SlotName.CANARY: new}
