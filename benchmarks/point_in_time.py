"""How many rows a second the point-in-time join answers, beside Feast's own stores and a bare ASOF join.

    python benchmarks/point_in_time.py --out results/point_in_time.json

Every contender answers the same questions from the same Parquet file: one view of 100 hourly rows a key, which
became known up to two hours late. All but the bare join obey both times and a ttl of 48 hours; their answers are
compared. The bare join looks at the event time only, hence leaks: it is the limit of the engine, no contender.
Contenders take turns.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product, load_product
from ml_platform.contracts.source import SourceSpec
from ml_platform.features.definitions import definitions_sha256
from ml_platform.features.join import join_features
from ml_platform.features.store import OFFLINE_STORE
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.snapshots.extract import parquet_bytes

ROOT = Path(__file__).resolve().parent.parent
HOUR_US = 3_600_000_000
HOURS = 100
START = np.datetime64("2013-01-01", "us")

OURS = "`join_features` (Feast API, our ASOF store)"
FEAST_DUCKDB = "`join_features` with Feast's DuckDB store"
FEAST_DASK = "`join_features` with Feast's default dask store"
BARE = "bare DuckDB ASOF join (limit: no created time, no ttl)"


@dataclass(frozen=True)
class Setup:
    """What is joined: the product, its features, and the questions."""

    product: Product
    features: Artifact
    questions: pd.DataFrame
    home: Home


def make_setup(folder: Path, entities: int, rows: int, features: int) -> Setup:
    """A product with one pass-through view of random features, and random questions over the whole time."""
    names = [f"feature_{number}" for number in range(features)]
    product = make_product(names)
    generator = np.random.default_rng(0)
    keys = max(1, rows // HOURS)
    event = np.tile(np.arange(HOURS) * HOUR_US, keys)
    created = event + generator.integers(0, 2 * HOUR_US, len(event))
    times = pa.timestamp("us", tz="UTC")
    table = pa.table(
        {
            "key": np.repeat(np.arange(keys), HOURS),
            "event_timestamp": pa.array(START + event.astype("timedelta64[us]")).cast(times),
            "created_timestamp": pa.array(START + created.astype("timedelta64[us]")).cast(times),
            **{name: generator.normal(size=len(event)) for name in names},
        }
    )

    def write(work: Path) -> dict[str, Any]:
        (work / "readings.parquet").write_bytes(parquet_bytes(table))
        return {"product": product.name, "definitions_sha256": definitions_sha256(product)}

    asked = START + generator.integers(0, HOURS * HOUR_US, entities).astype("timedelta64[us]")
    questions = pd.DataFrame(
        {
            "key": generator.integers(0, keys, entities),
            "event_timestamp": pd.Series(asked).dt.tz_localize("UTC").dt.as_unit("us"),
        }
    )
    artifact = LocalArtifactStore(folder / "artifacts").make("features", {"rows": rows, "features": features}, write)
    return Setup(product, artifact, questions, Home(folder))


def make_product(names: list[str]) -> Product:
    """flight_assistant with another source and other features."""
    product = load_product(ROOT / "products" / "flight_assistant")
    columns = {"key": "integer", "at": "timestamp", "known": "timestamp", **dict.fromkeys(names, "number")}
    source = SourceSpec.parse(
        {"kind": "parquet", "path": "-", "columns": columns, "key": ["key"], "event_time": "at", "known_at": "known"},
        where="benchmark",
    )
    view = {"source": "readings", "entity": ["key"], "columns": {name: name for name in names}, "ttl_hours": 48}
    features = FeatureSpec.parse({"service": "all", "views": {"readings": view}}, where="benchmark")
    return replace(product, spec=product.spec.model_copy(update={"sources": {"readings": source}}), features=features)


def through(setup: Setup, offline_store: str) -> pd.DataFrame:
    """The join as the platform calls it."""
    return join_features(setup.product, setup.features, setup.questions, setup.home, offline_store=offline_store)


def bare(setup: Setup) -> pd.DataFrame:
    """The newest event at or before each question, whenever it became known."""
    connection = duckdb.connect()
    connection.register("asked", setup.questions)
    names = ", ".join(f"f.{name}" for name in setup.product.features.feature_names)  # type: ignore[union-attr]
    file = setup.features.file("readings.parquet")
    table = connection.sql(
        f"SELECT asked.*, {names} FROM asked ASOF LEFT JOIN read_parquet('{file}') AS f "  # noqa: S608
        "ON asked.key = f.key AND asked.event_timestamp >= f.event_timestamp"
    ).to_arrow_table()
    connection.close()
    return table.to_pandas()


def measure(contenders: dict[str, Callable[[], pd.DataFrame]], repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds of each contender, in turns, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    answers: dict[str, pd.DataFrame] = {}
    for turn in range(repeats + 1):
        for name, join in contenders.items():
            begin = time.perf_counter()
            answers[name] = join()
            if turn:
                seconds[name].append(time.perf_counter() - begin)
            print(f"{name}: turn {turn} of {repeats}, {time.perf_counter() - begin:.2f} s", flush=True)
    for name in contenders.keys() & {FEAST_DUCKDB, FEAST_DASK}:
        shared = answers[OURS].head(len(answers[name]))
        pd.testing.assert_frame_equal(shared, answers[name])
    return {name: {"rows": len(answers[name]), "seconds": values} for name, values in seconds.items()}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    import feast

    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory),
        "python": platform.python_version(),
        "feast": feast.__version__,
        "duckdb": duckdb.__version__,
        "system": platform.platform(),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results in Markdown; times the default store where that was measured."""

    def rate(name: str) -> float:
        return results[name]["rows"] / statistics.median(results[name]["seconds"])

    lines = ["| join | rows asked | median s | rows/s | times dask |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, result in results.items():
        times = f"{rate(name) / rate(FEAST_DASK):.1f}" if FEAST_DASK in results else "–"
        median = statistics.median(result["seconds"])
        lines.append(f"| {name} | {result['rows']:,} | {median:.2f} | {rate(name):,.0f} | {times} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table, and writes the figures when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000, help="questions asked")
    parser.add_argument("--rows", type=int, default=1_000_000, help="feature rows")
    parser.add_argument("--features", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dask-entities", type=int, help="ask dask fewer questions; 0: leave it out")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    import feast  # noqa: F401 - it resets the filters of warnings, so it comes before ours
    import ibis

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        setup = make_setup(Path(folder), options.entities, options.rows, options.features)
        dask_entities = options.entities if options.dask_entities is None else options.dask_entities
        fewer = replace(setup, questions=setup.questions.head(dask_entities))
        contenders: dict[str, Callable[[], pd.DataFrame]] = {
            OURS: lambda: through(setup, OFFLINE_STORE),
            FEAST_DUCKDB: lambda: through(setup, "duckdb"),
            FEAST_DASK: lambda: through(fewer, "dask"),
            BARE: lambda: bare(setup),
        }
        if not dask_entities:
            del contenders[FEAST_DASK]
        results = measure(contenders, options.repeats)
    ibis.get_backend().disconnect()
    ibis.options.default_backend = None
    about = machine()
    print(f"\n{options.entities:,} questions, {options.rows:,} rows, {options.features} features, on {about}\n")
    print(table(results))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        figures = {"machine": about, "options": {k: v for k, v in vars(options).items() if k != "out"}}
        options.out.write_text(json.dumps({**figures, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
