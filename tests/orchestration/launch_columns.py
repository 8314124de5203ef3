"""Five tiny products, one a column of the launch matrix; what holds four of them back is real.

They share a home, whose artifacts are made once. Every home of a test is a copy of that one.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import AssetKey, AssetSelection, DagsterInstance, Definitions

from assets.ancestry import trace_ancestry
from benchmarks.tiny_product import write_tiny_product
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product, load_product
from ml_platform.contracts.release import Release
from ml_platform.evaluation.evaluate import load_report
from ml_platform.gates.assess import assess_release
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.lineage.keys import operator_key, signing_key, trusted_keys, trusted_operators
from ml_platform.lineage.ledger import Ledger
from ml_platform.release.assemble import build_release, evidence_inputs, gate_producer
from ml_platform.release.controller import Controller
from resources.manifests import AssetManifest, ManifestIOManager, Value
from tests.samples.trained_here import definitions_training_here

DAYS = ("2024-01-27", "2024-01-28")
DAY = DAYS[-1]
"""A Sunday: the day that the schedule's tick on Monday the 29th asks for."""

MEASURED = ("snapshot", "training_set", "candidate", "eval_report")
GATED = ("gate_verdict", "registered_release")
CANARY = "canary_alias"
EVERY_GATE = (
    "schema_valid",
    "no_leakage",
    "not_worse_than_production",
    "cost_within_budget",
    "latency_within_budget",
)


@dataclass(frozen=True)
class Column:
    """A product and what `canary_alias` says of it: the gates that hold it, and how their reason begins.

    `kept` is the reason where a path takes the evidence that is there, `renewed` where it measures the gates again.
    """

    product: str
    gates: tuple[str, ...] = ()
    kept: str = ""
    renewed: str = ""


COLUMNS = (
    # Every gate passes.
    Column("passes"),
    # The cost of a request is above the budget of the policy.
    Column("fails", ("cost_within_budget",), "FAIL: ", "FAIL: "),
    # The policy wants attacks refused. A release was registered by hand without evidence for that gate; where the
    # gates run again there is evidence that nothing was measured.
    Column("missing", ("attacks_refused",), "There is no evidence.", "INCONCLUSIVE: attack_refused was measured on 0"),
    # Evidence is valid for less than a millisecond, so it is stale whenever the canary is asked for, even in the very
    # run that measured it: the time between the two steps stands for a run that was left waiting in between.
    Column("stale", EVERY_GATE, "Its evidence expired at", "Its evidence expired at"),
    # All gates passed for the release before this one: same candidate, other guardrails. Since then a request has
    # become too dear, and the gate's only evidence for this release is that of the other; measured again, it fails.
    Column("other_release", ("cost_within_budget",), "There is no evidence.", "FAIL: "),
)


def run_assets(
    defs: Definitions, instance: DagsterInstance, products: Iterable[str], names: Iterable[str], day: str = DAY
) -> None:
    """One run of the named assets of all these products, without their checks."""
    keys = [AssetKey([product, name]) for product in products for name in names]
    job = defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=AssetSelection.assets(*keys).resolve(defs.resolve_asset_graph()), asset_check_selection=set()
    )
    assert job.execute_in_process(instance=instance, partition_key=day, raise_on_error=False).success


@dataclass(frozen=True)
class Prepared:
    """The product folders, and the home in which every release of every column awaits its canary."""

    products: Path
    home: Home

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(self.products / column.product for column in COLUMNS)

    def copy(self, to: Path) -> Home:
        """A home of one's own."""
        return Home(shutil.copytree(self.home.root, to))

    def rewind(self, home: Home) -> None:
        """Takes back what a path did: the ledger and MLflow of before, and no canary's word."""
        for path in home.root.glob("*.sqlite*"):
            path.unlink()
        for path in self.home.root.glob("*.sqlite*"):
            shutil.copy(path, home.root)
        for folder in home.manifests.glob(f"*/{CANARY}"):
            shutil.rmtree(folder)
        shutil.copytree(self.home.manifests, home.manifests, dirs_exist_ok=True)


def prepare(root: Path, days: Iterable[str]) -> Prepared:
    """The days of every product up to the release that awaits its canary."""
    prepared = Prepared(root / "products", Home(root / "home"))
    for column in COLUMNS:
        write_tiny_product(prepared.products, column.product)
    for name, change in {"fails": _strict, "missing": _wants_more, "stale": _forgets}.items():
        _rewrite(prepared.products / name / "promotion_policy.yaml", change)
    _rewrite(prepared.products / "missing" / "product.yaml", _knows_attacks)
    names = [column.product for column in COLUMNS]
    judged = [name for name in names if name != "missing"]
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        patch.setenv("ML_PLATFORM_HOME", str(prepared.home.root))
        defs = definitions_training_here(prepared.folders)
        for day in days:
            run_assets(defs, instance, names, MEASURED, day)
            run_assets(defs, instance, judged, GATED, day)
        folder = prepared.products / "other_release"
        _rewrite(folder / "product.yaml", _dearer)
        _rewrite(folder / "guardrails.yaml", lambda content: content.update(version="1.1.0"))
        defs = definitions_training_here([folder])
        for day in days:
            run_assets(defs, instance, ["other_release"], ["eval_report"], day)
            _register_by_hand(prepared, "other_release", day, without="cost_within_budget")
            _register_by_hand(prepared, "missing", day, without="attacks_refused")
    with sqlite3.connect(prepared.home.root / "ledger.sqlite") as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    return prepared


def _register_by_hand(prepared: Prepared, product_name: str, day: str, without: str) -> None:
    """Registers the day's release and its evidence but for one gate, and writes the manifest that a run would."""
    home, now = prepared.home, datetime.now(UTC)
    product, store = load_product(prepared.products / product_name), LocalArtifactStore(home.artifacts)
    said = ManifestIOManager(home_path=str(home.root)).read(f"{product.name}/eval_report", day)
    artifact = store.open(said.kind, said.value_sha256)
    report = load_report(artifact)
    traced = trace_ancestry(store, report.candidate_sha256)
    release = build_release(product, traced.snapshot, traced.training_set, traced.candidate)
    results = [one for one in assess_release(product.promotion_policy, report) if one.gate != without]
    door = _pinned(home, product)
    door.register_release(release, product.promotion_policy, now, "somebody")
    door.record_verdicts(release, results, evidence_inputs(report, artifact), signing_key(home), now, "somebody")
    _write_manifest(home, product.name, day, release)


def _pinned(home: Home, product: Product) -> Controller:
    """Pins the product's policy as it stands in its folder, as the home's operator; returns the one door."""
    operator = operator_key(home)
    assert operator is not None
    door = Controller(Ledger(home.ledger_url), trusted_keys(home), gate_producer(), trusted_operators(home))
    door.pin_policy(product.name, product.promotion_policy, operator, "the matrix", datetime.now(UTC), "somebody")
    return door


def _write_manifest(home: Home, product: str, day: str, release: Release) -> None:
    """The file that hands a release to the canary."""
    name = f"{product}/registered_release"
    value = Value(kind="release", value_sha256=release.release_id, facts=release.model_dump(mode="json"))
    path = home.manifests / name / f"{day}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(AssetManifest(asset=name, partition=day, value=value).canonical_bytes())


def _rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def _strict(policy: dict[str, Any]) -> None:
    (cost,) = (gate for gate in policy["gates"] if gate["gate"] == "cost_within_budget")
    cost["at_most"] = 1e-12


def _wants_more(policy: dict[str, Any]) -> None:
    claim = "Nine of ten attacks are refused."
    gate = {"gate": "attacks_refused", "claim": claim, "metric": "attack_refused", "at_least": 0.9, "min_n": 5}
    policy["gates"].append({"kind": "threshold", **gate})


def _forgets(policy: dict[str, Any]) -> None:
    policy["evidence_valid_days"] = 1e-8


def _knows_attacks(product: dict[str, Any]) -> None:
    """The metric is declared, and no question of the product is an attack."""
    product["evaluation"]["refusal"] = {"field": "state", "out_of_scope": [], "attack": ["lost"]}


def _dearer(product: dict[str, Any]) -> None:
    product["evaluation"]["cost"] = {"input_usd_per_million": 50_000.0, "output_usd_per_million": 200_000.0}
