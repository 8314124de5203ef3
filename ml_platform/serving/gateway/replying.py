"""An answer as OpenAI's clients read it: whole, or as the chunks of a stream that is already complete."""

import re
from typing import Any

import orjson

from ml_platform.serving.gateway.exchange import JSON, Exchange, Header
from ml_platform.serving.question import Reply, ReplyStatus

EVENTS: tuple[Header, ...] = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"))
INCOMPLETE: Header = (b"x-features", b"incomplete")
UNKNOWN = "features_unknown"
DONE = b"data: [DONE]\n\n"
_WORDS = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")


async def send_reply(exchange: Exchange, reply: Reply, *, stream: bool, wants_usage: bool) -> None:
    """Sends an answer that is judged and recorded."""
    headers = _headers(reply)
    if stream:
        await exchange.respond(200, stream_bytes(reply, wants_usage=wants_usage), [*EVENTS, *headers])
    else:
        await exchange.respond(200, orjson.dumps(completion(reply)), [JSON, *headers])


def completion(reply: Reply) -> dict[str, Any]:
    """The answer as a `chat.completion`, with what else is to know of it under `ml_platform`."""
    message = {"role": "assistant", "content": reply.answer, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(reply)}
    more = {"choices": [choice], "usage": _usage(reply), "ml_platform": _more(reply)}
    return {**_common(reply, "chat.completion"), **more}


def stream_bytes(reply: Reply, *, wants_usage: bool) -> bytes:
    """The answer as server-sent events, a word each; joined they are the same text."""
    common, more = _common(reply, "chat.completion.chunk"), {"ml_platform": _more(reply)}
    if wants_usage:
        common["usage"] = None
    # A chunk is encoded once; the others differ in their word alone.
    before, after = _event(common, {"content": "\0"}).split(rb'"\u0000"')
    parts = [_event(common | more, {"role": "assistant", "content": ""})]
    parts += [before + orjson.dumps(word) + after for word in _WORDS.findall(reply.answer)]
    parts.append(_event(common | more, {}, _finish_reason(reply)))
    if wants_usage:
        parts.append(b"data: " + orjson.dumps({**common, "choices": [], "usage": _usage(reply)}) + b"\n\n")
    return b"".join([*parts, DONE])


def _event(common: dict[str, Any], delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return b"data: " + orjson.dumps({**common, "choices": [choice]}) + b"\n\n"


def _common(reply: Reply, kind: str) -> dict[str, Any]:
    record = reply.record
    return {
        "id": record.response_id,
        "object": kind,
        "created": int(record.answered_at.timestamp()),
        "model": record.product,
        "system_fingerprint": record.release_id and record.release_id[:12],
        "service_tier": None,
    }


def _usage(reply: Reply) -> dict[str, int]:
    read, written = reply.record.input_tokens, reply.record.output_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _more(reply: Reply) -> dict[str, Any]:
    record = reply.record
    return {
        "response_id": record.response_id,
        "release_id": record.release_id,
        "status": reply.status.value,
        "cohort": record.cohort.value,
        "features_incomplete": features_incomplete(reply),
    }


def features_incomplete(reply: Reply) -> bool:
    """Whether the answer was made without some of its features: missing, too old, or the store was down."""
    return any(error.kind == UNKNOWN for error in reply.record.errors)


def _finish_reason(reply: Reply) -> str:
    return "content_filter" if reply.status is ReplyStatus.BLOCKED else "stop"


def _headers(reply: Reply) -> list[Header]:
    release = reply.record.release_id or "none"
    headers = [(b"x-release-id", release.encode()), (b"x-status", reply.status.value.encode())]
    return [*headers, INCOMPLETE] if features_incomplete(reply) else headers
