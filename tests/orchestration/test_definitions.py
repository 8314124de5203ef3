"""The code location: what it holds, what it costs to load, and what it does with a broken product."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from dagster import (
    AssetKey,
    BackfillPolicy,
    DagsterInstance,
    DagsterInvalidSubsetError,
    DefaultScheduleStatus,
    Definitions,
    RunRequest,
    build_schedule_context,
)
from dagster._core.workspace.load import location_origins_from_yaml_paths

import definitions
from assets.candidate import TrainingOverrides
from assets.chain import CHAIN, Chain
from assets.release import canary_asset
from definitions import platform_definitions
from ml_platform.contracts.product import TrainingSpec
from ml_platform.contracts.products import load_product
from resources.state import PROJECT

HEAVY = ("torch", "transformers", "feast", "evidently", "great_expectations", "mlflow", "pandas", "dagster_k8s")

FRESH_LOAD = f"""
import json, sys, time
began = time.perf_counter()
import definitions
took = time.perf_counter() - began
heavy = [name for name in {HEAVY!r} if name in sys.modules]
keys = [key.to_user_string() for key in definitions.defs.resolve_asset_graph().get_all_asset_keys()]
print(json.dumps({{"heavy": heavy, "keys": keys, "seconds": took}}))
"""


@pytest.fixture(scope="module")
def flights() -> Definitions:
    return platform_definitions([PROJECT / "products" / "flight_assistant"])


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain(load_product(PROJECT / "products" / "flight_assistant"))


def test_loading_imports_no_heavy_library_and_finds_every_product() -> None:
    done = subprocess.run([sys.executable, "-c", FRESH_LOAD], cwd=PROJECT, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert loaded["heavy"] == []
    assert {f"flight_assistant/{name}" for name in CHAIN} <= set(loaded["keys"])


def test_the_chain_is_the_one_that_the_design_draws(flights: Definitions) -> None:
    graph = flights.resolve_asset_graph()
    above = {
        key.path[-1]: sorted(parent.path[-1] for parent in graph.get(key).parent_keys)
        for key in graph.get_all_asset_keys()
    }
    assert above == {
        "snapshot": [],
        "training_set": ["snapshot"],
        "candidate": ["training_set"],
        "eval_report": ["candidate"],
        "gate_verdict": ["eval_report"],
        "registered_release": ["gate_verdict"],
        "canary_alias": ["registered_release"],
        "online_features": ["registered_release"],
        "drift_report": ["snapshot"],
        "live_window": [],
        "quality_report": ["live_window"],
    }


def test_every_asset_says_what_it_is_and_whose(flights: Definitions) -> None:
    graph = flights.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.group_name == "flight_assistant"
        assert node.owners == ["team:flight-assistant"]
        assert node.kinds, key
        assert node.code_version, key
        assert node.freshness_policy is not None, key
        assert len(node.description or "") > 60, key


def test_every_check_stands_beside_its_asset_and_knows_its_day(flights: Definitions, chain: Chain) -> None:
    graph = flights.resolve_asset_graph()
    checks = {key: graph.get_check_spec(key) for key in graph.asset_check_keys}
    assert {(key.asset_key.path[-1], key.name): spec.blocking for key, spec in checks.items()} == {
        ("snapshot", "schema_valid"): True,
        ("training_set", "no_leakage"): True,
        ("candidate", "adapter_verifies"): True,
        ("eval_report", "gates_pass"): False,
    }
    assert {spec.partitions_def for spec in checks.values()} == {chain.partitions}


def test_a_verdict_cannot_be_materialized_without_its_release(flights: Definitions, instance: DagsterInstance) -> None:
    job = flights.resolve_implicit_global_asset_job_def()
    with pytest.raises(DagsterInvalidSubsetError):
        job.execute_in_process(
            instance=instance,
            partition_key="2013-03-31",
            asset_selection=[AssetKey(["flight_assistant", "registered_release"])],
        )


def test_days_run_from_the_first_as_of_to_the_last_complete_day(chain: Chain) -> None:
    noon = datetime(2026, 5, 4, 12, tzinfo=UTC)
    days = chain.partitions
    assert days.get_first_partition_key() == "2013-02-01"
    assert days.has_partition_key("2013-03-31")
    assert not days.has_partition_key("2013-01-31")
    assert days.get_partition_keys(current_time=noon)[-1] == "2026-05-03"


def test_no_gated_asset_runs_many_days_as_one(flights: Definitions) -> None:
    graph = flights.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        assert graph.get(key).backfill_policy != BackfillPolicy.single_run()


def test_training_is_limited_by_a_pool_that_no_launch_path_drops(flights: Definitions) -> None:
    graph = flights.resolve_asset_graph()
    assert graph.get(AssetKey(["flight_assistant", "candidate"])).pools == {"flight_assistant__training"}


def test_each_hyperparameter_can_be_overridden_and_no_other() -> None:
    assert set(TrainingOverrides.model_fields) == set(TrainingSpec.model_fields)


def test_overrides_are_checked_like_product_yaml(chain: Chain) -> None:
    from ml_platform.errors import ContractError

    spec = chain.product.spec.training
    assert TrainingOverrides().applied_to(spec) == spec
    assert TrainingOverrides(learning_rate=0.5).applied_to(spec).learning_rate == 0.5
    with pytest.raises(ContractError, match=r"run config of the candidate: key 'rank'"):
        TrainingOverrides(rank=0).applied_to(spec)


def test_a_changed_threshold_dates_the_verdict_and_not_the_training_set(tmp_path: Path, tiny_product: Path) -> None:
    folder = shutil.copytree(tiny_product, tmp_path / tiny_product.name)
    before = {node.key: node.code_version for node in platform_definitions([folder]).resolve_asset_graph().asset_nodes}
    policy = yaml.safe_load((folder / "promotion_policy.yaml").read_text())
    policy["gates"][-1]["at_most"] = 5
    (folder / "promotion_policy.yaml").write_text(yaml.safe_dump(policy))
    after = {node.key: node.code_version for node in platform_definitions([folder]).resolve_asset_graph().asset_nodes}
    changed = {key.path[-1] for key in before if before[key] != after[key]}
    assert changed == {"gate_verdict", "registered_release"}


def test_a_broken_product_shows_its_error_and_takes_no_other_down(
    tmp_path: Path, tiny_product: Path, home: Path, instance: DagsterInstance
) -> None:
    broken = shutil.copytree(tiny_product, tmp_path / "broken-desk")
    (broken / "product.yaml").write_text((tiny_product / "product.yaml").read_text().replace("owner:", "ownr:"))
    defs = platform_definitions([broken, tiny_product])
    graph = defs.resolve_asset_graph()
    shown = AssetKey(["broken_desk", "cannot_be_read"])
    assert [key for key in graph.get_all_asset_keys() if key.path[0] == "broken_desk"] == [shown]
    assert {AssetKey(["parcel_desk", name]) for name in CHAIN} <= graph.get_all_asset_keys()
    description = graph.get(shown).description or ""
    assert f"{broken}/product.yaml: unknown key 'ownr': did you mean 'owner'?" in description
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[shown], raise_on_error=False
    )
    assert not result.success


def test_whatever_keeps_a_chain_from_being_built_takes_no_other_down(
    tmp_path: Path, tiny_product: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = load_product(shutil.copytree(tiny_product, tmp_path / tiny_product.name))
    never = odd.spec.model_copy(update={"max_staleness_days": 1e9})
    monkeypatch.setattr(
        definitions,
        "load_product",
        lambda folder: replace(odd, spec=never) if folder == odd.folder else load_product(folder),
    )
    flights = PROJECT / "products" / "flight_assistant"
    graph = platform_definitions([odd.folder, flights]).resolve_asset_graph()
    assert "OverflowError" in (graph.get(AssetKey(["parcel_desk", "cannot_be_read"])).description or "")
    assert AssetKey(["flight_assistant", "candidate"]) in graph.get_all_asset_keys()


def test_the_lock_of_an_editor_beside_a_hook_takes_no_product_down(tmp_path: Path, tiny_product: Path) -> None:
    """Emacs keeps one as a link to nothing for as long as the file is edited."""
    folder = shutil.copytree(tiny_product, tmp_path / tiny_product.name)
    (folder / ".#facts.py").symlink_to("ann@desk.4711:1766000000")
    (folder / "facts.py").mkdir()
    graph = platform_definitions([folder]).resolve_asset_graph()
    assert {AssetKey(["parcel_desk", name]) for name in CHAIN} <= graph.get_all_asset_keys()


@pytest.mark.parametrize(
    ("owner", "shown"),
    [
        ("Parcel Desk", "team:parcel-desk"),
        ("team:a_b", "team:a_b"),
        ("ann@example.com", "ann@example.com"),
        ("ann+ml@mail.example.co", "ann+ml@mail.example.co"),
        ("ml@corp.internal", "team:ml-corp-internal"),
        ("x@firm.technology", "team:x-firm-technology"),
        ("jörg@firma.de", "team:jörg-firma-de"),
        ("-@firma.de", "team:firma-de"),
        ("ann@example.com ", "team:ann-example-com"),
        ("team:", "team:unnamed"),
        ("?!", "team:unnamed"),
    ],
)
def test_any_owner_that_a_product_names_is_one_that_dagster_takes(tiny_product: Path, owner: str, shown: str) -> None:
    product = load_product(tiny_product)
    renamed = product.spec.model_copy(update={"owner": owner})
    chain = Chain(type(product)(**{**vars(product), "spec": renamed}))
    assert chain.owners == [shown]
    canary_asset(chain)


def test_the_weekly_schedule_is_off_and_asks_for_the_last_complete_day(flights: Definitions) -> None:
    schedule = flights.resolve_schedule_def("flight_assistant__weekly")
    assert schedule.default_status is DefaultScheduleStatus.STOPPED
    monday = datetime(2026, 5, 4, 5, tzinfo=UTC)
    with DagsterInstance.ephemeral() as instance:
        repository = flights.get_repository_def()
        context = build_schedule_context(instance=instance, scheduled_execution_time=monday, repository_def=repository)
        (request,) = schedule.evaluate_tick(context).run_requests or []
        assert isinstance(request, RunRequest)
        assert request.partition_key == "2026-05-03"
        early = build_schedule_context(
            instance=instance, scheduled_execution_time=datetime(2013, 1, 7, 5, tzinfo=UTC), repository_def=repository
        )
        assert "begins at 2013-02-01" in (schedule.evaluate_tick(early).skip_message or "")


def test_the_workspace_names_the_code_location_that_runs_point_to() -> None:
    (origin,) = location_origins_from_yaml_paths([str(PROJECT / "workspace.yaml")])
    assert origin.location_name == "ml_platform"
    assert Path(origin.loadable_target_origin.working_directory or "").resolve() == PROJECT
