"""The engine's HTTP edge: raw ASGI, every error in OpenAI's shape, nothing without the token but the probe."""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ml_platform.errors import EngineBusyError, EngineError, InvalidInputError
from ml_platform.serving.deadline import HEADER, asked_deadline
from ml_platform.serving.engine.answer import ClientGoneError, Message, Receive, Send, answer
from ml_platform.serving.engine.protocol import ProtocolError, parse_ask, parse_object, text_field
from ml_platform.serving.engine.service import Engine

MAX_BODY_BYTES = 1 << 20
BODY_SECONDS = 10.0
DEFAULT_SECONDS = 60.0
MOST_SECONDS = 600.0
JSON = b"application/json"
PLAIN = b"text/plain; charset=utf-8"

log = logging.getLogger(__name__)

Handler = Callable[[Mapping[str, str], Receive, Send], Awaitable[None]]


class EngineApp:
    """An ASGI application over one engine. While `draining` is true, nothing new is begun."""

    def __init__(self, engine: Engine, token: str | None) -> None:
        self.engine, self._token = engine, token
        self.draining = False
        self.running = 0
        self._routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/chat/completions"): self._complete,
            ("POST", "/v1/load_lora_adapter"): self._load,
            ("POST", "/v1/unload_lora_adapter"): self._unload,
            ("GET", "/v1/models"): self._models,
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, or the beginning and the end of the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self.engine.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.engine.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        sent = False

        async def watched(message: Message) -> None:
            nonlocal sent
            sent = True
            await send(message)

        self.running += 1
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            await self._handler(scope, headers)(headers, receive, watched)
        except ClientGoneError:
            self.engine.metrics.requests.labels("client_gone").inc()
        except Exception as error:  # noqa: BLE001 - whatever happens, the client is told
            problem = _problem(error)
            self.engine.metrics.errors.labels(str(problem.status)).inc()
            if not sent:
                await _refuse(problem, send)
        finally:
            self.running -= 1

    def _handler(self, scope: Message, headers: Mapping[str, str]) -> Handler:
        method, path = scope["method"], scope["path"]
        handler = self._routes.get((method, path))
        if path != "/health" and self._token is not None:
            given = headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, f"Bearer {self._token}".encode("latin-1")):
                raise ProtocolError(401, "the engine's token is missing or wrong.", "AuthenticationError")
        if handler is None:
            known = [one for one, other in self._routes if other == path]
            status = 405 if known else 404
            raise ProtocolError(status, f"{method} {path[:200]} is nothing that this engine offers.", "NotFoundError")
        return handler

    async def _complete(self, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        started = time.monotonic()
        if self.draining:
            raise ProtocolError(503, "the engine is shutting down.", "ServiceUnavailableError", retry_after=1)
        deadline = asked_deadline(
            headers.get(HEADER), started, default_seconds=DEFAULT_SECONDS, most_seconds=MOST_SECONDS
        )
        ask = parse_ask(await _body(headers, receive))
        job = await answer(self.engine, ask, deadline.remaining(time.monotonic()), receive, send)
        metrics = self.engine.metrics
        metrics.requests.labels(str(job.outcome or "deadline")).inc()
        metrics.prompt_tokens.inc(len(job.prompt))
        metrics.seconds.observe(time.monotonic() - started)
        if job.first_token is not None:
            metrics.first_token.observe(job.first_token - job.submitted)

    async def _load(self, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        asked = parse_object(await _body(headers, receive))
        name, path = text_field(asked, "lora_name"), text_field(asked, "lora_path")
        await self.engine.shelf.load(name, path)
        await _reply(send, 200, f"Success: LoRA adapter '{name}' added successfully.".encode(), PLAIN)

    async def _unload(self, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        name = text_field(parse_object(await _body(headers, receive)), "lora_name")
        await self.engine.shelf.unload(name)
        await _reply(send, 200, f"Success: LoRA adapter '{name}' removed successfully.".encode(), PLAIN)

    async def _models(self, _headers: Mapping[str, str], _receive: Receive, send: Send) -> None:
        base = self.engine.base
        context = {"max_model_len": self.engine.context}
        models = [_model(base.name, base.reference, None) | context]
        models += [_model(held.name, held.path, base.name) for held in self.engine.shelf.held]
        await _reply(send, 200, json.dumps({"object": "list", "data": models}).encode())

    async def _health(self, _headers: Mapping[str, str], _receive: Receive, send: Send) -> None:
        if self.draining or not await self.engine.healthy():
            raise ProtocolError(503, "no token comes out of this engine.", "ServiceUnavailableError")
        await _reply(send, 200, b"")

    async def _metrics(self, _headers: Mapping[str, str], _receive: Receive, send: Send) -> None:
        await _reply(send, 200, self.engine.metrics.text(), b"text/plain; version=0.0.4; charset=utf-8")


def _model(name: str, root: str, parent: str | None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "ml_platform", "root": root, "parent": parent}


async def _body(headers: Mapping[str, str], receive: Receive) -> bytes:
    """The whole body, if it comes within BODY_SECONDS."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _bounded_body(headers, receive)
    except TimeoutError:
        raise ProtocolError(408, f"the body did not come within {BODY_SECONDS:g} s.", "RequestTimeoutError") from None


async def _bounded_body(headers: Mapping[str, str], receive: Receive) -> bytes:
    """The whole body, never more than MAX_BODY_BYTES of it in memory."""
    too_large = ProtocolError(413, f"the body has more than {MAX_BODY_BYTES} bytes.", "RequestEntityTooLargeError")
    told = headers.get("content-length", "")
    if told.isdecimal() and int(told) > MAX_BODY_BYTES:
        raise too_large
    pieces, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > MAX_BODY_BYTES:
            raise too_large
        more = message.get("more_body", False)
    return b"".join(pieces)


def _problem(error: Exception) -> ProtocolError:
    """What a client is told; what was not foreseen is logged, and told without its words."""
    if isinstance(error, ProtocolError):
        return error
    if isinstance(error, EngineBusyError):
        return ProtocolError(429, str(error), "RateLimitError", retry_after=error.retry_after_seconds or 1.0)
    if isinstance(error, EngineError):
        return ProtocolError(503, str(error), "ServiceUnavailableError")
    if isinstance(error, InvalidInputError):
        return ProtocolError(400, str(error))
    log.error("a request failed", exc_info=error)
    return ProtocolError(500, "the engine failed; its log says why.", "InternalServerError")


async def _refuse(problem: ProtocolError, send: Send) -> None:
    extra = [(b"retry-after", str(max(1, round(problem.retry_after))).encode())] if problem.retry_after else []
    if problem.status == 413:
        extra.append((b"connection", b"close"))
    await _reply(send, problem.status, problem.body(), extra=extra)


async def _reply(
    send: Send, status: int, body: bytes, kind: bytes = JSON, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *(extra or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
