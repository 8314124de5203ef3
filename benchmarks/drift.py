"""What a drift verdict on a million rows costs, beside Evidently's default on all of them, and whether both agree.

    python benchmarks/drift.py --out results/drift.json

Twenty columns, fifteen numbers and five categories, on two sides of so many rows each; drifts of several sizes are
planted, none near a threshold of either. Ours is all that the asset does with such a table: every column, every slice,
its page, and Evidently's scores and page of the drawn rows. Each contender runs in a process of its own, after its
imports; both are given the same frames.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
SHIFTS = (0.0, 0.0, 0.02, 0.04, 0.4, 0.7, 1.0, 2.0)
"""Of normal numbers, in standard deviations."""
STRETCHES = (1.0, 1.0, 1.02, 1.04, 2.0, 2.5, 4.0)
"""Of skewed numbers: how much larger they grow."""
SWAPS = (0.0, 0.01, 0.02, 0.35, 0.6)
"""Of categories: the share of rows that go from the commonest to the rarest."""
KINDS = ("a", "b", "c", "d")
SHARES = (0.55, 0.25, 0.15, 0.05)


def planted() -> dict[str, bool]:
    """Which columns drifted."""
    small = 0.1
    return {
        **{f"normal_{n}": shift > small for n, shift in enumerate(SHIFTS)},
        **{f"skewed_{n}": stretch > 1 + small for n, stretch in enumerate(STRETCHES)},
        **{f"kind_{n}": swap > small for n, swap in enumerate(SWAPS)},
    }


def make_frames(rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both sides, the same every time."""
    draw = np.random.default_rng(2013)
    sides: list[dict[str, Any]] = [{}, {}]
    for current, side in enumerate(sides):
        for number, shift in enumerate(SHIFTS):
            side[f"normal_{number}"] = draw.normal(shift * current, 1.0, rows)
        for number, stretch in enumerate(STRETCHES):
            side[f"skewed_{number}"] = draw.lognormal(0.0, 1.0, rows) * (stretch if current else 1.0)
        for number, swap in enumerate(SWAPS):
            moved = swap * SHARES[0] * current
            shares = (SHARES[0] - moved, *SHARES[1:-1], SHARES[-1] + moved)
            side[f"kind_{number}"] = np.array(KINDS, dtype=object)[draw.choice(len(KINDS), rows, p=shares)]
    return pd.DataFrame(sides[0]), pd.DataFrame(sides[1])


def ours(reference: pd.DataFrame, current: pd.DataFrame) -> tuple[dict[str, bool], float]:
    """The verdict of every column, and the seconds it took."""
    from datetime import UTC, date, datetime

    from ml_platform.contracts.drift import DriftPart, DriftReport, Moved
    from ml_platform.contracts.monitor_policy import MonitorPolicy
    from ml_platform.contracts.products import load_product
    from ml_platform.monitoring.drift.columns import Table, compare_slices, compare_table, corrected
    from ml_platform.monitoring.drift.distances import Blocks
    from ml_platform.monitoring.drift.evidently_page import second_opinion
    from ml_platform.monitoring.drift.judging import farthest_first, judge_part
    from ml_platform.monitoring.drift.page import render_html, render_summary

    import_evidently()
    product = load_product(ROOT / "products" / "flight_assistant")
    policy = MonitorPolicy.read(ROOT / "products" / "flight_assistant" / "monitor_policy.yaml").drift
    began = time.perf_counter()
    part, slices = DriftPart.TABLES, tuple(name for name in reference if str(name).startswith("kind"))
    table = Table("rows", reference, current, Blocks(), tuple(map(str, reference)), tuple(map(str, slices)))
    columns = corrected(compare_table(part, table, policy, 1), policy)
    moved = farthest_first(corrected(compare_slices(part, table, policy, 1), policy))
    judged, now = judge_part(part, columns, policy), datetime(2013, 8, 1, tzinfo=UTC)
    report = DriftReport(
        product=product.name, as_of=date(2013, 7, 31), window_from=now, window_until=now, verdict=judged.verdict,
        reason=judged.reason, effect=judged.effect, release_id=None, reference_as_of=None,
        reference_snapshot_sha256=None, current_snapshot_sha256="0" * 64, monitor_policy_sha256="0" * 64,
        parts=(judged,), columns=tuple(columns), slices=tuple(moved[:20]),
    )  # fmt: skip
    tables = {(part, table.name): table}
    pages = render_html(product, report, tables), render_summary(report, tables)
    _, page = second_opinion(columns, tables, policy, 1, page=True)
    assert page is not None
    assert all(pages)
    took = time.perf_counter() - began
    return {one.column: one.moved is Moved.DRIFTED for one in columns}, took


def theirs(reference: pd.DataFrame, current: pd.DataFrame) -> tuple[dict[str, bool], float]:
    """Evidently's default preset on all rows, with its page."""
    import_evidently()
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    began = time.perf_counter()
    numbers = [str(name) for name in reference if not str(name).startswith("kind")]
    kinds = [str(name) for name in reference if str(name).startswith("kind")]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=kinds)
    report = Report([DataDriftPreset()], include_tests=True)
    sides = [Dataset.from_pandas(side, definition) for side in (current, reference)]
    ran = report.run(*sides)
    assert len(ran.get_html_str(as_iframe=False)) > 1_000
    took = time.perf_counter() - began
    found = {}
    for one in ran.dict()["metrics"]:
        config = one["config"]
        if "column" in config:
            # By default: Wasserstein's or Jensen-Shannon's distance, from 0.1 on.
            found[config["column"]] = float(one["value"]) >= float(config.get("threshold") or 0.1)
    return found, took


def import_evidently() -> None:
    """Imports are not measured."""
    os.environ["DO_NOT_TRACK"] = "1"
    warnings.simplefilter("ignore")
    import evidently.presets  # noqa: F401


CONTENDERS = {"ours": ours, "evidently": theirs}


def measure(name: str, rows: int) -> dict[str, Any]:
    """One contender, once, in this process."""
    frames = make_frames(rows)
    before = resource.getrusage(resource.RUSAGE_SELF)
    found, took = CONTENDERS[name](*frames)
    after = resource.getrusage(resource.RUSAGE_SELF)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wrong = sorted(column for column, drifted in planted().items() if found.get(column) is not drifted)
    return {
        "contender": name,
        "rows": rows,
        "seconds": round(took, 2),
        "cpu_seconds": round(busy, 2),
        "peak_gb": round(after.ru_maxrss / 1e6, 2),
        "columns": len(found),
        "wrong": wrong,
    }


def main() -> None:
    """Measures both in turns, each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.contender:
        print(json.dumps(measure(asked.contender, asked.rows)))
        return
    runs: list[dict[str, Any]] = []
    for _ in range(asked.runs):
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--contender", name, "--rows", str(asked.rows)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(runs[-1]), flush=True)
    median = {n: statistics.median(one["seconds"] for one in runs if one["contender"] == n) for n in CONTENDERS}
    result = {
        "rows": asked.rows,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "median_seconds": median,
        "share_of_evidently": round(median["ours"] / median["evidently"], 3),
        "same_verdicts": all(not one["wrong"] for one in runs),
        "runs": runs,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}, indent=2))
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
