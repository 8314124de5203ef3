"""The chain with real code on a tiny product: what it makes, what it refuses, and what skipping gains."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from dagster import AssetKey, AssetSelection, DagsterInstance, Definitions, ExecuteInProcessResult

from assets.chain import CHAIN
from assets.continuous_training import job_name
from benchmarks.tiny_product import LAST_COMPLETE_DAY
from definitions import platform_definitions
from ml_platform.cli.app import run as mlp
from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.events import ReleaseEligible, ReleaseRegistered
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.slot_moves import CanaryOpened, ReleasePromoted
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.lineage.keys import OPERATORS_VARIABLE, SigningKey
from ml_platform.lineage.ledger import Ledger
from resources.manifests import ManifestIOManager, Value
from tests.samples.trained_here import definitions_training_here


@dataclass(frozen=True)
class Ran:
    """A run of the chain, the definitions it ran, and the home that it wrote to."""

    result: ExecuteInProcessResult
    defs: Definitions
    home: Home
    product: str

    @property
    def values(self) -> Mapping[str, Value]:
        manager = ManifestIOManager(home_path=str(self.home.root))
        there = [name for name in CHAIN if (self.home.manifests / self.product / name).exists()]
        return {name: manager.read(f"{self.product}/{name}", LAST_COMPLETE_DAY) for name in there}

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.home.ledger_url)


def run_chain(folder: Path, home: Path, instance: DagsterInstance, *names: str, checks: bool = True) -> Ran:
    """Runs the whole job for the last day, or only the named assets, with or without their checks."""
    return run_defs(definitions_training_here([folder]), folder, home, instance, *names, checks=checks)


def run_defs(
    defs: Definitions, folder: Path, home: Path, instance: DagsterInstance, *names: str, checks: bool = True
) -> Ran:
    """The same with definitions of one's own."""
    if names:
        chosen = AssetSelection.assets(*(AssetKey([folder.name, name]) for name in names))
        job = defs.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection=chosen.resolve(defs.resolve_asset_graph()), asset_check_selection=None if checks else set()
        )
    else:
        job = defs.resolve_job_def(job_name(folder.name))
    result = job.execute_in_process(instance=instance, partition_key=LAST_COMPLETE_DAY, raise_on_error=False)
    return Ran(result, defs, Home(home), folder.name)


def failures(ran: Ran) -> dict[str, str]:
    """The message for people of every step that failed."""
    return {
        event.step_key or "": data.user_failure_data.description or ""
        for event in ran.result.all_events
        if event.is_step_failure and (data := event.step_failure_data) and data.user_failure_data
    }


def copied(folder: Path, to: Path) -> Path:
    """A product of one's own, to change."""
    return shutil.copytree(folder, to / folder.name)


@pytest.fixture(scope="module")
def good_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def good(tiny_product: Path, good_home: Path) -> Iterator[Ran]:
    """One run of the whole chain as Dagster loads it, training in its own process, that many tests look at."""
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        patch.setenv("ML_PLATFORM_HOME", str(good_home))
        yield run_defs(platform_definitions([tiny_product]), tiny_product, good_home, instance)


def test_a_day_goes_from_its_snapshot_to_an_open_canary(good: Ran) -> None:
    assert good.result.success
    assert set(good.values) == set(CHAIN)
    release_id = good.values["registered_release"].value_sha256
    state = good.ledger.state(good.product)
    assert state.slots == {SlotName.CANARY: release_id}
    assert state.releases[release_id] is ReleaseState.CANARY
    assert good.values["canary_alias"].facts["outcome"].startswith("canary open at 5")


def test_every_value_names_artifacts_that_verify_and_belong_together(good: Ran) -> None:
    store, values = LocalArtifactStore(good.home.artifacts), good.values
    for name in ("snapshot", "training_set", "candidate", "eval_report"):
        assert store.open(name, values[name].value_sha256).facts == values[name].facts
    assert values["training_set"].facts["snapshot_sha256"] == values["snapshot"].value_sha256
    assert values["candidate"].facts["training_set_sha256"] == values["training_set"].value_sha256
    assert values["eval_report"].facts["candidate_sha256"] == values["candidate"].value_sha256
    release = good.ledger.replay(good.product).releases[values["registered_release"].value_sha256]
    assert release.data.snapshot_sha256 == values["snapshot"].value_sha256
    assert release.model.candidate_sha256 == values["candidate"].value_sha256


def test_data_versions_are_the_digests_of_what_was_made(good: Ran) -> None:
    found = {
        event.asset_key.path[-1]: event.step_materialization_data.materialization.tags
        for event in good.result.all_events
        if event.is_step_materialization and event.asset_key is not None
    }
    for name, value in good.values.items():
        assert (found[name] or {})["dagster/data_version"] == value.value_sha256


def test_people_see_tables_pictures_and_the_report_on_the_asset_pages(good: Ran) -> None:
    shown = {
        event.asset_key.path[-1]: event.step_materialization_data.materialization.metadata
        for event in good.result.all_events
        if event.is_step_materialization and event.asset_key is not None
    }
    assert "| `parcels` | 90 | 0 | 0 |" in str(shown["snapshot"]["tables"].value)
    assert "Where is my parcel" in str(shown["training_set"]["first_example"].value)
    assert "data:image/svg+xml" in str(shown["candidate"]["loss"].value)
    assert Path(str(shown["eval_report"]["report_html"].value)).read_text().lower().startswith("<!doctype html>")
    assert "not_worse_than_production" in str(shown["gate_verdict"]["gates"].value)
    assert shown["registered_release"]["mlflow_version"].value == "1"
    nothing = f"{good.product} has neither features nor lookups: nothing to publish"
    assert shown["online_features"]["outcome"].value == nothing


def test_running_again_reuses_everything_and_moves_nothing(good: Ran, tiny_product: Path) -> None:
    before, epoch = dict(good.values), good.ledger.state(good.product).epoch
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        patch.setenv("ML_PLATFORM_HOME", str(good.home.root))
        again = run_chain(tiny_product, good.home.root, instance)
    assert again.result.success
    assert {name: value.value_sha256 for name, value in again.values.items() if name != "canary_alias"} == {
        name: value.value_sha256 for name, value in before.items() if name != "canary_alias"
    }
    reused = [
        event.step_materialization_data.materialization.metadata["reused"].value
        for event in again.result.all_events
        if event.is_step_materialization
        if "reused" in event.step_materialization_data.materialization.metadata
    ]
    assert reused == [True, True, True, True]
    assert again.ledger.state(good.product).epoch == epoch
    assert again.values["canary_alias"].facts["outcome"].startswith("canary was already open")


def test_rows_that_break_their_declaration_stop_the_chain_and_leave_what_was_published(
    tmp_path: Path, tiny_product: Path, home: Path, instance: DagsterInstance
) -> None:
    folder = copied(tiny_product, tmp_path)
    assert run_chain(folder, home, instance, "snapshot").result.success
    published = (home / "manifests" / folder.name / "snapshot" / f"{LAST_COMPLETE_DAY}.json").read_bytes()
    rows = (folder / "parcels.csv").read_text().splitlines()
    (folder / "parcels.csv").write_text("\n".join([rows[0], *(f"{row.split(',')[0]},,,," for row in rows[1:])]))
    ran = run_chain(folder, home, instance)
    assert not ran.result.success
    assert list(failures(ran)) == [f"{folder.name}__snapshot"]
    assert "parcels.csv" in failures(ran)[f"{folder.name}__snapshot"]
    assert (home / "manifests" / folder.name / "snapshot" / f"{LAST_COMPLETE_DAY}.json").read_bytes() == published
    assert set(ran.values) == {"snapshot"}


def with_an_expectation_that_fails(folder: Path) -> Path:
    """No parcel may be underway for more than five days, says the product now; many are."""
    spec = yaml.safe_load((folder / "product.yaml").read_text())
    spec["files"]["expectations"] = "expectations.yaml"
    (folder / "product.yaml").write_text(yaml.safe_dump(spec))
    expectation = {
        "expect": "column_values_to_be_between",
        "arguments": {"column": "days_underway", "min_value": 0, "max_value": 5},
        "why": "parcels arrive within a working week",
    }
    suite = {"version": "1.0.0", "tables": {"parcels": [expectation]}}
    (folder / "expectations.yaml").write_text(yaml.safe_dump(suite))
    return folder


def test_a_failed_check_blocks_what_is_downstream_and_shows_the_rows(
    tmp_path: Path, tiny_product: Path, home: Path, instance: DagsterInstance
) -> None:
    folder = with_an_expectation_that_fails(copied(tiny_product, tmp_path))
    ran = run_chain(folder, home, instance)
    assert not ran.result.success
    assert set(ran.values) == {"snapshot"}
    (check,) = ran.result.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.partition) == ("schema_valid", False, LAST_COMPLETE_DAY)
    rows = check.metadata["first_failing_rows"].records  # type: ignore[union-attr]
    assert rows
    assert "days_underway" in json.dumps([dict(row.data) for row in rows])


def test_skipping_the_checks_gains_nothing_for_the_gates_measure_them_again(
    tmp_path: Path, tiny_product: Path, home: Path, instance: DagsterInstance
) -> None:
    folder = with_an_expectation_that_fails(copied(tiny_product, tmp_path))
    ran = run_chain(folder, home, instance, *CHAIN, checks=False)
    assert ran.result.success
    assert not ran.result.get_asset_check_evaluations()
    assert ran.values["gate_verdict"].facts["verdict"] == "held: schema_valid"
    assert ran.values["canary_alias"].facts["outcome"] == "held: schema_valid"
    release_id = ran.values["registered_release"].value_sha256
    state = ran.ledger.state(ran.product)
    assert state.slots == {}
    assert state.releases[release_id] is ReleaseState.HELD


def test_a_manifest_that_names_what_does_not_exist_is_refused(
    tmp_path: Path, tiny_product: Path, home: Path, instance: DagsterInstance
) -> None:
    folder = copied(tiny_product, tmp_path)
    assert run_chain(folder, home, instance, "snapshot").result.success
    path = home / "manifests" / folder.name / "snapshot" / f"{LAST_COMPLETE_DAY}.json"
    forged = json.loads(path.read_text())
    forged["value"]["value_sha256"] = "0" * 64
    path.write_text(json.dumps(forged))
    ran = run_chain(folder, home, instance, "training_set")
    assert "snapshot 000000000000 is missing" in failures(ran)[f"{folder.name}__training_set"]


def test_a_loosened_policy_moves_nothing_until_an_operator_pins_it(
    good: Ran, tiny_product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: DagsterInstance
) -> None:
    home = Home(shutil.copytree(good.home.root, tmp_path / "home"))
    folder = copied(tiny_product, tmp_path / "products")
    path = folder / "promotion_policy.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"evidence_valid_days": 3000}))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home.root))
    monkeypatch.setenv("ML_PLATFORM_PRODUCTS", str(folder))
    before = good.ledger.state(good.product).slots
    ran = run_chain(folder, home.root, instance, "gate_verdict", "registered_release", "canary_alias")
    release_id = ran.values["registered_release"].value_sha256
    assert ran.values["canary_alias"].facts["outcome"] == "held: policy_pinned"
    (moved,) = ran.result.asset_materializations_for_node(f"{good.product}__canary_alias")
    assert "mlp policy pin" in str(moved.metadata["held_by"].value)
    assert ran.ledger.state(good.product).slots == before != {SlotName.CANARY: release_id}
    assert mlp(["policy", "pin", good.product, "--reason", "we are sure"]) == 0
    ran = run_chain(folder, home.root, instance, "canary_alias")
    assert ran.ledger.state(good.product).slots == {SlotName.CANARY: release_id}


def test_a_key_that_is_no_operators_pins_nothing_and_the_canary_waits_for_one_that_is(
    good: Ran, tiny_product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: DagsterInstance
) -> None:
    """The home made itself a key on the laptop; in production the operators are others."""
    home = Home(shutil.copytree(good.home.root, tmp_path / "home"))
    for path in home.root.glob("ledger.sqlite*"):
        path.unlink()
    assert (home.keys / "operator_key.pem").exists()
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home.root))
    monkeypatch.setenv(OPERATORS_VARIABLE, SigningKey.generate().public.public_key)
    ran = run_chain(tiny_product, home.root, instance, "gate_verdict", "registered_release", "canary_alias")
    assert failures(ran) == {}
    assert ran.values["canary_alias"].facts["outcome"] == "held: policy_pinned"


def test_a_missing_upstream_day_is_named_with_what_to_materialize(
    tiny_product: Path, home: Path, instance: DagsterInstance
) -> None:
    ran = run_chain(tiny_product, home, instance, "training_set")
    said = failures(ran)[f"{tiny_product.name}__training_set"]
    assert f"Materialize {tiny_product.name}/snapshot for {LAST_COMPLETE_DAY} first" in said


def test_a_past_day_is_compared_with_production_and_moves_nothing(
    good: Ran, tiny_product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: DagsterInstance
) -> None:
    home = Home(shutil.copytree(good.home.root, tmp_path / "home"))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home.root))
    serving = good.values["registered_release"].value_sha256
    ledger = Ledger(home.ledger_url)
    with ledger.write(good.product, datetime.now(UTC), "test") as transaction:
        transaction.append(ReleasePromoted(release_id=serving))
    past = "2024-01-29"
    job = definitions_training_here([tiny_product]).resolve_job_def(job_name(tiny_product.name))
    assert job.execute_in_process(instance=instance, partition_key=past).success
    manager = ManifestIOManager(home_path=str(home.root))
    assert manager.read(f"{good.product}/eval_report", past).facts["reference"] == serving
    outcome = manager.read(f"{good.product}/canary_alias", past).facts["outcome"]
    assert outcome == f"held: older than the release in production, which is of {LAST_COMPLETE_DAY}"
    assert ledger.state(good.product).slots == {SlotName.PRODUCTION: serving}


def test_a_candidate_is_not_measured_against_what_was_written_into_production(
    good: Ran, tiny_product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: DagsterInstance
) -> None:
    """No key is needed to append such rows, and the worst candidate is no worse than what nobody measured."""
    home = Home(shutil.copytree(good.home.root, tmp_path / "home"))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home.root))
    ledger, now = Ledger(home.ledger_url), datetime.now(UTC)
    canary = ledger.replay(good.product).releases[good.values["registered_release"].value_sha256]
    bad = canary.model_copy(update={"model": canary.model.model_copy(update={"candidate_sha256": "b" * 64})})
    said = ReleaseEligible(
        release_id=bad.release_id,
        policy_sha256=bad.promotion_policy.content_sha256,
        expires_at=now + timedelta(days=9),
    )
    with ledger.write(good.product, now, "mallory") as transaction:
        transaction.append(ReleasePromoted(release_id=canary.release_id))
        transaction.append(ReleaseRegistered(release=bad))
        transaction.append(said)
        transaction.append(CanaryOpened(release_id=bad.release_id, step=1, exposure=0.05))
        transaction.append(ReleasePromoted(release_id=bad.release_id))
    ran = run_chain(tiny_product, home.root, instance, "eval_report")
    assert f"production {bad.release_id[:12]} was never proven" in failures(ran)[f"{good.product}__eval_report"]
