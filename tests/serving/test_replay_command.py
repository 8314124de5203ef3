"""`mlp replay` as people call it: what it says, how it ends, and that it can be stopped."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.tiny_product import FIRST_DAY
from ml_platform.cli.app import run
from ml_platform.errors import EngineError
from ml_platform.serving.gateway.access import ensure_local_key
from ml_platform.serving.question import Question, ReplyStatus
from tests.samples.gateway import Running, running_gateway
from tests.samples.provenance import PRODUCT
from tests.samples.replayed import write_replayed_product

FIRST, LAST = f"{FIRST_DAY:%Y-%m-%d}", "2024-01-05"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a product that the gateway of tests serves by name."""
    root = tmp_path_factory.mktemp("checkout")
    write_replayed_product(root / "products", PRODUCT)
    return root


@pytest.fixture
def gateway(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    with running_gateway(tmp_path / "home") as running:
        ensure_local_key(running.home)
        yield running


def arguments(url: str, *more: str) -> list[str]:
    return ["replay", PRODUCT, "--from", FIRST, "--to", LAST, "--url", url, *more]


def test_a_replay_ends_with_a_table_and_exit_code_0(gateway: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(gateway.url)) == 0
    said = capsys.readouterr().out
    assert "15 of 15 questions" in said
    assert "asked 15 of 15 · outcomes 15 of 15" in said
    assert "production" in said or "canary" in said


def test_as_json_only_one_document_stands_on_stdout(gateway: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(gateway.url, "--limit", "4", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["asked"], told["answered"], told["outcomes_sent"]) == (4, 4, 4)
    assert told["latency_ms"]["p95"] > 0
    assert sum(arm["answered"] for arm in told["arms"]) == 4


def test_without_a_gateway_it_says_what_to_start(gateway: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments("http://127.0.0.1:9")) == 1
    assert "no gateway answers at http://127.0.0.1:9" in capsys.readouterr().err
    assert gateway.answerer.seen == []


def test_days_in_the_wrong_order_are_refused(gateway: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", PRODUCT, "--from", LAST, "--to", FIRST, "--url", gateway.url]) == 1
    assert "Swap them" in capsys.readouterr().err


def test_questions_that_the_gateway_fails_make_exit_code_1(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(question: Question) -> None:
        if question.metadata["parcel_id"] == "P0003":
            raise EngineError("it is not there")

    monkeypatch.chdir(folder)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    with running_gateway(tmp_path / "home", fail) as running:
        ensure_local_key(running.home)
        assert run(arguments(running.url)) == 1
    told = capsys.readouterr()
    assert "1 of 15 questions failed: 1 x engine_unavailable" in told.err
    assert "without an answer: 1 engine_unavailable" in told.out


def test_a_replay_that_no_release_answered_is_no_success(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def nothing_serves(_: Question) -> ReplyStatus:
        return ReplyStatus.FALLBACK

    monkeypatch.chdir(folder)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    with running_gateway(tmp_path / "home", nothing_serves) as running:
        ensure_local_key(running.home)
        assert run(arguments(running.url, "--limit", "4")) == 1
    assert "all 4 replies were the fallback: no release answered" in capsys.readouterr().err


def test_ctrl_c_ends_it_with_what_there_is(folder: Path, tmp_path: Path) -> None:
    async def slowly(_: Question) -> None:
        await asyncio.sleep(0.5)

    with running_gateway(tmp_path / "home", slowly) as running:
        ensure_local_key(running.home)
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("mlp")), *arguments(running.url, "--at-once", "1", "--json")],
            cwd=folder,
            env={**os.environ, "ML_PLATFORM_HOME": str(running.home.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 60
        while len(running.answerer.seen) < 3 and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert 2 <= json.loads(out)["replies"] < 15
    assert "interrupted" in err
    assert "Traceback" not in err
