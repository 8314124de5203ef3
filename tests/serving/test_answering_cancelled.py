"""Clients that hang up: the generation stops, and exactly one record is left, wherever it happened."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.errors import EngineError
from ml_platform.serving.deployment import Deployment
from ml_platform.serving.question import ReplyStatus
from tests.samples.serving import NOW, Published, Served, Shelf, deploy, good_answer, make_loaded, question, serving


async def cancelled_once(served: Served, begun: asyncio.Event, **asked: Any) -> str:
    """Asks, hangs up once `begun` is set, and returns the response's id."""
    one = question(**asked)
    task = asyncio.create_task(served.answerer.answer(one))
    await asyncio.wait_for(begun.wait(), 10.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return one.response_id


def test_hanging_up_during_the_generation_stops_it_and_leaves_a_record(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def say(model: str, turns: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    async def run() -> None:
        release = make_loaded(1)
        async with serving(tmp_path, deploy(1, release), say=say) as served:
            name = await cancelled_once(served, begun, utterance="my mail is ann@example.org")
            await served.answerer.drain()
            record = served.records()[name]
            assert served.engine.cancelled == 1
        assert [error.kind for error in record.errors] == ["client_gone"]
        assert (record.release_id, record.answer) == (release.release_id, "")
        assert record.utterance == "my mail is [email]"
        assert record.facts["shown_by"] == 1
        assert record.adapter == release.admitted.adapter_name

    asyncio.run(run())


def test_hanging_up_while_features_are_read_leaves_a_record(tmp_path: Path) -> None:
    over, shelf = threading.Event(), Shelf(Published(1, {"a": {}}, NOW))

    async def run() -> ProvenanceRecord:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def failing() -> None:
            loop.call_soon_threadsafe(begun.set)
            over.wait(20.0)

        shelf.failing = failing
        async with serving(tmp_path, deploy(1, make_loaded(1, shelf=shelf))) as served:
            name = await cancelled_once(served, begun)
            over.set()
            await served.answerer.drain()
            return served.records()[name]

    record = asyncio.run(run())
    assert [error.kind for error in record.errors] == ["client_gone"]
    assert record.utterance == "Is it high?"
    assert record.adapter is None


def test_hanging_up_while_the_record_is_written_leaves_that_one_record(tmp_path: Path, monkeypatch: Any) -> None:
    over, sync = threading.Event(), os.fdatasync

    async def run() -> tuple[str, dict[str, ProvenanceRecord]]:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def slow(descriptor: int) -> None:
            loop.call_soon_threadsafe(begun.set)
            over.wait(20.0)
            sync(descriptor)

        monkeypatch.setattr(os, "fdatasync", slow)
        async with serving(tmp_path, deploy(1, make_loaded(1))) as served:
            name = await cancelled_once(served, begun)
            over.set()
        return name, served.records()

    name, records = asyncio.run(run())
    assert list(records) == [name]
    assert records[name].errors == ()
    assert records[name].answer


def test_hanging_up_on_the_second_release_of_the_ladder_tells_of_both(tmp_path: Path) -> None:
    production, canary = make_loaded(1), make_loaded(2)
    begun = asyncio.Event()

    async def say(model: str, turns: Any) -> Any:
        if model == canary.admitted.adapter_name:
            raise EngineError("broken")
        begun.set()
        await asyncio.Event().wait()

    async def run() -> ProvenanceRecord:
        deployment: Deployment = deploy(1, production, canary, canary=canary, exposure=1.0)
        async with serving(tmp_path, deployment, say=say) as served:
            name = await cancelled_once(served, begun)
            await served.answerer.drain()
            return served.records()[name]

    record = asyncio.run(run())
    assert [error.kind for error in record.errors] == ["engine_error", "client_gone"]
    assert record.release_id == production.release_id
    assert record.facts["shown_by"] == 1


def test_at_whatever_step_a_client_hangs_up_there_is_one_record_of_each_question(tmp_path: Path) -> None:
    async def slowly(model: str, turns: Any) -> Any:
        for _ in range(5):
            await asyncio.sleep(0)
        return await good_answer(model, turns)

    async def run() -> None:
        async with serving(tmp_path, deploy(1, make_loaded(1)), say=slowly) as served:
            names, answered = set(), set()
            for steps in range(60):
                one = question()
                task = asyncio.create_task(served.answerer.answer(one))
                for _ in range(1 + steps):
                    await asyncio.sleep(0)
                task.cancel()
                names.add(one.response_id)
                try:
                    reply = await task
                    answered.add(reply.record.response_id)
                    assert reply.status is ReplyStatus.ANSWERED
                except asyncio.CancelledError:
                    continue
            await served.answerer.drain()
        records = served.records()
        assert set(records) == names
        assert all(not records[name].errors for name in answered)

    asyncio.run(run())
