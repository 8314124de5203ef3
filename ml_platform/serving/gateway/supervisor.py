"""The parent of a gateway: it binds the address once, keeps its workers alive, and ends them in peace."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ml_platform.contracts.home import Home
from ml_platform.errors import BusyError, OperationError
from ml_platform.serving.gateway.measuring import MULTIPROCESS
from ml_platform.serving.gateway.rates import new_table_file
from ml_platform.serving.gateway.server import bind
from ml_platform.serving.gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)

READY = b"ready\n"
SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
ORPHANS_S = 3.0
PATIENCE_S = 5.0
"""How much longer than its drain a worker may take before it is killed."""


def run_gateway(home: Home, settings: GatewaySettings, listening: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT. `listening` is told the URL once a worker answers.

    Raises BusyError for an address that is taken, OperationError when workers cannot begin.
    """
    home.work.mkdir(parents=True, exist_ok=True)
    with (
        _bind_soon(settings) as sock,
        tempfile.TemporaryDirectory(prefix="gateway-metrics-", dir=home.work) as figures,
    ):
        asyncio.run(_Supervisor(home, settings, sock, Path(figures), listening).run())


def _bind_soon(settings: GatewaySettings) -> socket.socket:
    """The address, which the workers of a gateway that was killed let go of in a moment."""
    end = time.monotonic() + ORPHANS_S
    while True:
        try:
            return bind(settings.host, settings.port)
        except BusyError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class _Supervisor:
    def __init__(
        self,
        home: Home,
        settings: GatewaySettings,
        sock: socket.socket,
        figures: Path,
        listening: Callable[[str], None],
    ) -> None:
        self._settings, self._sock, self._figures, self._listening = settings, sock, figures, listening
        self._rates = new_table_file()
        self._environment = os.environ | {"ML_PLATFORM_HOME": str(home.root), MULTIPROCESS: str(figures)}
        self._ended = asyncio.Event()
        self._told = False
        self._failure: str | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        try:
            async with asyncio.TaskGroup() as group:
                for place in range(self._settings.workers):
                    group.create_task(self._keep_alive(place))
        finally:
            os.close(self._rates)
        if self._failure:
            raise OperationError(self._failure)

    async def _keep_alive(self, number: int) -> None:
        """One place for a worker: whoever dies in it is replaced, at once if he had ever answered."""
        pause_s = SHORTEST_PAUSE_S
        while not self._ended.is_set():
            process = await self._start()
            was_ready = await self._one_life(process)
            self._forget_figures(process.pid)
            if self._ended.is_set():
                return
            if not was_ready and process.returncode == 1 and not self._told:
                self._failure = "no worker of the gateway can begin: its log says why. Correct that and start again."
                self._ended.set()
                return
            pause_s = SHORTEST_PAUSE_S if was_ready else min(2 * pause_s, LONGEST_PAUSE_S)
            logger.error("worker %d died (exit %s) and is replaced", number, process.returncode)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), pause_s)

    async def _start(self) -> asyncio.subprocess.Process:
        sock, rates = self._sock.fileno(), self._rates
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ml_platform.serving.gateway.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            pass_fds=(sock, rates),
        )
        told = {"settings": self._settings.model_dump(mode="json"), "socket": sock, "rates": rates}
        assert process.stdin is not None  # noqa: S101 - asked for above
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(told).encode() + b"\n")
            await process.stdin.drain()
        return process

    async def _one_life(self, process: asyncio.subprocess.Process) -> bool:
        """Waits for the end of a worker, ending it when all end; whether it ever answered."""
        assert process.stdout is not None  # noqa: S101 - asked for in `_start`
        ending = asyncio.create_task(self._end_in_time(process))
        was_ready = await process.stdout.readline() == READY
        if was_ready and not self._told:
            self._told = True
            host, port = self._sock.getsockname()[:2]
            self._listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await process.wait()
        ending.cancel()
        return was_ready

    async def _end_in_time(self, process: asyncio.subprocess.Process) -> None:
        await self._ended.wait()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            await asyncio.sleep(self._settings.drain_seconds + PATIENCE_S)
            logger.error("worker %d did not end in time and is killed", process.pid)
            process.kill()

    def _forget_figures(self, process_id: int) -> None:
        """What a dead worker counted stays; what it was like goes."""
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(process_id, str(self._figures))  # type: ignore[no-untyped-call]
