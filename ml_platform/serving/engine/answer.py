"""Chat completions over ASGI: whole or in pieces, within their deadline, and only for as long as somebody listens."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ml_platform.serving.engine.job import Job, Outcome
from ml_platform.serving.engine.protocol import (
    DONE,
    FIRST_TOKEN_HEADER,
    QUEUE_HEADER,
    Answered,
    Ask,
    ProtocolError,
    usage_of,
)
from ml_platform.serving.engine.service import Engine, Generation

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

UNFINISHED = "�"
"""How the first bytes of a character read whose last ones are in the next token."""


class ClientGoneError(Exception):
    """Nobody listens any more."""


async def answer(engine: Engine, ask: Ask, seconds: float, receive: Receive, send: Send) -> Job:
    """Answers over ASGI and returns the job; raises ProtocolError before the first byte, ClientGoneError ever."""
    async with engine.generation(ask) as generation:
        about = Answered.now(f"chatcmpl-{secrets.token_hex(12)}", ask.model)
        sending = _Sending(send)
        work = _stream(generation, about, ask, sending) if ask.streams else _whole(generation, about, sending)
        listening = asyncio.ensure_future(_until_gone(receive))
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait({working, listening}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
            elif listening.done():
                raise ClientGoneError
            else:
                working.cancel()
                await _too_late(seconds, sending)
        finally:
            listening.cancel()
            working.cancel()
        return generation.job


class _Sending:
    """ASGI's send, which knows whether anything was sent."""

    def __init__(self, send: Send) -> None:
        self._send, self.begun = send, False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


async def _too_late(seconds: float, send: _Sending) -> None:
    """A stream that has begun ends with an error event, anything else becomes a 504."""
    error = ProtocolError(504, f"no answer within {seconds * 1000:.0f} ms.", "DeadlineError")
    if not send.begun:
        raise error
    await send({"type": "http.response.body", "body": b"data: " + error.body() + b"\n\n", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _require_answer(job: Job) -> None:
    if job.outcome == Outcome.FAILED:
        raise ProtocolError(500, "the model failed on this batch of requests. Try again.", "InternalServerError")
    if job.outcome == Outcome.CANCELLED:
        raise ProtocolError(503, "the engine is stopping. Try again elsewhere.", "ServiceUnavailableError")


async def _whole(generation: Generation, about: Answered, send: Send) -> None:
    job = generation.job
    while job.outcome is None:
        await generation.wait()
    _require_answer(job)
    body = about.whole(generation.text, str(job.outcome), usage_of(len(job.prompt), len(job.tokens)))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (QUEUE_HEADER.encode(), f"{job.queue_ms:.2f}".encode()),
        (FIRST_TOKEN_HEADER.encode(), f"{job.first_token_ms:.2f}".encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(generation: Generation, about: Answered, ask: Ask, send: Send) -> None:
    job, said, begun, ended = generation.job, "", False, False
    while not ended:
        await generation.wait()
        ended = job.outcome is not None  # looked at before the text: what comes in between is for the next round
        if not begun:
            if not job.tokens:
                _require_answer(job)
            await _begin(about, send)
            begun = True
        text = generation.text
        if not ended and (text.endswith(UNFINISHED) or not text.startswith(said)):
            continue
        if text[len(said) :]:
            await _piece(send, about.chunk({"content": text[len(said) :]}))
        said = text
    await _finish(job, about, ask, send)


async def _begin(about: Answered, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await _piece(send, about.chunk({"role": "assistant", "content": ""}))


async def _finish(job: Job, about: Answered, ask: Ask, send: Send) -> None:
    try:
        _require_answer(job)
    except ProtocolError as error:
        await send({"type": "http.response.body", "body": b"data: " + error.body() + b"\n\n"})
        return
    last = about.chunk({}, str(job.outcome))
    if ask.with_usage:
        timings = {"queue_ms": job.queue_ms, "first_token_ms": job.first_token_ms}
        last += about.usage_chunk(usage_of(len(job.prompt), len(job.tokens)), timings)
    await send({"type": "http.response.body", "body": last + DONE})


async def _piece(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
