"""uvicorn as the gateway wants it: no log of its own, our connections, and sockets that somebody else bound."""

import asyncio
import socket
from typing import Any

import uvicorn

from ml_platform.errors import BusyError
from ml_platform.serving.gateway.connection import GatewayConnection
from ml_platform.serving.gateway.settings import GatewaySettings

BACKLOG = 2048
IDLE_S = 75


class GatewayServer(uvicorn.Server):
    """A server that somebody else ends: `should_exit` stops accepting, finishes what has begun, and returns."""

    def __init__(self, app: Any, settings: GatewaySettings) -> None:
        limits = {"head_seconds": settings.head_seconds, "most_connections": settings.connections}
        limited = type("LimitedConnection", (GatewayConnection,), limits)
        super().__init__(
            uvicorn.Config(
                app,
                http=limited,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=settings.drain_seconds,
            )
        )

    async def serve_until(self, ended: asyncio.Event, sock: socket.socket) -> None:
        """Serves the socket until the event is set, then drains."""
        serving = asyncio.ensure_future(self._serve([sock]))
        waiting = asyncio.ensure_future(ended.wait())
        await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        self.should_exit = True
        waiting.cancel()
        await serving


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there, for several processes to accept from. Raises BusyError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise BusyError(
            f"{host}:{port} cannot be bound: {error.strerror or error}. End what listens there, or choose another "
            "address with --host and --port."
        ) from error
    return sock
