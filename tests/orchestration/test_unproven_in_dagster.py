"""Forged Dagster events: whoever reports materializations and checks without having run anything moves no slot."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetKey,
    AssetMaterialization,
    AssetSelection,
    DagsterInstance,
    ExecuteInProcessResult,
)

from assets.chain import CHAIN
from benchmarks.tiny_product import LAST_COMPLETE_DAY
from definitions import platform_definitions
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import load_product
from ml_platform.contracts.release import Release
from ml_platform.lineage.artifacts import write_atomically
from ml_platform.lineage.keys import operator_key, trusted_keys, trusted_operators
from ml_platform.lineage.ledger import Ledger
from ml_platform.release.assemble import gate_producer
from ml_platform.release.controller import Controller
from resources.manifests import AssetManifest, ManifestIOManager, Value
from tests.samples.releases import make_release


def forge_events(instance: DagsterInstance, product: str, release_id: str) -> None:
    """All that a whole successful run would have told, reported by hand."""
    tags = {"dagster/data_version": release_id}
    for name in CHAIN[:-1]:
        said = {"release_id": release_id, "verdict": "accepted"}
        key = AssetKey([product, name])
        instance.report_runless_asset_event(
            AssetMaterialization(key, metadata=said, partition=LAST_COMPLETE_DAY, tags=tags)
        )
        instance.report_runless_asset_event(
            AssetCheckEvaluation(
                asset_key=key, check_name="schema_valid", passed=True, metadata={}, partition=LAST_COMPLETE_DAY
            )
        )


def forge_manifest(home: Home, product: str, release_id: str) -> None:
    """The file that the canary asset reads, as the step before it would have written it."""
    asset = f"{product}/registered_release"
    value = Value(kind="release", value_sha256=release_id, facts={"verdict": "accepted"})
    manifest = AssetManifest(asset=asset, partition=LAST_COMPLETE_DAY, value=value)
    path = home.manifests / asset / f"{LAST_COMPLETE_DAY}.json"
    path.parent.mkdir(parents=True)
    write_atomically(path, manifest.canonical_bytes())


def materialize_canary(folder: Path, instance: DagsterInstance) -> ExecuteInProcessResult:
    """The canary asset alone, as somebody would click it."""
    defs = platform_definitions([folder])
    chosen = AssetSelection.assets(AssetKey([folder.name, "canary_alias"]))
    job = defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=chosen.resolve(defs.resolve_asset_graph())
    )
    return job.execute_in_process(instance=instance, partition_key=LAST_COMPLETE_DAY, raise_on_error=False)


def why_failed(result: ExecuteInProcessResult) -> str:
    said = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return " ".join(one.user_failure_data.description or "" for one in said if one and one.user_failure_data)


@pytest.fixture
def unproven(tiny_product: Path) -> Release:
    """A release of the product under its own policy, which nobody ever measured."""
    return make_release(policy=load_product(tiny_product).promotion_policy, product=tiny_product.name)


def test_forged_events_are_read_by_nobody(
    tiny_product: Path, home: Path, instance: DagsterInstance, unproven: Release
) -> None:
    """The canary asset reads its upstream's file, and no event stands in for it."""
    forge_events(instance, tiny_product.name, unproven.release_id)
    result = materialize_canary(tiny_product, instance)
    assert not result.success
    assert f"Materialize {tiny_product.name}/registered_release for {LAST_COMPLETE_DAY} first" in why_failed(result)
    assert Ledger(Home(home).ledger_url).state(tiny_product.name).slots == {}


def test_a_forged_manifest_of_a_release_that_the_ledger_does_not_know_is_refused(
    tiny_product: Path, home: Path, instance: DagsterInstance, unproven: Release
) -> None:
    forge_events(instance, tiny_product.name, unproven.release_id)
    forge_manifest(Home(home), tiny_product.name, unproven.release_id)
    result = materialize_canary(tiny_product, instance)
    assert not result.success
    sentence = f"release {unproven.release_id[:12]} of {tiny_product.name} is not in the ledger"
    assert sentence in why_failed(result)
    assert Ledger(Home(home).ledger_url).state(tiny_product.name).slots == {}


def test_a_forged_manifest_of_a_release_without_evidence_is_held_by_every_gate(
    tiny_product: Path, home: Path, instance: DagsterInstance, unproven: Release
) -> None:
    """Registered by hand, pinned policy, forged events, forged file: the ledger has no evidence, and nothing opens."""
    here, product, now = Home(home), load_product(tiny_product), datetime.now(UTC)
    operator = operator_key(here)
    assert operator is not None
    controller = Controller(Ledger(here.ledger_url), trusted_keys(here), gate_producer(), trusted_operators(here))
    controller.pin_policy(product.name, product.promotion_policy, operator, "a test", now, "forger")
    controller.register_release(unproven, product.promotion_policy, now, "forger")
    forge_events(instance, product.name, unproven.release_id)
    forge_manifest(here, product.name, unproven.release_id)
    result = materialize_canary(tiny_product, instance)
    assert result.success, "a held canary is history too"
    moved = ManifestIOManager(home_path=str(home)).read(f"{product.name}/canary_alias", LAST_COMPLETE_DAY)
    assert moved.facts["outcome"] == f"held: {', '.join(product.promotion_policy.gate_names)}"
    assert moved.facts["slots"] == controller.state(product.name).slots == {}
