"""One worker process: it is told what to do on its standard input, whose end is the end of its parent.

It says `ready` on its standard output once it answers. SIGTERM, SIGINT or the end of the parent drain it: it accepts
nothing more, finishes what it has begun, seals its log and ends.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys

import uvloop

from ml_platform.contracts.home import Home
from ml_platform.errors import MlPlatformError
from ml_platform.serving.gateway.logs import log_as_json
from ml_platform.serving.gateway.measuring import keep_measuring
from ml_platform.serving.gateway.rates import RateTable
from ml_platform.serving.gateway.server import GatewayServer
from ml_platform.serving.gateway.settings import GatewaySettings
from ml_platform.serving.gateway.wiring import Worker, put_together

logger = logging.getLogger(__name__)

REFUSED = 1
OPEN_FILES = 65_536
"""Each connection is one; many systems begin with 1,024."""
FIRST_LOOK_SECONDS = 30.0
"""Longer than releases take to load; a worker that cannot load them answers too, and says that it is not ready."""


def main() -> int:
    """Works until it is told to end; 1 when it cannot begin, with the reason on stderr."""
    log_as_json()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, OPEN_FILES), most))
    told = json.loads(sys.stdin.readline())
    settings = GatewaySettings.parse(told["settings"], where="the settings of the gateway")
    sock, table = socket.socket(fileno=told["socket"]), RateTable(told["rates"])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(work(Home.from_environment(), settings, sock, table))
        except MlPlatformError as error:
            logger.error("this worker cannot begin: %s", error)  # noqa: TRY400 - the message says it all
            return REFUSED
    return 0


def end(code: int) -> None:
    """Ends the process at once: all that matters is on the disk, and taking large libraries apart takes seconds."""
    logging.shutdown()
    os._exit(code)


async def work(home: Home, settings: GatewaySettings, sock: socket.socket, table: RateTable) -> None:
    """Answers until it is told to end."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    stdin = sys.stdin.fileno()

    def orphaned() -> None:
        loop.remove_reader(stdin)
        ended.set()

    # Nothing more comes from the parent; when it dies, the system ends the pipe.
    loop.add_reader(stdin, orphaned)
    async with put_together(home, settings, table) as worker:
        await _first_look(worker, ended)
        if ended.is_set():
            return
        # What is there now stays, so that collecting garbage need not walk through all of it again and again.
        gc.collect()
        gc.freeze()
        beside = [asyncio.create_task(worker.follower.follow()), asyncio.create_task(keep_measuring(worker))]
        try:
            server = GatewayServer(worker.app, settings)
            serving = asyncio.create_task(server.serve_until(ended, sock))
            with contextlib.suppress(BrokenPipeError):  # the parent is gone: `ended` says so, too
                print("ready", flush=True)
            await serving
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)


async def _first_look(worker: Worker, ended: asyncio.Event) -> None:
    """Waits until what the ledger names is loaded, or has failed, so that the first request finds it."""

    async def looked() -> None:
        await worker.follower.look()
        await worker.follower.settled()

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_LOOK_SECONDS):
            looking, ending = asyncio.create_task(looked()), asyncio.create_task(ended.wait())
            try:
                await asyncio.wait((looking, ending), return_when=asyncio.FIRST_COMPLETED)
            finally:
                looking.cancel()
                ending.cancel()


if __name__ == "__main__":
    end(main())
