"""What the client makes of engines that refuse, break off, or answer in ways that nobody foresaw."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from ml_platform.contracts.report import Decoding
from ml_platform.errors import AdapterMissingError, DeadlineError, EngineBusyError, EngineError, PromptTooLongError
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.engine_client import EngineClient

DECODING = Decoding(max_new_tokens=8, batch_size=1)
CHUNK = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]}
LAST = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
WHOLE = {"choices": [{"message": {"content": "hi"}, "finish_reason": "length"}], "usage": USAGE["usage"]}


def answered(work, status, body, headers="", *, stream=False):
    """Runs `work(client)` against a server that always answers the same; what it was asked comes along."""
    asked = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        asked.append((head, await reader.readexactly(size)))
        head = f"HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}content-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async def run():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = EngineClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", token="secret", stream=stream)
        try:
            return await work(client), asked
        finally:
            await client.close()
            server.close()
            await server.wait_closed()

    return asyncio.run(run())


def ask(client):
    deadline = Deadline.after(20.0, time.monotonic())
    return client.generate("p@1", [{"role": "user", "content": "late?"}], DECODING, deadline=deadline)


def body(value):
    return json.dumps(value).encode()


def events(*values):
    return b"".join(b"data: " + (one if isinstance(one, bytes) else body(one)) + b"\n\n" for one in values)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, EngineError),
        (401, EngineError),
        (404, AdapterMissingError),
        (408, DeadlineError),
        (429, EngineBusyError),
        (500, EngineError),
        (502, EngineError),
        (503, EngineBusyError),
        (504, DeadlineError),
    ],
)
def test_each_refusal_has_its_error_with_the_words_of_the_engine(status, kind, stream):
    async def work(client):
        with pytest.raises(EngineError, match=f"answered {status}: so it is") as refused:
            await ask(client)
        return type(refused.value)

    assert answered(work, status, body({"error": {"message": "so it is"}}), stream=stream)[0] is kind


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 1024 tokens. However, you requested 1030 tokens.",
        "The decoder prompt (length 1030) is longer than the maximum model length of 1024.",
        "The prompt (total length 1030) is too long to fit into the model (context length 1024).",
    ],
)
def test_a_prompt_that_is_too_long_is_told_from_other_mistakes(said):
    async def work(client):
        with pytest.raises(PromptTooLongError, match="answered 400"):
            await ask(client)

    answered(work, 400, body({"error": {"message": said, "type": "BadRequestError", "code": 400}}))


@pytest.mark.parametrize("text", [b"<html>bad gateway</html>", b"[]", b'{"error": "x"}', b"\xff", b""])
def test_a_refusal_in_other_words_is_told_as_it_came(text):
    async def work(client):
        with pytest.raises(EngineError, match="answered 502: "):
            await ask(client)

    answered(work, 502, text)


@pytest.mark.parametrize(
    ("header", "seconds"), [("retry-after: 7\r\n", 7.0), ("retry-after: soon\r\n", None), ("", None)]
)
def test_a_busy_engine_says_when_to_come_back(header, seconds):
    async def work(client):
        with pytest.raises(EngineBusyError) as refused:
            await ask(client)
        return refused.value.retry_after_seconds

    assert answered(work, 429, b"{}", header)[0] == seconds


@pytest.mark.parametrize(
    "answer",
    [b"", b"hi", b"[]", b"{}", body(WHOLE | {"choices": []}), body(WHOLE | {"usage": None}), body({"choices": 1})],
)
def test_an_answer_in_an_unknown_form_is_an_error(answer):
    async def work(client):
        with pytest.raises(EngineError, match=r"unknown form|something other"):
            await ask(client)

    answered(work, 200, answer)


def test_an_engine_that_tells_no_times_is_understood():
    found, ((head, asked),) = answered(ask, 200, body(WHOLE))

    assert (found.text, found.tokens_in, found.tokens_out, found.finished) == ("hi", 3, 2, False)
    assert (found.first_token_ms, found.queue_ms) == (None, None)
    assert b"\r\nauthorization: Bearer secret\r\n" in head
    assert b"\r\nx-deadline-ms: " in head
    assert json.loads(asked) == {
        "model": "p@1",
        "messages": [{"role": "user", "content": "late?"}],
        "max_tokens": 8,
        "temperature": 0.0,
    }


def test_a_stream_without_times_is_timed_by_the_client():
    found, _ = answered(ask, 200, events(CHUNK, CHUNK, LAST, USAGE, b"[DONE]"), stream=True)

    assert (found.text, found.tokens_out, found.finished, found.queue_ms) == ("hihi", 2, True, None)
    assert found.first_token_ms > 0.0


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (events(CHUNK), EngineError),
        (events(CHUNK, LAST), EngineError),
        (events(CHUNK, b"nonsense"), EngineError),
        (events(CHUNK, {"error": {"message": "out of memory", "code": 500}}), EngineError),
        (events(CHUNK, {"error": "so"}), EngineError),
        (events(CHUNK, {"error": {"message": "late", "code": 504}}), DeadlineError),
        (events({"choices": [1]}), EngineError),
        (events({"choices": [{"delta": {"content": 1}, "finish_reason": "stop"}]}, USAGE), EngineError),
        (events(CHUNK, LAST, {"choices": [], "usage": {"prompt_tokens": "many"}}), EngineError),
        (b"", EngineError),
    ],
)
def test_a_stream_that_breaks_off_or_goes_wrong_is_an_error(sent, kind):
    async def work(client):
        with pytest.raises(EngineError) as refused:
            await ask(client)
        return type(refused.value)

    assert answered(work, 200, sent, stream=True)[0] is kind


def test_what_vllm_says_of_an_adapter_that_it_holds_is_a_success():
    told = body({"error": {"message": "The lora adapter 'p@1' has already been loaded."}})

    async def work(client):
        await client.load("p@1", Path("somewhere"), timeout_seconds=10.0)

    _, ((_, asked),) = answered(work, 400, told)
    assert json.loads(asked) == {"lora_name": "p@1", "lora_path": "somewhere"}


@pytest.mark.parametrize("listed", [b"[]", b"{}", b'{"data": [1]}', b'{"data": null}'])
def test_models_in_an_unknown_form_are_an_error(listed):
    async def work(client):
        with pytest.raises(EngineError, match=r"unknown form|something other"):
            await client.models(timeout_seconds=10.0)

    answered(work, 200, listed)


def test_health_is_a_yes_or_a_no():
    async def work(client):
        return await client.healthy(timeout_seconds=10.0)

    assert answered(work, 200, b"")[0] is True
    assert answered(work, 503, b"")[0] is False
