"""One request and its response: what an endpoint reads and writes, with every limit on what comes in."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import orjson

from ml_platform.serving.gateway.failures import HttpError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

BODY_BYTES = 64 << 10
BODY_SECONDS = 10.0
JSON: Header = (b"content-type", b"application/json")


class ClientGone(Exception):  # noqa: N818 - nobody made a mistake
    """The client hung up before its request was complete: there is nobody to tell."""


def new_response_id() -> str:
    """An id that nobody guesses, and that begins with the time: rows of one hour lie together in an index."""
    return f"resp_{time.time_ns() // 1_000_000:012x}{_random_bytes(10).hex()}"


_pool = bytearray()


def _random_bytes(count: int) -> bytes:
    """Random bytes of the system, a page at a time: each call of it lets go of the interpreter's lock."""
    if len(_pool) < count:
        _pool.extend(os.urandom(4096))
    taken = bytes(_pool[-count:])
    del _pool[-count:]
    return taken


class Connection(Protocol):
    """The client's connection, where the server shows it (see `connection.py`)."""

    when_gone: Callable[[], object] | None
    gone: bool
    transport: Any


class Exchange:
    """A request, its response id, and what was answered (`status`, None until then).

    `key_id` names the key that it showed, None for one that was never made here.
    """

    __slots__ = (
        "_receive", "_send", "body_bytes", "body_seconds", "headers", "key_id", "response_id", "scope", "status"
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.response_id = new_response_id()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.status: int | None = None
        self.key_id: str | None = None
        self.body_bytes = BODY_BYTES
        self.body_seconds = BODY_SECONDS
        self._receive = receive
        self._send = send

    def header(self, name: bytes) -> str | None:
        """A header as text, the last of several; bytes that are no UTF-8 are refused."""
        value = self.headers.get(name)
        if value is None:
            return None
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            shown = name.decode()
            raise HttpError(400, "invalid_header", f"the header {shown} is no UTF-8 text.", shown) from None

    async def json_body(self) -> bytes:
        """The bytes of a body that says it is JSON. Raises HttpError: 415, 413, 408; ClientGone."""
        return await self.body_of_kind(b"application/json")

    async def body_of_kind(self, expected: bytes) -> bytes:
        """The bytes of a body that says it is of that media type. Raises HttpError: 415, 413, 408; ClientGone."""
        kind = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != expected:
            found = kind.decode("latin-1")[:60] or "nothing"
            raise HttpError(
                415,
                "unsupported_media_type",
                f"the content-type is {found}, expected {expected.decode()}.",
                "content-type",
                closes=True,
            )
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            message = "compressed bodies are not read. Send it as it is."
            raise HttpError(415, "unsupported_encoding", message, "content-encoding", closes=True)
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.body_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self.body_seconds):
                return await self._body()
        except TimeoutError:
            raise HttpError(
                408, "request_timeout", f"the body did not arrive within {self.body_seconds:g} s.", closes=True
            ) from None

    async def _body(self) -> bytes:
        message = await self._receive()
        whole = cast("bytes", message.get("body", b""))
        while message["type"] == "http.request" and message.get("more_body"):
            if len(whole) > self.body_bytes:
                raise self._too_large()
            message = await self._receive()
            whole += message.get("body", b"")
        if message["type"] == "http.disconnect":
            raise ClientGone
        if len(whole) > self.body_bytes:
            raise self._too_large()
        return whole

    def _too_large(self) -> HttpError:
        return HttpError(413, "body_too_large", f"a body may have {self.body_bytes:,} bytes at most.", closes=True)

    @asynccontextmanager
    async def hang_up_cancels(self) -> AsyncIterator[None]:
        """Within the block, a client that hangs up cancels what is done for it. Raises ClientGone then."""
        connection: Connection | None = self.scope.get("connection")
        task = asyncio.current_task()
        if connection is None or task is None:
            yield
            return
        if connection.gone:
            raise ClientGone
        connection.when_gone = task.cancel
        try:
            yield
        except asyncio.CancelledError:
            if not connection.gone:
                raise
            task.uncancel()
            raise ClientGone from None
        finally:
            connection.when_gone = None

    async def respond(self, status: int, body: bytes, headers: Iterable[Header] = (JSON,)) -> None:
        """Sends a whole response, with its response id."""
        self.status = status
        length = str(len(body)).encode()
        everything = [(b"x-response-id", self.response_id.encode()), (b"content-length", length), *headers]
        connection: Connection | None = self.scope.get("connection")
        if connection is not None:
            connection.transport.hold()
        try:
            await self._send({"type": "http.response.start", "status": status, "headers": everything})
            await self._send({"type": "http.response.body", "body": body})
        finally:
            if connection is not None:
                connection.transport.let_go()

    async def respond_json(self, status: int, value: Any) -> None:
        """Sends a value as JSON."""
        await self.respond(status, orjson.dumps(value))

    async def fail(self, error: HttpError) -> None:
        """Sends an error, unless the response has begun: then the connection ends with it."""
        if self.status is not None:
            return
        extra = [(name.encode(), value.encode()) for name, value in error.headers]
        if error.closes:
            extra.append((b"connection", b"close"))
        await self.respond(error.status, orjson.dumps(error.body(self.response_id)), [JSON, *extra])
