"""uvicorn's HTTP connection with what it lacks: limits on heads, errors in our shape, hang-ups, and patient ends."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ml_platform.serving.gateway.exchange import new_response_id
from ml_platform.serving.gateway.failures import RETRY_SOON, HttpError

HEAD_BYTES = 32 << 10
LINGER_S = 2.0
IDLE_DRAIN_S = 2.0
"""Longer than a client that asks all the time ever pauses: its next answer tells it that the connection ends."""


class GatewayConnection(HttpToolsProtocol):
    """One connection of a client.

    `when_gone` is called if it hangs up before its answer. A head has `head_seconds` to arrive, from its first byte
    or from the connection's, and HEAD_BYTES at most.
    """

    head_seconds = 10.0
    most_connections = 4_096
    when_gone: Callable[[], object] | None = None
    gone = False
    ending = False

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(_Patient(transport, self))  # type: ignore[arg-type]
        if len(self.connections) > self.most_connections:
            self._refuse(HttpError(503, "overloaded", "too many connections. Try again.", headers=RETRY_SOON))
            return
        self._head_timer = self.loop.call_later(self.head_seconds, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.gone = True
        self._stop_timer()
        super().connection_lost(exc)
        if self.when_gone is not None:
            self.when_gone()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.transport.is_closing() and self.cycle is None:
            return
        super().data_received(data)
        if not self._in_head:
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HttpError(431, "head_too_large", f"a request's head may have {HEAD_BYTES:,} bytes at most."))

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        self.scope["connection"] = self  # type: ignore[typeddict-unknown-key]
        self._in_head, self._head_bytes = True, 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_late)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()
        if self.ending and self.cycle is not None:
            # Its answer says so: closed without a word, the connection might have the client's next request on it.
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """See httptools."""
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete and isinstance(self.transport, _Patient):
            self.cycle.more_body = False
            self.transport.end_if_closing()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets an error like any other."""
        self._refuse(HttpError(400, "invalid_http", f"this is no HTTP request: {msg}"))

    def shutdown(self) -> None:
        """Lets an idle connection end after a moment, in which a request that is on its way is still answered."""
        self.ending = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(IDLE_DRAIN_S, self._end_if_idle)
        else:
            self.cycle.keep_alive = False

    def _end_if_idle(self) -> None:
        if self._in_head and self._head_bytes:
            # A request has begun to arrive. It is answered, or refused when its head is late.
            self.loop.call_later(IDLE_DRAIN_S, self._end_if_idle)
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def _refuse(self, error: HttpError) -> None:
        response_id = new_response_id()
        body = orjson.dumps(error.body(response_id))
        lines = [
            f"HTTP/1.1 {error.status} {error.code}",
            "content-type: application/json",
            "connection: close",
            f"x-response-id: {response_id}",
            f"content-length: {len(body)}",
            *(f"{name}: {value}" for name, value in error.headers),
        ]
        head = "\r\n".join(lines) + "\r\n\r\n"
        self._stop_timer()
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _head_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._head_bytes:
            self._refuse(HttpError(408, "request_timeout", f"the head did not arrive within {self.head_seconds:g} s."))
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _Patient:
    """A transport that, told to close in the middle of a body, first lets the client read the answer.

    Closed with unread bytes in it, a connection is reset, and the client may never see why. So ours ends its side,
    drops what still comes, and closes once the body is through or nobody waits any more.
    """

    def __init__(self, transport: asyncio.Transport, connection: GatewayConnection) -> None:
        self._transport = transport
        self._connection = connection
        self._closing = False
        self._held: list[bytes] = []
        self.write: Callable[[bytes], object] = transport.write

    def hold(self) -> None:
        """Holds back what is written, so that uvicorn's head and body leave in one piece."""
        self.write = self._held.append

    def let_go(self) -> None:
        """Writes what was held back."""
        self.write = self._transport.write
        if self._held:
            self._transport.write(b"".join(self._held))
            self._held.clear()

    def close(self) -> None:
        """Closes, after a while if a body is still on its way."""
        self.let_go()
        cycle = self._connection.cycle
        halfway = self._connection._in_head or (cycle is not None and cycle.more_body)
        if self._closing or self._transport.is_closing() or not halfway or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._closing = True
        self._transport.write_eof()
        self._connection.flow.resume_reading()
        self._connection.loop.call_later(LINGER_S, self._transport.close)

    def end_if_closing(self) -> None:
        """Closes now what waited for the end of a body."""
        if self._closing:
            self._transport.close()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._closing or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
