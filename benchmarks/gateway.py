"""What the gateway costs: requests a second and core, added latency, a chunk of a stream; LiteLLM beside it.

    python -m benchmarks.gateway --rounds 3 --out results/gateway.json

Everything is on: keys, limits, guardrails, features and lookups of flight_assistant, provenance that is synced to the
disk, metrics. Only the engine answers at once. The gateway has one worker and one core to itself, all its threads on
it; the engine, the load and the shipping of records share the other. LiteLLM's proxy runs on that same core with the
same engine, in the same rounds, and does much less there: it checks a key and forwards. It is installed into an
environment of its own beside the repository (`--litellm`), the first time, with pip.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.served_home import Served, make_served_home
from benchmarks.trace import machine
from ml_platform.lineage.provenance.shipping import Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.serving.gateway.access import ensure_local_key

ROOT = Path(__file__).resolve().parents[1]
CHAT = "/v1/chat/completions"
SERVER_CORE, LOAD_CORE = 0, 1
STEADY_RATE = 100.0
GENTLE_RATE = 25.0
PATIENCE_S = 120.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A server that is measured: where it listens, how it is asked, and whose processor time counts."""

    name: str
    port: int
    headers: dict[str, str]
    pid: int | None


def free_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: Sequence[str], log: Path, core: int | None = None, **environment: str) -> Iterator[int]:
    """A process of ours on one core, ended afterwards; yields its id."""
    pinned = ["taskset", "-c", str(core), *command] if core is not None else list(command)
    with log.open("ab") as file:
        running = subprocess.Popen(
            pinned, cwd=ROOT, env={**os.environ, **environment}, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield running.pid
    finally:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_for(url: str, log: Path, headers: dict[str, str] | None = None) -> None:
    """Returns once a URL answers with 200; shows the log of whoever did not come."""
    end, said = time.monotonic() + PATIENCE_S, ""
    while time.monotonic() < end:
        try:
            request = urllib.request.Request(url, headers=headers or {})  # noqa: S310 - loopback
            with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 - likewise
                if response.status == 200:
                    return
        except (OSError, urllib.error.URLError) as error:
            said = str(error)
        time.sleep(0.1)
    raise SystemExit(f"{url} does not answer: {said}\n{log.read_text('utf-8', 'replace')[-3000:]}")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of all its descendants, so far."""
    total, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICKS
        waiting += [int(child) for child in children]
    return total


def run_load(server: Server, bodies: list[str], folder: Path, **plan: Any) -> dict[str, Any]:
    """The figures of one load, with the processor time that the server took for it."""
    path = folder / "plan.json"
    whole = {"port": server.port, "path": CHAT, "headers": server.headers, "bodies": bodies, "core": LOAD_CORE, **plan}
    path.write_text(json.dumps(whole), encoding="utf-8")
    before = cpu_seconds(server.pid) if server.pid else 0.0
    command = [sys.executable, "-m", "benchmarks.load", "--plan", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the load on {server.name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    used = (cpu_seconds(server.pid) if server.pid else 0.0) - before
    answered = found["statuses"].get("200", 0)
    if answered != found["answers"] or found["failures"]:
        print(f"{server.name}: {found['statuses']} {found['failures']}\n{found['example'][:600]}", file=sys.stderr)
    seconds = whole["seconds"] + whole.get("warm_up_seconds", 1.0)
    found["cpu_us_each"] = 1e6 * used / max(1.0, found["per_s"] * seconds)
    return found


@contextmanager
def engine(folder: Path, chunks: int = 24) -> Iterator[int]:
    """The instant engine; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.instant_engine", "--port", str(port), "--chunks", str(chunks)]
    with process(command, folder / "engine.log", LOAD_CORE):
        wait_for(f"http://127.0.0.1:{port}/health", folder / "engine.log")
        yield port


@contextmanager
def our_gateway(
    served: Served, folder: Path, engine_port: int, workers: int = 1, core: int | None = SERVER_CORE
) -> Iterator[Server]:
    """The gateway as `mlp gateway` starts it, with everything on."""
    port, log = free_port(), folder / "gateway.log"
    key = ensure_local_key(served.home).read_text(encoding="utf-8").strip()
    command = [str(Path(sys.executable).with_name("mlp")), "gateway", "--port", str(port), "--workers", str(workers)]
    command += ["--engine-url", f"http://127.0.0.1:{engine_port}"]
    with process(command, log, core, ML_PLATFORM_HOME=str(served.home.root)) as pid:
        wait_for(f"http://127.0.0.1:{port}/readyz", log)
        yield Server("gateway", port, {"authorization": f"Bearer {key}"}, pid)


def litellm_at(folder: Path) -> Path:
    """LiteLLM's environment, made with pip where there is none yet; its command."""
    command = folder / "bin" / "litellm"
    if not command.exists():
        print(f"installing LiteLLM into {folder} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", "litellm[proxy]"], check=True)
    return command


@contextmanager
def litellm(command: Path, folder: Path, engine_port: int) -> Iterator[Server]:
    """LiteLLM's proxy with one worker, in front of the same engine."""
    port, log, key = free_port(), folder / "litellm.log", f"sk-{secrets.token_hex(8)}"
    parameters = {"model": "openai/stub", "api_base": f"http://127.0.0.1:{engine_port}/v1", "api_key": "none"}
    settings = {
        "model_list": [{"model_name": "flight_assistant", "litellm_params": parameters}],
        "general_settings": {"master_key": key},
        "litellm_settings": {"telemetry": False},
    }
    (folder / "litellm.yaml").write_text(json.dumps(settings), encoding="utf-8")
    called = [str(command), "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with process([*called, "--num_workers", "1"], log, SERVER_CORE, **offline) as pid:
        wait_for(f"http://127.0.0.1:{port}/health/liveliness", log)
        yield Server("litellm", port, {"authorization": f"Bearer {key}"}, pid)


def measure(server: Server, served: Served, folder: Path, seconds: float) -> dict[str, Any]:
    """One server in one round: how much it does, how much it adds at a steady rate, and what streaming costs."""
    whole, streamed = served.bodies(2_000), served.bodies(2_000, stream=True)
    found = {
        "most": run_load(server, whole, folder, seconds=seconds, connections=16, warm_up_seconds=2.0),
        "steady": run_load(server, whole, folder, seconds=seconds, rate=STEADY_RATE, connections=8),
        "gentle": run_load(server, whole, folder, seconds=seconds, rate=GENTLE_RATE, connections=8),
        "streamed": run_load(server, streamed, folder, seconds=seconds, connections=16),
    }
    p99 = found["steady"]["latency_ms"]["p99"]
    print(f"{server.name}: {found['most']['per_s']:,.0f}/s, p99 {p99:.2f} ms at 100/s", file=sys.stderr)
    return found


def recorded(served: Served, answered: int) -> dict[str, int]:
    """Ships what was logged and compares with what left: there must be a record for each answer."""
    store = ProvenanceStore(served.home.provenance_url)
    shipped = Shipper(served.home.provenance_log, store).ship()
    conflicts = len(store.conflicts())
    store.close()
    return {"answered_in_the_measured_time": answered, "records_shipped": shipped.frames, "conflicts": conflicts}


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, with what the targets are about."""

    def median(name: str, *path: str) -> float | None:
        values = []
        for one in rounds:
            value: Any = one.get(name)
            for key in path:
                value = None if value is None else value.get(key)
            values += [] if value is None else [float(value)]
        return statistics.median(values) if values else None

    found: dict[str, Any] = {}
    for name in [name for name in ("gateway", "litellm") if name in rounds[0]]:
        whole, streamed = median(name, "most", "cpu_us_each") or 0.0, median(name, "streamed", "cpu_us_each") or 0.0
        events = median(name, "streamed", "events_per_answer") or 1.0
        found[name] = {
            "per_s": median(name, "most", "per_s"),
            "cpu_us_each": whole,
            "per_cpu_second": 1e6 / whole if whole else None,
            "streamed_per_s": median(name, "streamed", "per_s"),
            "events_per_answer": events,
            "us_a_chunk": (streamed - whole) / events,
        }
        for load in ("steady", "gentle"):
            for share in ("p50", "p99"):
                ours = median(name, load, "latency_ms", share) or 0.0
                bare = median("direct", load, "latency_ms", share) or 0.0
                found[name][f"{load}_{share}_ms"] = ours
                found[name][f"{load}_added_{share}_ms"] = ours - bare
    if "litellm" in found:
        found["times_litellm"] = found["gateway"]["per_s"] / found["litellm"]["per_s"]
    return found


def main() -> None:
    """Measures in turns, prints the figures, and writes them when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--chunks", type=int, default=24, help="in which the engine streams")
    parser.add_argument("--litellm", type=Path, default=Path(tempfile.gettempdir()) / "ml_platform_litellm")
    parser.add_argument("--without-litellm", action="store_true")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    command = None if options.without_litellm else litellm_at(options.litellm)
    results: dict[str, Any] = {"machine": machine(), "rounds": []}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        served = make_served_home(folder / "home")
        engine_port = stack.enter_context(engine(folder, options.chunks))
        servers = [Server("direct", engine_port, {}, None)]
        servers.append(stack.enter_context(our_gateway(served, folder, engine_port)))
        if command is not None:
            servers.append(stack.enter_context(litellm(command, folder, engine_port)))
        for _ in range(options.rounds):
            results["rounds"].append({one.name: measure(one, served, folder, options.seconds) for one in servers})
        answers = [load["answers"] for one in results["rounds"] for load in one["gateway"].values()]
        results["records"] = recorded(served, sum(answers))
    results["summary"] = summary(results["rounds"])
    print(json.dumps({key: results[key] for key in ("machine", "records", "summary")}, indent=2))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
