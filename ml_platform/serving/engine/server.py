"""The engine as a process: it says where it listens, and on SIGTERM finishes what it has begun."""

import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from ml_platform.errors import BusyError, EngineError
from ml_platform.serving.engine.app import EngineApp

KEEP_ALIVE_SECONDS = 120
"""Longer than any client keeps an idle connection, so that no request meets one that is just closing."""

DRAIN_SECONDS = 30.0


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises BusyError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise BusyError(f"{host}:{port} cannot be bound: {error.strerror}. Choose another port with --port.") from None
    return listener


def serve(
    app: EngineApp, listener: socket.socket, ready: Callable[[], None], drain_seconds: float = DRAIN_SECONDS
) -> None:
    """Serves until SIGTERM or SIGINT, then until every answer that was begun is out, or `drain_seconds` passed.

    Raises EngineError when the thread of the model ended by itself: whoever supervises starts the engine anew.
    """
    server = make_server(app, ready, drain_seconds)
    server.run(sockets=[listener])
    if server.lost_model:
        raise EngineError("the thread of the model ended; the log above says why. Start the engine again.")


def make_server(app: EngineApp, ready: Callable[[], None], drain_seconds: float = DRAIN_SECONDS) -> Any:
    """A uvicorn server that drains; `ready` is called when it listens."""
    import uvicorn

    class Draining(uvicorn.Server):
        """Lives on after the first signal for as long as answers are on their way; a second one ends it at once."""

        drained_by = float("inf")
        lost_model = False

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if app.draining:
                super().handle_exit(sig, frame)
                return
            app.draining = True
            self.drained_by = time.monotonic() + drain_seconds

        async def on_tick(self, counter: int) -> bool:
            if not app.draining and not app.engine.scheduler.alive:
                app.draining = self.lost_model = True
                self.drained_by = time.monotonic() + 1.0
            if app.draining and (not app.running or time.monotonic() >= self.drained_by):
                self.should_exit = True
            return await super().on_tick(counter)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=2,
        date_header=False,
        server_header=False,
    )
    return Draining(config)
