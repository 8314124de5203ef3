"""The engine in trouble: full, hung up on, too late, broken, hanging, dying, shutting down."""

import asyncio
import json
import time

import aiohttp
import pytest

from ml_platform.contracts.report import Decoding
from ml_platform.errors import DeadlineError, EngineBusyError, EngineError
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.engine.service import EngineLimits
from ml_platform.serving.engine_client import EngineClient
from tests.samples.engine import (
    ASK,
    CHAT,
    CONVERSATIONS,
    DECODING,
    HEADERS,
    TOKEN,
    Gate,
    call,
    make_world,
    running_engine,
    using,
)

LONG = Decoding(max_new_tokens=400, batch_size=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("engine-http"))


@pytest.fixture(scope="module")
def shared(world):
    with running_engine(world.base) as engine:
        yield engine


async def until(condition, seconds=20.0):
    """Waits for something that must become true."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.005)


def ask(client, model, seconds=60.0, decoding=DECODING):
    deadline = Deadline.after(seconds, time.monotonic())
    return asyncio.ensure_future(client.generate(model, CONVERSATIONS[0], decoding, deadline=deadline))


@pytest.fixture
def narrow(world):
    """An engine of two rows with room for two more in its queue, whose model waits behind a gate."""
    with running_engine(world.base, EngineLimits(rows=2, context=600, max_queue=2)) as running:
        gate = Gate(running.engine)
        try:
            yield running, gate
        finally:
            gate.open()


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(world, narrow):
    running, gate = narrow

    async def work(client):
        begun = [ask(client, world.base.name)]
        await until(lambda: running.engine.scheduler.load == (0, 1))
        begun += [ask(client, world.base.name) for _ in range(2)]
        await until(lambda: running.engine.scheduler.load[0] == 2)
        with pytest.raises(EngineBusyError) as refused:
            await ask(client, world.base.name)
        gate.open()
        return refused.value.retry_after_seconds, await asyncio.gather(*begun)

    after, answers = using(running, work)
    assert after == 1.0
    assert len({answer.text for answer in answers}) == 1


def test_a_client_that_hangs_up_frees_its_row_and_its_place_in_the_queue(world, narrow):
    running, gate = narrow

    async def work(client):
        begun = [ask(client, world.base.name, decoding=LONG)]
        await until(lambda: running.engine.scheduler.load == (0, 1))
        begun += [ask(client, world.base.name, decoding=LONG)]
        await until(lambda: running.engine.scheduler.load == (1, 1))
        for one in begun:
            one.cancel()
        await until(lambda: not running.app.running)
        gate.open()
        await until(lambda: running.engine.scheduler.load == (0, 0))

    using(running, work)
    assert 'mlp_engine_requests_total{outcome="client_gone"} 2.0' in call(running, "GET", "/metrics")[1]


def test_a_deadline_ends_what_was_begun_and_what_waits(world, narrow):
    running, gate = narrow

    async def work(client):
        begun = [ask(client, world.base.name, 1.0, LONG)]
        await until(lambda: running.engine.scheduler.load == (0, 1))
        begun += [ask(client, world.base.name, 0.4, LONG) for _ in range(2)]
        failed = await asyncio.gather(*begun, return_exceptions=True)
        gate.open()
        await until(lambda: running.engine.scheduler.load == (0, 0))
        return failed

    assert [type(one) for one in using(running, work)] == [DeadlineError] * 3


def test_the_engine_itself_answers_504_when_the_deadline_passes(world, narrow):
    running, _ = narrow
    headers = HEADERS | {"x-deadline-ms": "200"}

    status, told, _ = call(running, "POST", CHAT, ASK | {"model": world.base.name}, headers)

    assert (status, told["error"]["type"]) == (504, "DeadlineError")


def test_a_stream_that_is_late_ends_with_an_error_that_the_client_understands(world, narrow):
    running, _ = narrow
    headers = HEADERS | {"x-deadline-ms": "500"}

    status, told, _ = call(running, "POST", CHAT, ASK | {"model": world.base.name, "stream": True}, headers)

    assert status == 200
    last = [line for line in told.splitlines() if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == 504


def test_a_pass_that_fails_fails_those_who_took_part_and_nobody_after(world, shared, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("out of memory")

    async def work(client):
        expected = (await ask(client, world.base.name)).text
        with monkeypatch.context() as patch:
            patch.setattr(shared.engine._decoder, "advance", broken)
            with pytest.raises(EngineError, match="answered 500: the model failed"):
                await ask(client, world.base.name)
        return expected, (await ask(client, world.base.name)).text

    expected, found = using(shared, work)
    assert found == expected
    assert "out of memory" in caplog.text


def test_a_body_that_does_not_come_is_not_waited_for(shared, monkeypatch):
    monkeypatch.setattr("ml_platform.serving.engine.app.BODY_SECONDS", 0.2)

    async def slow():
        yield b"{"
        await asyncio.sleep(60.0)

    async def sent():
        async with (
            aiohttp.ClientSession() as session,
            session.post(shared.url + CHAT, data=slow(), headers=HEADERS) as response,
        ):
            return response.status

    assert asyncio.run(sent()) == 408


def test_an_engine_whose_every_pass_fails_ends_so_that_it_is_started_anew(world, monkeypatch):
    def broken(*_):
        raise RuntimeError("the device is lost")

    async def work(client):
        for _ in range(5):
            with pytest.raises(EngineError):
                await ask(client, world.base.name)

    with running_engine(world.base) as running:
        monkeypatch.setattr(running.engine._decoder, "read", broken)
        using(running, work)
        running.thread.join(20.0)
        assert not running.thread.is_alive()
        assert running.server.lost_model


def test_a_stream_that_fails_in_the_middle_ends_with_an_error(world, narrow, monkeypatch):
    running, gate = narrow

    def broken(*_):
        raise RuntimeError("out of memory")

    async def work():
        client = EngineClient(running.url, token=TOKEN, stream=True)
        try:
            begun = ask(client, world.base.name)
            await until(lambda: running.engine.scheduler.load == (0, 1))
            gate.instead(broken)
            with pytest.raises(EngineError, match=r"broke off: .*the model failed"):
                await begun
        finally:
            await client.close()

    asyncio.run(work())


@pytest.mark.parametrize("stream", [False, True])
def test_what_waits_when_the_engine_stops_is_sent_elsewhere(world, stream):
    async def work():
        client = EngineClient(running.url, token=TOKEN, stream=stream)
        try:
            begun = [ask(client, world.base.name) for _ in range(2)]
            await until(lambda: running.engine.scheduler.load == (1, 1))
            stopping = asyncio.ensure_future(running.engine.stop())
            await asyncio.sleep(0.05)
            gate.open()
            await stopping
            return await asyncio.gather(*begun, return_exceptions=True)
        finally:
            await client.close()

    with running_engine(world.base, EngineLimits(rows=1, context=600, max_queue=2)) as running:
        gate = Gate(running.engine)
        failed = asyncio.run(work())
    assert all(isinstance(error, EngineError) and "the engine is stopping" in str(error) for error in failed)


def test_a_dead_thread_of_the_model_is_seen_by_the_probe_and_by_whoever_asks(world):
    async def work(client):
        assert await client.healthy(timeout_seconds=20.0)
        running.engine.scheduler.stop(20.0)
        with pytest.raises(EngineError, match="answered 503"):
            await ask(client, world.base.name)
        return await client.healthy(timeout_seconds=20.0)

    with running_engine(world.base) as running:
        assert using(running, work) is False


def test_a_model_that_hangs_is_seen_by_the_probe(world, narrow, monkeypatch):
    running, gate = narrow
    monkeypatch.setattr("ml_platform.serving.engine.service.PROBE_SECONDS", 0.3)
    monkeypatch.setattr("ml_platform.serving.engine.service.PROBE_VALID_SECONDS", 0.1)

    async def work(client):
        begun = ask(client, world.base.name)
        await until(lambda: running.engine.scheduler.load == (0, 1))
        await asyncio.sleep(0.15)  # what was generated before the model hung counts no more
        hung = await client.healthy(timeout_seconds=20.0)
        gate.open()
        await begun
        return hung, await client.healthy(timeout_seconds=20.0)

    assert using(running, work) == (False, True)


def test_draining_finishes_what_was_begun_and_begins_nothing(world):
    async def work(client):
        begun = ask(client, world.base.name)
        await until(lambda: running.engine.scheduler.load == (0, 1))
        running.terminate()
        with pytest.raises(EngineBusyError, match="shutting down"):
            await ask(client, world.base.name)
        assert not await client.healthy(timeout_seconds=10.0)
        gate.open()
        return await begun

    with running_engine(world.base) as running:
        gate = Gate(running.engine)
        answer = using(running, work)
        running.thread.join(20.0)
        assert not running.thread.is_alive()
    assert answer.tokens_out == DECODING.max_new_tokens


def test_draining_ends_by_itself_when_an_answer_takes_too_long(world):
    async def work(client):
        begun = ask(client, world.base.name)
        await until(lambda: running.engine.scheduler.load == (0, 1))
        running.terminate()
        with pytest.raises(EngineError):
            await begun

    with running_engine(world.base, drain_seconds=0.3) as running:
        gate = Gate(running.engine)
        using(running, work)
        gate.open()
