"""The gateway's side of an engine: ours or vLLM, by the same calls, with typed errors and a deadline on each."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.report import Decoding
from ml_platform.errors import DeadlineError, EngineError
from ml_platform.serving.deadline import HEADER, Deadline
from ml_platform.serving.engine_answers import (
    Generated,
    broken_error,
    gathered_answer,
    json_object,
    late_error,
    refusal,
    whole_answer,
)
from ml_platform.serving.engine_wire import IDLE_SECONDS, Wire, WireError

if TYPE_CHECKING:
    import aiohttp

__all__ = ["EngineClient", "Generated"]

ALREADY_LOADED = b"already been loaded"
"""vLLM's 400 for an adapter that it holds: names carry the digest of the bytes, so it is the same one."""


OK = 200
COMPLETIONS = "/v1/chat/completions"


class EngineClient:
    """Calls one engine over kept connections. Make it inside the event loop; `close` it there.

    Every call ends by its deadline. Raises EngineBusyError (full, or shutting down), DeadlineError (too late),
    AdapterMissingError (not loaded), and EngineError for all else: refused, broken off, unreachable.
    """

    def __init__(self, url: str, *, token: str | None = None, stream: bool = False) -> None:
        """`stream` asks for tokens one by one, which tells the time of the first token of engines that do not."""
        import aiohttp

        self.url = url.rstrip("/")
        self._stream = stream
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        self._wire = Wire(self.url, headers)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # each call has its own deadline
            trust_env=False,
        )

    async def load(self, name: str, path: Path, *, timeout_seconds: float) -> None:
        """Makes an adapter available by a name; it is a success when it already is."""
        body = json.dumps({"lora_name": name, "lora_path": str(path)}).encode()
        async with self._call("POST", "/v1/load_lora_adapter", body, timeout_seconds) as response:
            told = await response.read()
            if response.status != OK and ALREADY_LOADED not in told:
                raise refusal(self.url, response.status, response.headers, told)

    async def unload(self, name: str, *, timeout_seconds: float) -> None:
        """Takes an adapter away; raises AdapterMissingError when it is not there."""
        body = json.dumps({"lora_name": name}).encode()
        async with self._call("POST", "/v1/unload_lora_adapter", body, timeout_seconds) as response:
            await self._require_ok(response)

    async def models(self, *, timeout_seconds: float) -> tuple[str, ...]:
        """The names that can be asked: the base model's and those of its adapters."""
        async with self._call("GET", "/v1/models", None, timeout_seconds) as response:
            await self._require_ok(response)
            listed = json_object(self.url, await response.read())
        try:
            return tuple(str(model["id"]) for model in listed["data"])
        except (KeyError, TypeError):
            raise EngineError(f"the engine {self.url} lists its models in an unknown form.") from None

    async def healthy(self, *, timeout_seconds: float) -> bool:
        """Whether the engine says within that time that tokens come out of it."""
        try:
            async with self._call("GET", "/health", None, timeout_seconds) as response:
                return response.status == OK
        except EngineError:
            return False

    async def generate(
        self, model: str, messages: Sequence[Mapping[str, str]], decoding: Decoding, *, deadline: Deadline
    ) -> Generated:
        """One answer by the adapter (or base model) of that name."""
        began = time.monotonic()
        left = deadline.remaining(began)
        if left <= 0.0:
            raise DeadlineError("the deadline passed before the engine was asked.")
        asked: dict[str, Any] = {
            "model": model,
            "messages": messages,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
        }
        if self._stream:
            return await self._generate_stream(asked, left, began)
        body = json.dumps(asked).encode()
        try:
            async with asyncio.timeout(left):
                status, headers, answer = await self._wire.post(COMPLETIONS, body, f"{HEADER}: {left * 1000.0:.0f}\r\n")
        except TimeoutError:
            raise late_error(self.url, left) from None
        except WireError as error:
            raise broken_error(self.url, error) from error
        if status != OK:
            raise refusal(self.url, status, headers, answer)
        return whole_answer(self.url, answer, headers)

    async def _generate_stream(self, asked: Mapping[str, Any], left: float, began: float) -> Generated:
        body = json.dumps({**asked, "stream": True, "stream_options": {"include_usage": True}}).encode()
        headers = {HEADER: f"{left * 1000.0:.0f}"}
        async with self._call("POST", COMPLETIONS, body, left, headers) as response:
            await self._require_ok(response)
            return await gathered_answer(self.url, response.content, began)

    async def close(self) -> None:
        """Closes all connections."""
        self._wire.close()
        await self._session.close()

    async def _require_ok(self, response: "aiohttp.ClientResponse") -> None:
        if response.status != OK:
            raise refusal(self.url, response.status, response.headers, await response.read())

    @asynccontextmanager
    async def _call(
        self, method: str, path: str, body: bytes | None, seconds: float, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator["aiohttp.ClientResponse"]:
        """One call, whose failures are errors of ours; leaving the block early closes the connection."""
        import aiohttp

        try:
            async with (
                asyncio.timeout(seconds),
                self._session.request(
                    method, self.url + path, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                yield response
        except TimeoutError:
            raise late_error(self.url, seconds) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise broken_error(self.url, error) from error
