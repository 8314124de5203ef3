"""How many seconds a chain takes outside training and generation, and how long the code location takes to load.

    python benchmarks/chain_overhead.py --out results/chain_overhead.json
    python benchmarks/chain_overhead.py --product flight_assistant --as-of 2013-03-31

Runs launch.py as `mlp run` does, first in an empty home, then again with nothing changed, and reads the clock at
every event. Training is the time between the first and the last sentence about it, generation that between the
first and the last about answers and latencies; everything else is overhead: processes, imports, joins, checks,
signatures, MLflow, Dagster. The default product is tiny, so that little else is there.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET_SECONDS = 30.0
TARGET_LOAD_SECONDS = 3.0
TRAINING = ("train ",)
GENERATION = ("evaluate candidate ", "evaluate reference ", "latency ")
LOAD = "import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"


@dataclass
class Measured:
    """One run of a chain: seconds by asset, and how much of all went to training and generation."""

    total_s: float
    training_s: float
    generation_s: float
    steps_s: dict[str, float] = field(default_factory=dict)

    @property
    def overhead_s(self) -> float:
        """Everything but training and generation."""
        return self.total_s - self.training_s - self.generation_s


def measure_chain(product: str, as_of: str, home: Path, folders: str) -> Measured:
    """Runs the chain of a day as `mlp run` does and reads the clock at each of its events."""
    environment = {**os.environ, "ML_PLATFORM_HOME": str(home), "ML_PLATFORM_PRODUCTS": folders}
    command = [sys.executable, str(ROOT / "launch.py"), "run", product, "--as-of", as_of]
    began, events = time.perf_counter(), []
    home.mkdir(parents=True, exist_ok=True)
    with (home / "errors.log").open("w") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            events.append((time.perf_counter() - began, json.loads(line)))
        code = process.wait()
    total = time.perf_counter() - began
    if code:
        sys.exit(f"the chain failed: {events[-1][1]['message']}\nSee {home / 'errors.log'}")
    return Measured(total, _span(events, TRAINING), _span(events, GENERATION), _steps(events))


def _span(events: list[tuple[float, dict[str, Any]]], stages: tuple[str, ...]) -> float:
    times = [at for at, event in events if event["event"] == "log" and event["message"].startswith(stages)]
    return times[-1] - times[0] if times else 0.0


def _steps(events: list[tuple[float, dict[str, Any]]]) -> dict[str, float]:
    """Seconds by asset, its checks included."""
    started, spent = 0.0, {}
    for at, event in events:
        if event["event"] == "step_start":
            started = at
        elif event["event"] == "step_success":
            spent[event["asset"]] = spent.get(event["asset"], 0.0) + at - started
    return spent


def load_seconds(module: str, repeats: int = 5) -> float:
    """Median seconds that a fresh interpreter takes to import a module."""
    command = [sys.executable, "-c", LOAD.format(module=module)]
    times = [
        float(subprocess.check_output(command, cwd=ROOT, text=True, stderr=subprocess.DEVNULL)) for _ in range(repeats)
    ]
    return statistics.median(times)


def machine() -> str:
    """What this ran on, in a line."""
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def markdown(first: Measured, again: Measured, definitions_s: float, dagster_s: float) -> str:
    """The results as the tables of docs/benchmarks.md."""
    rows = [
        ("whole chain, empty home", first.total_s, ""),
        ("… of which training", first.training_s, ""),
        ("… of which generation", first.generation_s, ""),
        ("**overhead**", first.overhead_s, _verdict(first.overhead_s, TARGET_SECONDS)),
        ("run again, nothing changed", again.total_s, ""),
        ("loading definitions.py", definitions_s, _verdict(definitions_s, TARGET_LOAD_SECONDS)),
        ("… of which importing dagster", dagster_s, ""),
    ]
    lines = ["| what | seconds | target |", "| --- | ---: | --- |"]
    lines += [f"| {what} | {seconds:.1f} | {target} |" for what, seconds, target in rows]
    lines += ["", "| asset, with its checks | first run, s | again, s |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {spent:.1f} | {again.steps_s.get(name, 0.0):.1f} |" for name, spent in first.steps_s.items()]
    return "\n".join(lines)


def _verdict(seconds: float, target: float) -> str:
    return f"at most {target:.0f}: {'met' if seconds <= target else '**missed**'}"


def main() -> None:
    """Measures, prints Markdown, and writes JSON when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--product", help="a real product; needs --as-of (default: a tiny one)")
    parser.add_argument("--as-of")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory(prefix="chain-overhead-") as scratch:
        folders, product, as_of = os.environ.get("ML_PLATFORM_PRODUCTS", ""), options.product, options.as_of
        if product is None:
            sys.path.insert(0, str(ROOT))
            from benchmarks.tiny_product import LAST_COMPLETE_DAY, write_tiny_product

            folder = write_tiny_product(Path(scratch))
            folders, product, as_of = str(folder), folder.name, LAST_COMPLETE_DAY
        first = measure_chain(product, as_of, Path(scratch) / "home", folders)
        again = measure_chain(product, as_of, Path(scratch) / "home", folders)
    definitions_s, dagster_s = load_seconds("definitions"), load_seconds("dagster")
    print(f"\n{product}, {as_of}, on {machine()}\n\n{markdown(first, again, definitions_s, dagster_s)}\n")
    if options.out:
        figures = {
            "machine": machine(),
            "product": product,
            "as_of": as_of,
            "first": vars(first) | {"overhead_s": first.overhead_s},
            "again": vars(again) | {"overhead_s": again.overhead_s},
            "definitions_load_s": definitions_s,
            "dagster_import_s": dagster_s,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
