"""How fast an answer's record is durable, and how fast it is found among millions.

    python -m benchmarks.trace --records 1000000 --out results/trace.json

Three parts: appends to the log by 1, 16 and 64 coroutines of one event loop, as in a gateway worker, beside a bare
fdatasync of the same disk; shipping, through the real shipper; and `trace` of random responses with as many records
stored as are asked for, read again with the file's pages dropped from memory, and of records that are still in the
log. Beyond what is shipped, rows are inserted in bulk with the indexes made at the end: what they hold, and how they
are found, is the same. `--folder` keeps the store, and goes on with it.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.lineage.provenance.segments import segments_in
from ml_platform.lineage.provenance.shipping import Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.trace import trace
from ml_platform.lineage.provenance.wal import WriteAheadLog
from ml_platform.lineage.provenance.writing import microseconds
from tests.samples.provenance import NOW, make_record, response_id_of

COLUMNS = "response_id, product, release_id, cohort, answered_us, entity, content, sha256"
INDEXES = ("responses_by_id", "responses_by_time", "responses_by_cohort", "responses_by_entity")
ROWS_AT_ONCE = 20_000


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """Median, 99th percentile and worst of durations."""
    ordered = sorted(seconds)
    return {
        "n": len(ordered),
        "p50_ms": 1000 * statistics.median(ordered),
        "p99_ms": 1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "worst_ms": 1000 * ordered[-1],
    }


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def measure_serialising(rounds: int = 2_000) -> dict[str, float]:
    """CPU microseconds to validate a record and to make its bytes, without what others do on the machine."""
    fields = {name: getattr(make_record(1), name) for name in ProvenanceRecord.model_fields}
    fields["features"] = fields["features"].model_dump()
    record = ProvenanceRecord(**fields)

    def cpu_us(action: Callable[[], object]) -> float:
        best = []
        for _ in range(7):
            begin = time.process_time()
            for _ in range(rounds):
                action()
            best.append((time.process_time() - begin) / rounds * 1e6)
        return min(best)

    return {
        "bytes": len(record.log_bytes()),
        "make_and_validate_us": cpu_us(lambda: ProvenanceRecord(**fields)),
        "log_bytes_us": cpu_us(record.log_bytes),
        "canonical_bytes_us": cpu_us(record.canonical_bytes),
        "read_us": cpu_us(lambda: ProvenanceRecord.from_log(record.log_bytes())),
    }


def measure_disk(folder: Path, seconds: float) -> dict[str, float]:
    """A bare append of one record with fdatasync, as often as it goes: what the disk allows without sharing."""
    payload, took = make_record(1).log_bytes(), []
    descriptor = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        os.write(descriptor, payload)
        os.fdatasync(descriptor)
        took.append(time.perf_counter() - begin)
    os.close(descriptor)
    return {**milliseconds(took), "per_s": len(took) / seconds}


def measure_log(folder: Path, writers: int, seconds: float) -> dict[str, float]:
    """Appends a second of that many coroutines, each waiting for its own, and how long each waits."""
    log, took, payload = WriteAheadLog(folder / f"log-{writers}"), [], make_record(1).log_bytes()

    async def write(end: float) -> None:
        while (begin := time.perf_counter()) < end:
            await log.append(payload)
            took.append(time.perf_counter() - begin)

    async def write_all() -> float:
        begin = time.perf_counter()
        await asyncio.gather(*(write(begin + seconds) for _ in range(writers)))
        return time.perf_counter() - begin

    cpu = time.process_time()
    whole = asyncio.run(write_all())
    cpu = time.process_time() - cpu
    log.close()
    return {**milliseconds(took), "per_s": len(took) / whole, "cpu_us_each": 1e6 * cpu / len(took)}


def measure_shipping(folder: Path, store: ProvenanceStore, first: int, count: int) -> dict[str, float]:
    """Records a second from a log of real records into the store as it is."""
    log = WriteAheadLog(folder / "log")
    for number in range(first, first + count):
        future = log.submit(make_record(number).log_bytes())
    future.result()
    log.close()
    begin = time.perf_counter()
    shipped = Shipper(folder / "log", store).ship().frames
    return {"records": shipped, "per_s": shipped / (time.perf_counter() - begin), "stored_before": first}


def rows(first: int, last: int) -> Iterator[tuple[Any, ...]]:
    """Rows like those that shipping writes, made from two records by their id and time."""
    patterns = [make_record(number) for number in (1, 10)]
    texts = [record.log_bytes().decode() for record in patterns]
    for number in range(first, last):
        canary = number % 10 == 0
        record, id_, at = patterns[canary], response_id_of(number), NOW + timedelta(seconds=number)
        entity = f"2013-04-01-UA-{number % 500}-EWR"
        told = texts[canary].replace(record.response_id, id_, 1)
        told = told.replace('"answered_at":"2013-04-01T12:00:', f'"answered_at":"{at:%Y-%m-%dT%H:%M:}', 1)
        told = told.replace(str(record.entity["flight_id"]), entity, 1)
        key = f'{{"flight_id":"{entity}"}}'
        us = microseconds(at)
        yield id_, record.product, record.release_id, record.cohort.value, us, key, told, bytes_sha256(told.encode())


def fill(path: Path, until: int, seconds: float) -> int:
    """Inserts rows in bulk until there are so many or the time is over; returns how many there are."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous = OFF", "cache_size = -500000", "temp_store = FILE", "wal_autocheckpoint = 20000"):
        connection.execute(f"PRAGMA {pragma}")
    found = connection.execute("SELECT coalesce(max(number), 0) FROM responses").fetchone()[0]
    if found >= until:
        connection.close()
        return int(found)
    for index in INDEXES:
        connection.execute(f"DROP INDEX IF EXISTS {index}")
    source, end = rows(found, until), time.perf_counter() + seconds
    while time.perf_counter() < end and (chunk := list(islice(source, ROWS_AT_ONCE))):
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO responses ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", chunk)  # noqa: S608
        connection.execute("COMMIT")
        found += len(chunk)
        print(f"\r{found:,} of {until:,} rows", end="", flush=True)
    print()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return int(found)


def make_indexes(path: Path) -> None:
    """The indexes that the store's schema has and the filling went without."""
    from sqlalchemy import create_engine

    from ml_platform.lineage.provenance.schema import responses

    engine = create_engine(f"sqlite:///{path}")
    for index in sorted(responses.indexes, key=lambda index: str(index.name)):
        print(f"{index.name}: {timed(partial(index.create, engine, checkfirst=True)):.1f} s", flush=True)
    engine.dispose()


def measure_lookups(store: ProvenanceStore, folder: Path, path: Path, stored: int, lookups: int) -> dict[str, Any]:
    """`trace` of random responses: in memory, with the pages dropped before each, and of one that does not exist."""
    chance = random.Random(0)  # noqa: S311 - which are looked up, no secret
    ids = [response_id_of(chance.randrange(stored)) for _ in range(lookups)]
    descriptor = os.open(path, os.O_RDONLY)

    def look(response_id: str, *, cold: bool) -> float:
        if cold:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            store.close()
        begin = time.perf_counter()
        found = trace(response_id, store, folder / "log")
        took = time.perf_counter() - begin
        assert found is not None
        assert found.record.response_id == response_id
        return took

    cold = [look(response_id, cold=True) for response_id in ids[: max(100, lookups // 10)]]
    warm = [look(response_id, cold=False) for response_id in ids]
    missing = [timed(partial(trace, f"resp_none_{n}", store, folder / "log")) for n in range(lookups // 10)]
    os.close(descriptor)
    return {
        "stored": stored,
        "file_gb": path.stat().st_size / 1e9,
        "warm": milliseconds(warm),
        "cold": milliseconds(cold),
        "missing": milliseconds(missing),
    }


def measure_tail(folder: Path, store: ProvenanceStore, count: int, lookups: int) -> dict[str, Any]:
    """`trace` of records that are only in the log, with that many before them."""
    log = WriteAheadLog(folder / "log")
    numbers = range(10**9, 10**9 + count)
    for number in numbers:
        future = log.submit(make_record(number).log_bytes())
    future.result()
    chance = random.Random(0)  # noqa: S311 - which are looked up, no secret
    took = []
    for number in chance.choices(numbers, k=lookups):
        took.append(timed(partial(trace, response_id_of(number), store, folder / "log")))
    log.close()
    size = sum(path.stat().st_size for path in segments_in(folder / "log"))
    return {"in_log": count, "log_mb": size / 1e6, **milliseconds(took)}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    about = {"cpu": model, "cores": os.cpu_count(), "load": os.getloadavg()[0], "sqlite": sqlite3.sqlite_version}
    return {**about, "python": platform.python_version(), "system": platform.platform()}


def main() -> None:
    """Measures, prints the figures, and writes them when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000, help="responses stored")
    parser.add_argument("--lookups", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each number of writers")
    parser.add_argument("--fill-seconds", type=float, default=3600.0, help="stop filling after so long; run again")
    parser.add_argument("--folder", type=Path, help="keep the store here, and go on with what is there")
    parser.add_argument("--only", choices=["log", "store"], help="one part alone")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "options": {k: str(v) for k, v in vars(options).items()}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.only != "store":
            results["serialising"] = measure_serialising()
            results["disk"] = measure_disk(Path(temporary), options.seconds)
            results["log"] = {n: measure_log(Path(temporary), n, options.seconds) for n in (1, 16, 64)}
        if options.only != "log":
            measure_store(folder, options, results)
    print(json.dumps(results, indent=2))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


def measure_store(folder: Path, options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Ships some, fills up, and looks up; stops before looking up where the time did not suffice."""
    path = folder / "provenance.sqlite"
    store = ProvenanceStore(f"sqlite:///{path}")
    if store.find(response_id_of(0)) is None and not any(path.with_name("log").glob("*.wal")):
        results["shipping"] = measure_shipping(folder, store, 0, min(20_000, options.records))
    store.close()
    stored = fill(path, options.records, options.fill_seconds)
    if stored < options.records:
        print(f"{stored:,} rows so far: run again with the same --folder")
        return
    make_indexes(path)
    results["lookups"] = measure_lookups(store, folder, path, stored, options.lookups)
    results["tail"] = measure_tail(folder, store, 10_000, options.lookups // 10)
    results["shipping_at_the_end"] = measure_shipping(folder, store, stored, 10_000)
    store.close()


if __name__ == "__main__":
    main()
