"""The engine's edge: every refusal in OpenAI's shape, and nothing reachable without the secret."""

import asyncio
import io

import aiohttp
import pytest

from tests.samples.engine import ASK, CHAT, HEADERS, TOKEN, call, make_world, running_engine


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("engine-http"))


@pytest.fixture(scope="module")
def shared(world):
    with running_engine(world.base) as engine:
        yield engine


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"stop": ["x"]}, "stop"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "4"}, "max_tokens"),
        ({"max_tokens": 10_000}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "late?"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "late? " * 2000}]}, "messages"),
        ({"messages": [{"role": "user", "content": "late? " * 100_000}]}, "messages"),
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": True, "stream_options": 1}, "stream_options"),
    ],
)
def test_a_request_that_cannot_be_answered_as_asked_is_refused_and_says_why(world, shared, change, param):
    status, told, _ = call(shared, "POST", CHAT, ASK | {"model": world.base.name} | change)

    assert (status, told["error"]["code"], told["error"]["type"]) == (400, 400, "BadRequestError")
    assert told["error"]["param"] == param
    assert told["error"]["message"]


def test_half_a_character_pair_in_a_name_is_refused_like_any_unknown_one(shared):
    status, told, _ = call(shared, "POST", CHAT, ASK | {"model": "\ud800"})
    assert (status, told["error"]["message"]) == (404, "The model `?` does not exist.")

    named = {"lora_name": "half", "lora_path": "/nowhere/\ud800"}
    assert call(shared, "POST", "/v1/load_lora_adapter", named)[0] == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 50_000, b"null"])
def test_a_body_that_is_no_object_is_refused(shared, body):
    status, told, _ = call(shared, "POST", CHAT, body)

    assert (status, told["error"]["type"]) == (400, "BadRequestError")


def test_text_in_parts_and_unknown_fields_are_fine(world, shared):
    parts = [{"role": "user", "content": [{"type": "text", "text": "la"}, {"type": "text", "text": "te?"}]}]

    whole = call(shared, "POST", CHAT, ASK | {"model": world.base.name})
    found = call(shared, "POST", CHAT, ASK | {"model": world.base.name, "messages": parts, "seed": 3, "user": "u"})

    assert found[0] == 200
    assert found[1]["choices"] == whole[1]["choices"]
    assert found[1]["usage"]["total_tokens"] == found[1]["usage"]["prompt_tokens"] + 4


def test_an_unknown_model_is_not_found(shared):
    status, told, _ = call(shared, "POST", CHAT, ASK | {"model": "gpt-9"})

    assert (status, told["error"]["type"]) == (404, "NotFoundError")
    assert "`gpt-9` does not exist" in told["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", CHAT, 405), ("POST", "/health", 405), ("GET", "/v1/nothing", 404)]
)
def test_an_unknown_path_or_method_is_said_so(shared, method, path, status):
    assert call(shared, method, path)[0] == status


@pytest.mark.parametrize("path", [CHAT, "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/models", "/metrics"])
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}])
def test_nothing_but_the_probe_is_reachable_without_the_token(shared, path, headers):
    method = "GET" if path in ("/v1/models", "/metrics") else "POST"

    status, told, _ = call(shared, method, path, {} if method == "POST" else None, headers)

    assert (status, told["error"]["type"]) == (401, "AuthenticationError")


def test_the_probe_generates_a_token(world):
    with running_engine(world.base) as running:
        assert call(running, "GET", "/health", headers={})[0] == 200
        assert running.engine.scheduler.last_token_at > 0.0


@pytest.mark.parametrize("told", [True, False])
def test_a_huge_body_is_refused_before_it_is_read(shared, told):
    async def pieces():
        for _ in range(64):
            yield b" " * 65536

    async def sent():
        async with aiohttp.ClientSession() as session:
            data = io.BytesIO(b" " * (4 << 20)) if told else pieces()
            try:
                async with session.post(shared.url + CHAT, data=data, headers=HEADERS) as response:
                    return response.status
            except aiohttp.ClientError:
                return "closed"

    assert asyncio.run(sent()) in (413, "closed")
    assert call(shared, "GET", "/v1/models")[0] == 200


@pytest.mark.parametrize("deadline", ["soon", "-1", "nan", "0"])
def test_a_deadline_that_is_no_time_is_refused(world, shared, deadline):
    headers = HEADERS | {"x-deadline-ms": deadline}

    assert call(shared, "POST", CHAT, ASK | {"model": world.base.name}, headers)[0] == 400


def test_metrics_tell_of_tokens_queue_rows_and_errors(shared):
    call(shared, "POST", CHAT, ASK | {"model": "gpt-9"})

    text = call(shared, "GET", "/metrics")[1]

    assert 'mlp_engine_errors_total{status="404"}' in text
    for name in ("generated_tokens_total", "queue_length", "busy_rows", "batch_rows_bucket", "request_seconds_sum"):
        assert f"mlp_engine_{name}" in text
