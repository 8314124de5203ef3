"""vLLM's OpenAI protocol as bytes: requests that are understood, refused or answered."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_platform.errors import MlPlatformError

QUEUE_HEADER = "x-queue-ms"
FIRST_TOKEN_HEADER = "x-first-token-ms"  # noqa: S105 - a header, no secret
DONE = b"data: [DONE]\n\n"
ROLES = ("system", "user", "assistant")
UNCHANGED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "temperature": (0, 0.0),
    "stop": ([], ""),
    "logprobs": (False,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none",),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "repetition_penalty": (1, 1.0),
    "logit_bias": ({},),
    "min_tokens": (0,),
    "response_format": ({"type": "text"},),
}
"""Fields that would change an answer, with what they may say: greedy plain text is all that is served."""


class ProtocolError(MlPlatformError):
    """A request that is answered with an error: its status, OpenAI's type, and the parameter that is wrong."""

    def __init__(
        self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None, retry_after: float = 0
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.param, self.retry_after = status, kind, param, retry_after

    def body(self) -> bytes:
        """The error in OpenAI's shape; halves of characters that a request named become question marks."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.status}
        return json.dumps({"error": error}, ensure_ascii=False).encode(errors="replace")


@dataclass(frozen=True)
class Ask:
    """A chat completion that is asked for; `limit` is None for as many tokens as there is room for."""

    model: str
    conversation: tuple[dict[str, str], ...]
    limit: int | None
    streams: bool
    with_usage: bool


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; raises ProtocolError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(400, f"the body is no JSON: {str(error)[:200]}.") from None
    if not isinstance(value, dict):
        raise ProtocolError(400, f"the body is a JSON {type(value).__name__}, expected an object.")
    return value


def text_field(values: Mapping[str, Any], name: str) -> str:
    """A field that must be a text and not empty; raises ProtocolError."""
    value = values.get(name)
    if not isinstance(value, str) or not value:
        raise ProtocolError(400, f"{name} is {_short(value)}, expected a text.", param=name)
    return value


def parse_ask(body: bytes) -> Ask:
    """The request in a body; raises ProtocolError for what is wrong, and for what would not be greedy plain text."""
    values = parse_object(body)
    for name, allowed in UNCHANGED.items():
        value = values.get(name)
        if value is not None and not any(value == one and type(value) is type(one) for one in allowed):
            raise ProtocolError(
                400,
                f"{name} is {_short(value)}; this engine only answers greedily, in plain text. Leave it out.",
                param=name,
            )
    options = values.get("stream_options") or {}
    if not isinstance(options, dict):
        raise ProtocolError(400, f"stream_options is {_short(options)}, expected an object.", param="stream_options")
    return Ask(
        text_field(values, "model"),
        _conversation(values.get("messages")),
        _limit(values),
        _flag(values, "stream"),
        _flag(options, "include_usage"),
    )


def _conversation(messages: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise ProtocolError(400, f"messages is {_short(messages)}, expected a list of turns.", param="messages")
    return tuple(_turn(number, message) for number, message in enumerate(messages))


def _turn(number: int, message: Any) -> dict[str, str]:
    where = f"messages[{number}]"
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise ProtocolError(
            400, f"{where} is {_short(message)}, expected role ({', '.join(ROLES)}) and content.", param="messages"
        )
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise ProtocolError(400, f"{where}.content is {_short(content)}, expected a text.", param="messages")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise ProtocolError(400, f"{where}.content holds half a character pair.", param="messages") from None
    return {"role": message["role"], "content": content}


def _limit(values: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = values.get(name)
        if value is None:
            continue
        if type(value) is not int or value < 1:
            raise ProtocolError(400, f"{name} is {_short(value)}, expected a number from 1 on.", param=name)
        return value
    return None


def _flag(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        raise ProtocolError(400, f"{name} is {_short(value)}, expected true or false.", param=name)
    return bool(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class Answered:
    """What all pieces of one answer repeat."""

    request_id: str
    model: str
    created: int

    @classmethod
    def now(cls, request_id: str, model: str) -> "Answered":
        """An answer that begins now."""
        return cls(request_id, model, int(time.time()))

    def whole(self, text: str, finish_reason: str, usage: Mapping[str, int]) -> bytes:
        """The body of an answer that is not streamed."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return json.dumps(self._body("chat.completion", [choice]) | {"usage": usage}, ensure_ascii=False).encode()

    def chunk(self, delta: Mapping[str, str], finish_reason: str | None = None) -> bytes:
        """A piece of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(self._body("chat.completion.chunk", [choice]))

    def usage_chunk(self, usage: Mapping[str, int], timings: Mapping[str, float | None]) -> bytes:
        """The last piece of a stream whose client asked for the usage; `timings` are an addition of ours."""
        return event(self._body("chat.completion.chunk", []) | {"usage": usage, "timings": timings})

    def _body(self, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": self.request_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def event(body: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def usage_of(tokens_in: int, tokens_out: int) -> dict[str, int]:
    """OpenAI's count of tokens."""
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
