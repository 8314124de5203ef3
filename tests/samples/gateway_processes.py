"""`mlp gateway` as people start it, before an engine that answers at once, on a home with a proven release."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from ml_platform.contracts.home import Home
from ml_platform.serving.gateway.access import ensure_local_key
from tests.samples.followed import BASE, World
from tests.samples.releases import OPERATOR, PRODUCT

ROOT = Path(__file__).resolve().parents[2]
MLP = str(Path(sys.executable).with_name("mlp"))
PATIENCE_S = 90.0


@dataclass
class GatewayProcess:
    """A gateway that runs in processes of its own."""

    process: subprocess.Popen[str]
    url: str
    token: str
    home: Home

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def workers(self) -> list[int]:
        """The process ids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def instant_engine(answer: str = "Yes.") -> Iterator[str]:
    """The URL of an engine that answers at once, whatever is asked."""
    command = [sys.executable, "-m", "benchmarks.instant_engine", "--base", BASE, "--answer", answer]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.kill()


def environment(world: World) -> dict[str, str]:
    return {
        **os.environ,
        "ML_PLATFORM_HOME": str(world.home.root),
        "ML_PLATFORM_TRUSTED_KEYS": world.key.public.public_key,
        "ML_PLATFORM_TRUSTED_OPERATORS": OPERATOR.public.public_key,
        "OMP_WAIT_POLICY": "PASSIVE",
    }


@contextmanager
def gateway_process(world: World, engine_url: str, *options: str, stderr: Any = None) -> Iterator[GatewayProcess]:
    """The gateway, once a worker answers; killed at the end of the block if it still runs."""
    token = ensure_local_key(world.home).read_text().strip()
    limits = ["--user-rate", "100000", "--user-burst", "100000"]
    command = [MLP, "gateway", "--port", "0", "--engine-url", engine_url, "--json", *limits, *options]
    told = environment(world)
    with subprocess.Popen(command, cwd=ROOT, env=told, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        assert process.stdout is not None
        said = ""
        while not said.endswith("}\n"):
            line = process.stdout.readline()
            assert line, "the gateway ended before it answered"
            said += line
        try:
            yield GatewayProcess(process, json.loads(said)["url"], token, world.home)
        finally:
            process.kill()


def until(holds: Any, what: str) -> None:
    """Waits until something holds."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE_S:g} s"
        time.sleep(0.05)


def alive(process_id: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[:1]
    except FileNotFoundError:
        return False


@dataclass
class Load:
    """Clients that ask one question after the other, each on its own connection; what became of their requests."""

    gateway: GatewayProcess
    clients: int = 8
    answered: list[str] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    refused: int = 0

    async def ask_until(self, ended: asyncio.Event, *, reconnect: bool) -> None:
        """Asks until the event is set; a client whose connection ended stops, or, with `reconnect`, goes on."""
        await asyncio.gather(*(self._client(number, ended, reconnect) for number in range(self.clients)))

    async def _client(self, number: int, ended: asyncio.Event, reconnect: bool) -> None:
        while not ended.is_set():
            async with aiohttp.ClientSession(headers=self.gateway.headers) as session:
                await self._ask_on(session, number, ended)
            if not reconnect:
                return
            await asyncio.sleep(0.01)

    async def _ask_on(self, session: aiohttp.ClientSession, number: int, ended: asyncio.Event) -> None:
        body = {"model": PRODUCT, "messages": [{"role": "user", "content": "Is it?"}], "user": f"user-{number}"}
        while not ended.is_set():
            try:
                async with session.post(f"{self.gateway.url}/v1/chat/completions", json=body) as answer:
                    said = await answer.json()
                    self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
                    if answer.status == 200:
                        self.answered.append(said["id"])
                    if answer.headers.get("connection") == "close":
                        return
            except aiohttp.ClientConnectorError:
                self.refused += 1
                return
            except aiohttp.ClientError as error:
                self.broken.append(repr(error))
                return
