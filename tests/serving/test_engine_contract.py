"""What every engine must do, ours and vLLM: one suite, run against each that is here.

For vLLM: ML_PLATFORM_VLLM_URL names a server started with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True,
ML_PLATFORM_VLLM_ADAPTER the folder of an adapter for its model.
"""

import asyncio
import os
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from ml_platform.contracts.report import Decoding
from ml_platform.errors import AdapterMissingError, DeadlineError, EngineError, PromptTooLongError
from ml_platform.serving.deadline import Deadline
from tests.samples.engine import CONVERSATIONS, TOKEN, TinyAdapter, make_world, running_engine, using

DECODING = Decoding(max_new_tokens=8, batch_size=1)


@dataclass(frozen=True)
class Served:
    """An engine to try: where it is, its secret, and an adapter for its model."""

    url: str
    token: str | None
    adapter: TinyAdapter


@pytest.fixture(scope="module", params=["embedded", "vllm"])
def served(request, tmp_path_factory):
    if request.param == "embedded":
        world = make_world(tmp_path_factory.mktemp("engine-contract"))
        with running_engine(world.base) as running:
            yield Served(running.url, TOKEN, world.adapters[0])
        return
    url, adapter = os.environ.get("ML_PLATFORM_VLLM_URL"), os.environ.get("ML_PLATFORM_VLLM_ADAPTER")
    if find_spec("vllm") is None and not url:
        pytest.skip("vLLM is not installed here")
    if not url or not adapter:
        pytest.skip("ML_PLATFORM_VLLM_URL and ML_PLATFORM_VLLM_ADAPTER name no engine to try")
    yield Served(url, os.environ.get("ML_PLATFORM_VLLM_TOKEN"), TinyAdapter.of(Path(adapter)))


def ask(client, model, *, seconds=60.0, decoding=DECODING):
    return client.generate(model, CONVERSATIONS[0], decoding, deadline=Deadline.after(seconds, time.monotonic()))


def test_an_adapter_is_loaded_once_listed_asked_and_unloaded(served):
    name, path = served.adapter.name, served.adapter.path

    async def work(client):
        (base, *_) = await client.models(timeout_seconds=10.0)
        for _ in range(2):
            await client.load(name, path, timeout_seconds=60.0)
        listed = await client.models(timeout_seconds=10.0)
        answers = await ask(client, name), await ask(client, base)
        await client.unload(name, timeout_seconds=60.0)
        return base, listed, answers, await client.models(timeout_seconds=10.0)

    base, listed, (tuned, bare), left = using(served, work)
    assert listed.count(name) == 1
    assert name not in left
    assert base in left
    for answer in (tuned, bare):
        assert answer.tokens_in > 8
        assert 1 <= answer.tokens_out <= 8
        assert answer.finished or answer.tokens_out == 8


def test_a_stream_says_what_a_whole_answer_says(served):
    async def work(client):
        (base, *_) = await client.models(timeout_seconds=10.0)
        return await ask(client, base)

    whole, streamed = using(served, work), using(served, work, stream=True)
    assert (whole.text, whole.tokens_in, whole.tokens_out) == (streamed.text, streamed.tokens_in, streamed.tokens_out)
    assert streamed.first_token_ms > 0.0


def test_what_is_not_loaded_is_missing(served):
    async def work(client):
        with pytest.raises(AdapterMissingError):
            await ask(client, "nobody@" + "0" * 64)
        with pytest.raises(AdapterMissingError):
            await client.unload("nobody@" + "0" * 64, timeout_seconds=10.0)

    using(served, work)


def test_an_adapter_that_cannot_be_loaded_is_an_error_and_the_engine_goes_on(served, tmp_path):
    async def work(client):
        with pytest.raises(EngineError):
            await client.load("broken", tmp_path / "missing", timeout_seconds=60.0)
        (base, *names) = await client.models(timeout_seconds=10.0)
        return names, (await ask(client, base)).tokens_out, await client.healthy(timeout_seconds=20.0)

    names, tokens, healthy = using(served, work)
    assert "broken" not in names
    assert tokens > 0
    assert healthy


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_of_more_tokens_than_the_model_takes_is_told_from_what_is_broken(served, stream):
    async def work(client):
        (base, *_) = await client.models(timeout_seconds=10.0)
        turns, deadline = [{"role": "user", "content": "0 1 2 3 " * 10_000}], Deadline.after(60.0, time.monotonic())
        with pytest.raises(PromptTooLongError):
            await client.generate(base, turns, DECODING, deadline=deadline)

    using(served, work, stream=stream)


def test_many_questions_at_once_are_answered_as_one_is(served):
    async def work(client):
        (base, *_) = await client.models(timeout_seconds=10.0)
        one = await ask(client, base)
        return one.text, [answer.text for answer in await asyncio.gather(*(ask(client, base) for _ in range(12)))]

    one, many = using(served, work)
    assert many == [one] * 12


def test_a_deadline_that_has_passed_asks_nobody(served):
    async def work(client):
        with pytest.raises(DeadlineError):
            await ask(client, "anybody", seconds=-1.0)

    using(served, work)


def test_an_engine_that_is_not_there_is_an_error_and_not_healthy():
    async def work(client):
        with pytest.raises(EngineError):
            await ask(client, "anybody")
        return await client.healthy(timeout_seconds=1.0)

    # Port 9 is discard: nothing listens there.
    nowhere = Served("http://127.0.0.1:9", None, TinyAdapter(Path(), "none"))
    assert using(nowhere, work) is False
