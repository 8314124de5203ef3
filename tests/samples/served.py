"""Everything that serves, as processes: a real engine on the tiny model, real adapters, the gateway, the shipper."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ml_platform.contracts.release import Release
from ml_platform.lineage.artifacts import Artifact
from tests.samples.engine import make_adapter
from tests.samples.followed import World
from tests.samples.releases import OPERATOR
from tests.samples.tiny_lora import tiny_base

ROOT = Path(__file__).resolve().parents[2]
MLP = str(Path(sys.executable).with_name("mlp"))
PATIENCE_S = 90.0


@dataclass
class TinyServed(World):
    """A world whose releases are real adapters on the tiny model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.model = tiny_base(self.home)

    def candidate(self, seed: int, **_: bytes) -> Artifact:
        """A candidate with an adapter as training writes it."""

        def build(folder: Path) -> Mapping[str, Any]:
            make_adapter(folder / "adapter", self.model, seed, 4, ["q_proj", "v_proj"])
            return {"seed": seed}

        return self.store.make("candidate", {"seed": seed, "base": self.model.sha256}, build)

    def release(self, seed: int, **files: bytes) -> Release:
        """A release whose parts are all in the store."""
        plain = super().release(seed, **files).model_dump()
        plain["model"] |= {"base_model": self.model.name, "base_sha256": self.model.sha256}
        return Release.model_validate(plain)

    @property
    def environment(self) -> dict[str, str]:
        """What the processes of this world are told."""
        return {
            **os.environ,
            "ML_PLATFORM_HOME": str(self.home.root),
            "ML_PLATFORM_LEDGER_URL": self.url,
            "ML_PLATFORM_TRUSTED_KEYS": self.key.public.public_key,
            "ML_PLATFORM_TRUSTED_OPERATORS": OPERATOR.public.public_key,
            "OMP_WAIT_POLICY": "PASSIVE",
        }


@dataclass
class Processes:
    """`mlp engine`, `mlp gateway` and `mlp ship` of a world; a context that ends them all.

    Whoever ends is started again on the same port, as `mlp up` does; `kill` kills one as hard as the system does.
    """

    world: TinyServed
    workers: int = 2
    more: Mapping[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.engine_port, self.port = _free_port(), _free_port()
        self._drains: list[threading.Thread] = []
        self._ended = threading.Event()
        self._start("engine", wait=True)
        self._start("gateway", wait=True)
        self._start("ship")
        self._supervisor = threading.Thread(target=self._keep_alive, name="supervisor")
        self._supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._supervisor.join()
        for name in ("gateway", "engine", "ship"):
            self._end(name)
        for thread in self._drains:
            thread.join(PATIENCE_S)

    @property
    def url(self) -> str:
        """Where the gateway listens."""
        return f"http://127.0.0.1:{self.port}"

    def _keep_alive(self) -> None:
        while not self._ended.wait(0.1):
            for name, process in list(self.running.items()):
                if process.poll() is not None:
                    self._start(name)

    def _start(self, name: str, *, wait: bool = False) -> None:
        """Starts a process; `wait` returns once it says where it listens."""
        engine_url = f"http://127.0.0.1:{self.engine_port}"
        base = str(self.world.home.root.parent / "tiny-model")
        arguments = {
            "engine": ["--port", str(self.engine_port), "--base", base, "--threads", "1", "--json"],
            "gateway": ["--port", str(self.port), "--workers", str(self.workers), "--engine-url", engine_url, "--json"],
            "ship": [],
        }
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [MLP, name, *arguments[name]],
                cwd=ROOT,
                env={**self.world.environment, **self.more},
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.running[name] = process
        told = threading.Event()
        drain = threading.Thread(target=_drain, args=(process, told), daemon=True)
        drain.start()
        self._drains.append(drain)
        if wait:
            assert told.wait(PATIENCE_S), f"{name} did not begin: {self.log(name).read_text('utf-8')[-2000:]}"
            assert process.poll() is None, f"{name} ended: {self.log(name).read_text('utf-8')[-2000:]}"

    def _end(self, name: str) -> None:
        process = self.running[name]
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self, name: str) -> None:
        """Kills a process; it is started again in a moment."""
        self.running[name].kill()

    def worker_ids(self) -> list[int]:
        """The gateway's workers that live now."""
        parent = self.running["gateway"].pid
        children = Path(f"/proc/{parent}/task/{parent}/children")
        return [int(child) for child in children.read_text().split()] if children.exists() else []

    def log(self, name: str) -> Path:
        """What a process said."""
        return self.world.home.root.parent / f"{name}.log"


def _drain(process: subprocess.Popen[bytes], told: threading.Event) -> None:
    """Reads what a process says, so that it never waits; its first document ends with a brace at the beginning."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if line.rstrip() == b"}":
                told.set()
    told.set()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Returns once it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"after {seconds:.0f} s still not: {what}"
        time.sleep(0.05)
