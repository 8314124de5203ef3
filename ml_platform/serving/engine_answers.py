"""What engines say, as values and errors of ours: whole answers, streams, refusals."""

import json
import re
import time
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from typing import Any

from ml_platform.errors import AdapterMissingError, DeadlineError, EngineBusyError, EngineError, PromptTooLongError

TOO_LONG = re.compile(r"maximum (context|model) length|max_model_len|too long to fit into the model", re.IGNORECASE)
"""What our engine and vLLM's versions say of too many tokens, for which they have no code of their own."""


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer: `finished` is False when it was cut at the limit of tokens.

    `first_token_ms` counts from the engine's receipt where the engine tells it, otherwise from the call; `queue_ms` is
    None where the engine does not tell it.
    """

    text: str
    tokens_in: int
    tokens_out: int
    first_token_ms: float | None
    queue_ms: float | None
    finished: bool


def late_error(url: str, seconds: float) -> DeadlineError:
    """What a call that ended at its deadline raises."""
    return DeadlineError(f"the engine {url} did not answer within {seconds * 1000:.0f} ms.")


def broken_error(url: str, error: Exception) -> EngineError:
    """What a call without an answer raises."""
    return EngineError(f"the engine {url} broke off or is not there: {error or repr(error)}.")


def refusal(url: str, status: int, headers: Mapping[str, str], body: bytes) -> EngineError:
    """The error of ours that a refusal stands for, in the engine's words."""
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace")
    said = f"the engine {url} answered {status}: {message[:500]}"
    match status:
        case 400 if TOO_LONG.search(message):
            return PromptTooLongError(said)
        case 404:
            return AdapterMissingError(said)
        case 429 | 503:
            after = headers.get("retry-after", "")
            return EngineBusyError(said, float(after) if after.isdecimal() else None)
        case 408 | 504:
            return DeadlineError(said)
    return EngineError(said)


def json_object(url: str, body: bytes) -> dict[str, Any]:
    """The JSON object in a body; raises EngineError."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise EngineError(f"the engine {url} answered with something other than a JSON object: {body[:100]!r}.")
    return value


def whole_answer(url: str, body: bytes, headers: Mapping[str, str]) -> Generated:
    """The answer in a body that came at once."""
    answer = json_object(url, body)
    try:
        choice, usage = answer["choices"][0], answer["usage"]
        return Generated(
            text=_text(choice["message"]["content"] or ""),
            tokens_in=int(usage["prompt_tokens"]),
            tokens_out=int(usage["completion_tokens"]),
            first_token_ms=_number(headers.get("x-first-token-ms")),
            queue_ms=_number(headers.get("x-queue-ms")),
            finished=choice["finish_reason"] == "stop",
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EngineError(f"the engine {url} answered in an unknown form: {error!r}.") from None


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


async def gathered_answer(url: str, lines: AsyncIterable[bytes], began: float) -> Generated:
    """The lines of a stream as one answer; raises EngineError when it breaks off or ends with an error."""
    gathering = _Gathering(began)
    async for line in lines:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        chunk = json_object(url, line[6:])
        if "error" in chunk:
            raise _stream_error(url, chunk["error"])
        try:
            gathering.take(chunk)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EngineError(f"the engine {url} streams in an unknown form: {error!r}.") from None
    if gathering.reason is None or gathering.usage is None:
        raise EngineError(f"the engine {url} broke off in the middle of an answer.")
    return Generated(
        "".join(gathering.pieces),
        *gathering.usage,
        gathering.timings.get("first_token_ms", gathering.first_token_ms),
        gathering.timings.get("queue_ms"),
        gathering.reason == "stop",
    )


class _Gathering:
    """What a stream has said so far."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.pieces: list[str] = []
        self.first_token_ms: float | None = None
        self.reason: str | None = None
        self.usage: tuple[int, int] | None = None
        self.timings: dict[str, float | None] = {}

    def take(self, chunk: Mapping[str, Any]) -> None:
        """Adds a chunk; raises what Python raises for one of another form."""
        if usage := chunk.get("usage"):
            self.usage = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        self.timings = dict(chunk.get("timings") or self.timings)
        for choice in chunk.get("choices", ()):
            if piece := choice["delta"].get("content"):
                if self.first_token_ms is None:
                    self.first_token_ms = (time.monotonic() - self.began) * 1000.0
                self.pieces.append(_text(piece))
            self.reason = choice.get("finish_reason") or self.reason


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _stream_error(url: str, error: Any) -> EngineError:
    said = f"the engine {url} broke off: {str(error)[:500]}"
    late = isinstance(error, dict) and error.get("code") == 504
    return DeadlineError(said) if late else EngineError(said)
