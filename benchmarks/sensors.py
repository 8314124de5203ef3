"""What the sensors of many products cost: seconds and memory of a tick, and of a whole round of the real daemon.

    python -m benchmarks.sensors --out results/sensors.json

A year of 100 products: a drift report of 40 columns and a quality report for each of 365 days, a release a week in the
ledger, and the runs that sensors started in Dagster's own storage. A tick is one evaluation of a sensor in the code
location, the first with nothing read yet and the next with nothing new; a round is what the daemon does with all of
them, one after the other, over gRPC.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from benchmarks.chain_overhead import machine
from benchmarks.tiny_product import write_tiny_product
from ml_platform.contracts.canonical import digest
from ml_platform.contracts.drift import ColumnDrift, DriftPart, DriftReport, Moved
from ml_platform.contracts.events import PolicyRecorded, ReleaseEligible, ReleaseHeld, ReleaseRegistered
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.contracts.slot_moves import CanaryOpened, ReleasePromoted
from ml_platform.contracts.triggers import Trigger, TriggerKind
from ml_platform.contracts.windows import QualityReport
from ml_platform.lineage.ledger import Ledger
from tests.samples.releases import make_policy, make_release

PRODUCTS, DAYS, COLUMNS = 100, 365, 40
FIRST = date(2023, 1, 1)
MIDNIGHT = datetime(2023, 1, 1, tzinfo=UTC)
RUNS_A_PRODUCT = 20
TARGET_TICK_SECONDS = 60.0
"""Dagster gives up a tick after that."""
SENSORS = ("retrain", "reports")


def write_products(root: Path, count: int) -> list[Path]:
    """As many product folders, which differ in their names; they share a base model."""
    first = write_tiny_product(root, "desk_000")
    folders = [first]
    for number in range(1, count):
        folder = root / f"desk_{number:03d}"
        folder.mkdir()
        for file in first.iterdir():
            (folder / file.name).write_text(file.read_text().replace("desk_000", folder.name))
        folders.append(folder)
    for folder in folders:
        _rewrite(folder / "product.yaml", {"files": {"serving": "serving.yaml"}})
        _rewrite(folder / "monitor_policy.yaml", {"retrain": {"new_labels": 10**6, "every_days": 400}})
        brought = {"entity": ["parcel_id"], "given": ["days_underway"]}
        (folder / "serving.yaml").write_text(yaml.safe_dump({"version": "1.0.0", "time": "features"} | brought))
    return folders


def _rewrite(path: Path, changes: dict[str, dict[str, Any]]) -> None:
    content = yaml.safe_load(path.read_text())
    for part, values in changes.items():
        content[part].update(values)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def fill_ledger(home: Home, product: str, days: int) -> str:
    """A release a week, started by a sensor and held, but for the first, which serves; its id."""
    policy = make_policy()
    with Ledger(home.ledger_url).write(product, MIDNIGHT, "bench") as transaction:
        transaction.append(PolicyRecorded(policy=policy))
        served = make_release(FIRST, policy=policy, product=product)
        transaction.append(ReleaseRegistered(release=served))
        named = {"release_id": served.release_id, "policy_sha256": policy.sha256}
        transaction.append(ReleaseEligible(**named, expires_at=MIDNIGHT + timedelta(days=3650)))
        transaction.append(CanaryOpened(release_id=served.release_id, step=1, exposure=policy.canary.steps[0]))
        transaction.append(ReleasePromoted(release_id=served.release_id))
        for week in range(1, days // 7):
            of = FIRST + timedelta(weeks=week)
            made = make_release(of, policy=policy, product=product).model_copy(update={"trigger": _trigger(week)})
            transaction.append(ReleaseRegistered(release=made))
            held = ReleaseHeld(release_id=made.release_id, policy_sha256=policy.sha256, gates={"late_recall": "low"})
            transaction.append(held)
    return served.release_id


def _trigger(week: int) -> Trigger:
    return Trigger(
        kind=TriggerKind.DRIFT,
        reason="4 of 40 columns moved",
        evidence_sha256=digest({"week": week}),
        strength=1.5,
        attempt=1,
        at=MIDNIGHT + timedelta(weeks=week),
    )


def fill_reports(home: Home, product: str, release_id: str, days: int) -> None:
    """A drift and a quality report a day."""
    columns = tuple(
        ColumnDrift(
            part=DriftPart.TABLES,
            table="parcels",
            column=f"column_{number}",
            moved=Moved.DRIFTED if number < 4 else Moved.STEADY,
            reason="psi 0.31 is above 0.2",
            method="psi",
            effect=0.31,
            threshold=0.2,
            p_value=0.0001,
            reference_rows=5000,
            current_rows=5000,
        )
        for number in range(COLUMNS)
    )
    said = {"product": product, "as_of": FIRST, "release_id": release_id, "monitor_policy_sha256": "8" * 64}
    window = {"window_from": MIDNIGHT, "window_until": MIDNIGHT + timedelta(days=28)}
    drift = DriftReport(
        **said,
        **window,
        verdict=Verdict.FAIL,
        reason="4 of 40 columns moved",
        effect=1.4,
        reference_as_of=FIRST,
        reference_snapshot_sha256="1" * 64,
        current_snapshot_sha256="2" * 64,
        parts=(),
        columns=columns,
    )
    quality = QualityReport(**said, **window, verdict=Verdict.PASS, reason="no fall", effect=0.2, labelled=50)
    for report, asset in ((drift, "drift_report"), (quality, "quality_report")):
        folder = home.manifests / product / asset
        folder.mkdir(parents=True)
        value = {"kind": asset, "value_sha256": "0" * 64, "facts": report.model_dump(mode="json")}
        text = json.dumps({"asset": f"{product}/{asset}", "partition": str(FIRST), "value": value})
        for number in range(days):
            day = str(FIRST + timedelta(days=number))
            (folder / f"{day}.json").write_text(text.replace(f'"{FIRST}"', f'"{day}"'))


def fill_runs(home: Home, products: list[str]) -> None:
    """Runs that sensors started and that ended, with the tags that they carry."""
    from dagster import DagsterRun, DagsterRunStatus

    from resources.automatic_runs import trigger_tags
    from resources.runs import open_instance

    with open_instance(home) as instance:
        for product in products:
            for number in range(RUNS_A_PRODUCT):
                tags = {**trigger_tags(product, _trigger(number)), "dagster/partition": str(FIRST)}
                job = f"{product}__continuous_training"
                instance.add_run(DagsterRun(job_name=job, tags=tags, status=DagsterRunStatus.SUCCESS))


def tick_all(home: Home, products: list[str]) -> dict[str, Any]:
    """Evaluates every sensor of the code location in this process, twice; seconds a tick, and peak memory."""
    began = time.perf_counter()
    from dagster import build_sensor_context

    from definitions import defs
    from resources.runs import open_instance

    repository = defs.get_repository_def()
    loaded = time.perf_counter() - began
    figures: dict[str, Any] = {"load_s": loaded, "loaded_mb": _resident_mb()}
    with open_instance(home) as instance:
        for turn in ("first", "again"):
            for kind in SENSORS:
                taken, busy, said = [], [], set()
                for product in products:
                    started, began_cpu = time.perf_counter(), time.process_time()
                    ticked = repository.get_sensor_def(f"{product}__{kind}").evaluate_tick(
                        build_sensor_context(instance=instance, repository_def=repository)
                    )
                    taken.append(time.perf_counter() - started)
                    busy.append(time.process_time() - began_cpu)
                    assert not ticked.run_requests, ticked.run_requests
                    said.add((ticked.skip_message or "")[:60])
                figures[f"{kind}_{turn}"] = _spread(taken) | {
                    "cpu_ms": 1e3 * statistics.median(busy),
                    "said": sorted(said)[0],
                }
    return figures | {"peak_mb": _peak_mb()}


def daemon_rounds(home: Home) -> dict[str, Any]:
    """What the daemon takes for every sensor of the workspace, over gRPC: the first round, and the next."""
    from dagster._core.test_utils import freeze_time
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster._daemon.sensor import execute_sensor_iteration

    from resources.runs import open_instance
    from resources.state import PROJECT

    target, taken = WorkspaceFileTarget(paths=[str(PROJECT / "workspace.yaml")]), []
    with open_instance(home) as instance, WorkspaceProcessContext(instance, target) as workspace:
        for entry in workspace.create_request_context().get_code_location_entries().values():
            assert entry.code_location is not None, entry.load_error
        for turn in range(2):
            with freeze_time(datetime.now(UTC) + timedelta(minutes=2 * turn)):
                started = time.perf_counter()
                errors = [*execute_sensor_iteration(workspace, logging.getLogger("bench"), None, None)]
                taken.append(time.perf_counter() - started)
                assert not any(errors), errors
    return {"first_s": taken[0], "again_s": taken[1], "daemon_peak_mb": _peak_mb()}


def _spread(taken: list[float]) -> dict[str, float]:
    ordered = sorted(taken)
    return {
        "p50_ms": 1e3 * statistics.median(ordered),
        "p99_ms": 1e3 * ordered[int(0.99 * (len(ordered) - 1))],
        "max_ms": 1e3 * ordered[-1],
        "all_s": sum(ordered),
    }


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def _resident_mb() -> float:
    return _status("VmRSS")


def _peak_mb() -> float:
    return _status("VmHWM")


def measure(products: int, days: int) -> dict[str, Any]:
    """Everything, each part in a process of its own, so that peaks of memory are theirs."""
    with tempfile.TemporaryDirectory(prefix="sensors-") as scratch:
        root, home = Path(scratch), Home(Path(scratch) / "home")
        folders = write_products(root / "products", products)
        names = [folder.name for folder in folders]
        for number, name in enumerate(names, 1):
            fill_reports(home, name, fill_ledger(home, name, days), days)
            print(f"\r{number} of {products} products filled", end="", file=sys.stderr, flush=True)
        fill_runs(home, names)
        environment = {
            **os.environ,
            "ML_PLATFORM_HOME": str(home.root),
            "ML_PLATFORM_PRODUCTS": str(root / "products"),
            "DAGSTER_HOME": str(home.dagster),
        }
        parts = {}
        for part in ("ticks", "rounds"):
            command = [sys.executable, "-m", "benchmarks.sensors", "--part", part]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            parts |= json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    return {"machine": machine(), "products": products, "days": days, **parts}


def markdown(found: dict[str, Any]) -> str:
    """The results as the tables of docs/benchmarks.md."""
    lines = [
        "| tick of one sensor | CPU p50, ms | p50, ms | p99, ms | slowest, ms | all, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind in SENSORS:
        for turn, words in (("first", "nothing read yet"), ("again", "nothing new")):
            of = found[f"{kind}_{turn}"]
            figures = " | ".join(f"{of[name]:.1f}" for name in ("cpu_ms", "p50_ms", "p99_ms", "max_ms", "all_s"))
            lines.append(f"| `{kind}`, {words} | {figures} |")
    lines += [
        "",
        "| | |",
        "| --- | ---: |",
        f"| loading {found['products']} products, s | {found['load_s']:.1f} |",
        f"| memory of the code location, loaded, MB | {found['loaded_mb']:.0f} |",
        f"| … at its peak, every sensor evaluated, MB | {found['peak_mb']:.0f} |",
        f"| a round of the daemon over all sensors, first, s | {found['first_s']:.1f} |",
        f"| … and the next, s | {found['again_s']:.1f} |",
        f"| memory of the daemon at its peak, MB | {found['daemon_peak_mb']:.0f} |",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, prints Markdown, and writes JSON when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=PRODUCTS)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--part", choices=("ticks", "rounds"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    home = Home.from_environment()
    if options.part == "ticks":
        folders = Path(os.environ["ML_PLATFORM_PRODUCTS"]).glob("desk_*/")
        print(json.dumps(tick_all(home, sorted(folder.name for folder in folders))))
    elif options.part == "rounds":
        print(json.dumps(daemon_rounds(home)))
    else:
        found = measure(options.products, options.days)
        print(f"\n{found['products']} products, {found['days']} days, on {found['machine']}\n\n{markdown(found)}\n")
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
