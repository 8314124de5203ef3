"""The engine as its own process: `mlp engine` with a secret, killed at any moment, asked by other people's clients."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from ml_platform.cli.app import run
from ml_platform.contracts.home import Home
from ml_platform.contracts.report import Decoding
from ml_platform.errors import BusyError, DeadlineError, EngineError, EvidenceError
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.engine.server import bind
from ml_platform.serving.engine.token import engine_token, token_path
from ml_platform.serving.engine_client import EngineClient
from tests.samples.engine import CONVERSATIONS, make_world

LONG = Decoding(max_new_tokens=800, batch_size=1)
SECONDS_TO_NOTICE = 1.0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("engine-process"))


@contextmanager
def engine_process(root):
    """`mlp engine` on a free port over the tiny model, and what it said when it was ready."""
    command = [sys.executable, "-c", "from ml_platform.cli import main; main()", "engine", "--json", "--port", "0"]
    options = ["--base", str(root / "tiny-model"), "--threads", "1", "--context", "1000"]
    environment = os.environ | {"ML_PLATFORM_HOME": str(root / "home")}
    with subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.rstrip() == "}":
                    break
            yield process, json.loads("".join(lines))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def process(world):
    """One process for all tests that leave it as it was; the last one ends it."""
    with engine_process(world.base.path.parents[3]) as started:
        yield started


def secret_of(told):
    return Path(told["token_file"]).read_text().strip()


def asking(client, world, seconds):
    """Two long generations on their way."""
    deadline = Deadline.after(seconds, time.monotonic())
    return [
        asyncio.ensure_future(client.generate(world.base.name, conversation, LONG, deadline=deadline))
        for conversation in CONVERSATIONS[:2]
    ]


def test_an_engine_that_hangs_or_dies_in_mid_stream_is_noticed_and_nobody_waits_for_it(world):
    async def work(running, told):
        clients = [EngineClient(told["url"], token=secret_of(told), stream=stream) for stream in (False, True)]
        try:
            hung = [one for client in clients for one in asking(client, world, 3.0)]
            await until_generating(clients[0])
            running.send_signal(signal.SIGSTOP)
            late = await asyncio.gather(*hung, return_exceptions=True)
            running.send_signal(signal.SIGCONT)

            begun = [one for client in clients for one in asking(client, world, 60.0)]
            await until_generating(clients[0])
            running.kill()
            killed = time.monotonic()
            broken = await asyncio.gather(*begun, return_exceptions=True)
            noticed = time.monotonic() - killed
            return late, broken, noticed, await clients[0].healthy(timeout_seconds=1.0)
        finally:
            for client in clients:
                await client.close()

    with engine_process(world.base.path.parents[3]) as (running, told):
        late, broken, noticed, healthy = asyncio.run(work(running, told))

    assert [type(error) for error in late] == [DeadlineError] * 4
    assert [type(error) for error in broken] == [EngineError] * 4
    assert noticed < SECONDS_TO_NOTICE
    assert not healthy


async def until_generating(client):
    """Returns when the engine generates for all four, of which none is done."""
    ends = time.monotonic() + 20.0
    while True:
        async with client._call("GET", "/metrics", None, 5.0) as response:
            if "mlp_engine_busy_rows 4.0" in await response.text():
                return
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


def test_the_secret_is_made_once_and_for_its_owner_only(world, process):
    _, told = process
    path = token_path(Home(world.base.path.parents[2]))

    assert told["token_file"] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(engine_token(path)) >= 43
    assert engine_token(path) == engine_token(path)


def test_a_secret_that_others_can_read_or_that_is_empty_is_refused(tmp_path):
    path = tmp_path / "keys" / "engine_token"
    engine_token(path)
    path.chmod(0o644)
    with pytest.raises(EvidenceError, match="can be read by others"):
        engine_token(path)
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(EvidenceError, match="is empty"):
        engine_token(path)


def test_a_port_that_is_taken_is_said_so():
    with bind("127.0.0.1", 0) as taken, pytest.raises(BusyError, match=r"cannot be bound.*--port"):
        bind("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--base", "nobody"], "neither a known name nor a folder"), (["--port", "0"], "Name it: --base")],
)
def test_an_engine_without_a_base_model_does_not_start(tmp_path, monkeypatch, capsys, options, told):
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("ml_platform.contracts.products.product_folders", dict)

    assert run(["engine", "--port", "0", *options]) == 1
    assert told in capsys.readouterr().err


def test_the_openai_client_reads_whole_answers_streams_and_errors(world, process):
    openai = pytest.importorskip("openai")
    _, told = process
    conversation = [dict(message) for message in CONVERSATIONS[0]]

    with openai.OpenAI(base_url=f"{told['url']}/v1", api_key=secret_of(told), max_retries=0) as client:
        whole = client.chat.completions.create(model=world.base.name, messages=conversation, max_tokens=9)
        stream = client.chat.completions.create(
            model=world.base.name,
            messages=conversation,
            max_tokens=9,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.chat.completions.create(model="nobody", messages=conversation)
        listed = [model.id for model in client.models.list()]

    assert whole.usage.completion_tokens == 9
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert listed == [world.base.name]


def test_sigterm_finishes_what_was_begun_and_ends_well(world, process):
    running, told = process

    async def work():
        clients = [EngineClient(told["url"], token=secret_of(told)) for _ in range(2)]
        try:
            begun = [one for client in clients for one in asking(client, world, 60.0)]
            await until_generating(clients[0])
            running.terminate()
            return await asyncio.gather(*begun)
        finally:
            for client in clients:
                await client.close()

    answers = asyncio.run(work())
    assert all(answer.tokens_out == LONG.max_new_tokens or answer.finished for answer in answers)
    assert running.wait(20.0) == 0
