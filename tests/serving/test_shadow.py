"""The shadow: copies that nobody sees, that hold up nobody, and that are recorded."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.errors import EngineError
from ml_platform.serving.question import ReplyStatus
from ml_platform.serving.shadow import shadow_id
from tests.samples.serving import NOW, Published, Shelf, deploy, good_answer, make_loaded, question, serving

PRODUCTION, SHADOW = make_loaded(1), make_loaded(2)
SHADOWED = deploy(3, PRODUCTION, SHADOW, shadow=SHADOW, shadow_share=1.0)


def test_a_copy_is_answered_by_the_shadow_alone_and_names_its_original(tmp_path: Path) -> None:
    async def run() -> tuple[ProvenanceRecord, ProvenanceRecord]:
        async with serving(tmp_path, SHADOWED) as served:
            reply = await served.answerer.answer(question())
            await served.answerer.drain()
            return reply.record, served.records()[shadow_id(reply.record.response_id)]

    original, copy = asyncio.run(run())
    assert (original.release_id, original.cohort, original.shadow_of) == (PRODUCTION.release_id, "production", None)
    assert (copy.release_id, copy.cohort, copy.shadow_of) == (SHADOW.release_id, "shadow", original.response_id)
    assert (copy.facts["shown_by"], copy.prompt) == (2, SHADOW.admitted.release.prompt)
    assert json.loads(copy.answer)["reply"] == "Level 2."
    assert (copy.user_sha256, copy.epoch) == (original.user_sha256, original.epoch)


def test_a_shadow_that_hangs_delays_nobody_and_what_is_too_much_is_dropped(tmp_path: Path) -> None:
    over = asyncio.Event()

    async def say(model: str, turns: Any) -> Any:
        if model == SHADOW.admitted.adapter_name:
            await over.wait()
        return await good_answer(model, turns)

    async def run() -> int:
        async with serving(tmp_path, SHADOWED, say=say) as served:
            started = time.monotonic()
            for _ in range(20):
                assert (await served.answerer.answer(question())).status is ReplyStatus.ANSWERED
            assert time.monotonic() - started < 5.0
            over.set()
            await served.answerer.drain()
            assert len(served.records()) == 40 - served.answerer.shadow.dropped
            return served.answerer.shadow.dropped

    assert asyncio.run(run()) == 18


def test_a_shadow_that_fails_is_recorded_and_changes_no_answer(tmp_path: Path) -> None:
    async def say(model: str, turns: Any) -> Any:
        if model == SHADOW.admitted.adapter_name:
            raise EngineError("broken")
        return await good_answer(model, turns)

    async def run() -> None:
        async with serving(tmp_path, SHADOWED, say=say) as served:
            reply = await served.answerer.answer(question())
            await served.answerer.drain()
            copy = served.records()[shadow_id(reply.record.response_id)]
        assert reply.record.errors == ()
        assert [error.kind for error in copy.errors] == ["engine_error"]
        assert copy.answer == ""

    asyncio.run(run())


def test_a_shadow_that_cannot_even_begin_is_dropped_or_forgotten(tmp_path: Path) -> None:
    async def die(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    guardrails: Any = SimpleNamespace(check_input=die)
    broken = replace(make_loaded(2), guardrails=guardrails)
    blind = make_loaded(2, shelf=Shelf(Published(2, {}, NOW)))
    refusing = make_loaded(2, serving={"breaker": {"min_count": 1}})

    async def run() -> None:
        for number, shadow in enumerate((broken, blind, refusing)):
            deployment = deploy(3, PRODUCTION, shadow, shadow=shadow, shadow_share=1.0)
            async with serving(tmp_path / str(number), deployment) as served:
                if shadow is refusing:
                    served.answerer.breakers.admit(shadow, 0.0)
                    served.answerer.breakers.record(shadow, failed=True, probe=False, now=time.monotonic())
                reply = await served.answerer.answer(question())
                await served.answerer.drain()
                copies = [record for record in served.records().values() if record.shadow_of]
                assert reply.status is ReplyStatus.ANSWERED
                if shadow is broken:
                    assert [error.message for error in copies[0].errors] == ["ZeroDivisionError"]
                else:
                    assert copies == []

    asyncio.run(run())
