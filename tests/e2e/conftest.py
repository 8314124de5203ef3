"""The real webserver and daemon as processes, on a tiny product."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tiny_product import write_tiny_product
from ml_platform.contracts.home import Home
from resources.runs import open_instance
from resources.state import PROJECT

SECONDS_TO_START = 90.0
SECONDS_TO_FINISH = 240.0


@dataclass(frozen=True)
class Deployment:
    """A running webserver and daemon; `ask` speaks GraphQL as the UI does."""

    url: str
    home: Home
    product: str
    logs: Path

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def wait_for(self, what: str, found: Callable[[], Any], seconds: float = SECONDS_TO_FINISH) -> Any:
        """What `found` gives once it is neither None nor False; fails with the processes' own words."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if result := found():
                return result
            time.sleep(0.25)
        words = "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.logs.glob("*.log")))
        pytest.fail(f"{what} did not happen within {seconds:.0f} s\n{words}")


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Webserver and daemon for a tiny product in a home of its own."""
    folder = write_tiny_product(tmp_path_factory.mktemp("products"))
    home, logs = Home(tmp_path_factory.mktemp("home")), tmp_path_factory.mktemp("logs")
    with deployed(folder, folder.name, home, logs) as running:
        yield running


@contextlib.contextmanager
def deployed(products: Path, name: str, home: Home, logs: Path) -> Iterator[Deployment]:
    """Webserver and daemon on the shipped workspace and instance settings, on a free port of loopback."""
    port = free_port()
    with open_instance(home):
        pass
    environment = {
        **os.environ,
        "ML_PLATFORM_HOME": str(home.root),
        "ML_PLATFORM_PRODUCTS": str(products),
        "DAGSTER_HOME": str(home.dagster),
    }
    scripts, workspace = Path(sys.executable).parent, ["-w", str(PROJECT / "workspace.yaml")]
    commands = {
        "webserver": [str(scripts / "dagster-webserver"), *workspace, "-h", "127.0.0.1", "-p", str(port)],
        "daemon": [str(scripts / "dagster-daemon"), "run", *workspace],
    }
    running = Deployment(f"http://127.0.0.1:{port}", home, name, logs)
    started = []
    try:
        for process_name, command in commands.items():
            with (logs / f"{process_name}.log").open("w") as log:
                process = subprocess.Popen(
                    command, env=environment, cwd=logs, stdout=log, stderr=log, start_new_session=True
                )
            started.append(process)
        running.wait_for("the webserver's answer", lambda: loaded(running), SECONDS_TO_START)
        yield running
    finally:
        for process in started:
            end(process)


def loaded(running: Deployment) -> bool:
    """Whether the code location has loaded; fails the test when it cannot be loaded."""
    query = "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"
    try:
        entries = running.ask(query)["workspaceOrError"]["locationEntries"]
    except (urllib.error.URLError, ConnectionError):
        return False
    assert "PythonError" not in str(entries), entries
    return bool(entries) and entries[0]["locationOrLoadError"] is not None


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and all that it started: they share its session."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
