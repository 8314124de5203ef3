"""HTTP/1.1 to one server and nothing more: a third of the CPU of a whole HTTP client, in the path of every answer."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

IDLE_SECONDS = 60.0
"""Idle connections are given up on this side first: servers keep them longer, or say that they close them."""

MOST_BYTES = 16 << 20


class WireError(Exception):
    """The connection failed, or what came over it is no HTTP."""


class Wire:
    """Kept connections to a server. Whoever is cancelled in a call closes the connection that it was made on."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._fixed = f"host: {parts.netloc.rpartition('@')[2]}\r\n{lines}"
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: bytes, headers: str = "") -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body of one answer; `headers` are whole lines.

        A kept connection that the server closed meanwhile is replaced once. Raises WireError.
        """
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._fixed}{headers}content-length: {len(body)}\r\n\r\n"
        request = head.encode("latin-1") + body
        try:
            kept = self._take()
            if kept is not None:
                try:
                    return await self._exchange(*kept, request)
                except (asyncio.IncompleteReadError, ConnectionError) as error:
                    if getattr(error, "partial", b""):
                        raise
            return await self._exchange(*await self._open(), request)
        except asyncio.IncompleteReadError:
            raise WireError("the connection was closed before the answer was complete") from None
        except (OSError, ValueError, asyncio.LimitOverrunError) as error:
            raise WireError(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Closes all idle connections."""
        for _, _, writer in self._idle:
            writer.transport.abort()
        self._idle.clear()

    def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The connection that was used last, if there is one that is not closed or old."""
        oldest = time.monotonic() - IDLE_SECONDS
        while self._idle:
            since, reader, writer = self._idle.pop()
            if since > oldest and not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.transport.abort()
        return None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, self._port, ssl=self._tls)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        whole = False
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            status, headers = _parse_head(head)
            body = await _read_body(reader, headers)
            whole = headers.get("connection", "").lower() != "close"
        finally:
            if whole:
                self._idle.append((time.monotonic(), reader, writer))
            else:
                writer.transport.abort()
        return status, headers, body


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/1."):
        raise ValueError(f"no HTTP: {first[:80]!r}")
    pairs = (line.partition(":") for line in lines if line)
    return int(first[9:12]), {name.lower(): value.strip() for name, _, value in pairs}


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(_bounded(int(headers["content-length"])))
    if headers.get("transfer-encoding", "").lower() != "chunked":
        raise ValueError("the answer has neither content-length nor chunks")
    pieces: list[bytes] = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        pieces.append(await reader.readexactly(_bounded(size)))
        _bounded(sum(map(len, pieces)))
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return b"".join(pieces)


def _bounded(size: int) -> int:
    if not 0 <= size <= MOST_BYTES:
        raise ValueError(f"the answer has {size} bytes")
    return size
