"""A real engine over the tiny model, in a thread of this process, with real adapters to load."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.contracts.home import Home
from ml_platform.contracts.report import Decoding
from ml_platform.families.lora.base_model import BaseModel
from ml_platform.families.lora.prompt import messages
from ml_platform.serving.adapter_names import FILES, adapter_digest
from ml_platform.serving.engine.app import EngineApp
from ml_platform.serving.engine.server import bind, make_server
from ml_platform.serving.engine.service import Engine, EngineLimits
from ml_platform.serving.engine_client import EngineClient
from tests.samples.tiny_lora import PROMPT, tiny_base, tiny_examples

TOKEN = "a-token-of-tests"
ASK = {"messages": [{"role": "user", "content": "late?"}], "max_tokens": 4}
HEADERS = {"authorization": f"Bearer {TOKEN}"}
CHAT = "/v1/chat/completions"
LIMITS = EngineLimits(rows=8, context=600, max_queue=256)
CONVERSATIONS = [messages(PROMPT, example, with_answer=False) for example in tiny_examples(12)]
DECODING = Decoding(max_new_tokens=24, batch_size=8)


@dataclass(frozen=True)
class TinyAdapter:
    """An adapter on disk and the name that it is loaded by."""

    path: Path
    name: str

    @classmethod
    def of(cls, path: Path, product: str = "tiny") -> "TinyAdapter":
        """The adapter in a folder, named by its bytes."""
        return cls(path, f"{product}@{adapter_digest(path)}")


@dataclass(frozen=True)
class TinyWorld:
    """The tiny base model and three adapters of different rank that change most answers."""

    base: BaseModel
    adapters: tuple[TinyAdapter, ...]


def make_world(root: Path) -> TinyWorld:
    """The world below `root`."""
    base = tiny_base(Home(root / "home"))
    modules = (["q_proj", "v_proj"], ["down_proj", "q_proj", "up_proj"], ["o_proj", "gate_proj"])
    made = [make_adapter(root / f"adapter{n}", base, n, rank, modules[n]) for n, rank in enumerate((4, 2, 7))]
    return TinyWorld(base, tuple(TinyAdapter.of(path) for path in made))


def make_adapter(folder: Path, base: BaseModel, seed: int, rank: int, modules: list[str]) -> Path:
    """An adapter as training writes it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base.path)
    tuned = get_peft_model(model, LoraConfig(r=rank, lora_alpha=8, target_modules=modules))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    tuned.save_pretrained(folder)
    config = json.loads((folder / FILES[0]).read_text())
    config["base_model_name_or_path"] = base.reference
    (folder / FILES[0]).write_text(json.dumps(config))
    return folder


@dataclass(frozen=True)
class RunningEngine:
    """An engine that listens."""

    url: str
    engine: Engine
    app: EngineApp
    server: Any
    thread: threading.Thread
    token: str = TOKEN

    def terminate(self) -> None:
        """What SIGTERM does."""
        self.server.handle_exit(15, None)


@contextmanager
def running_engine(
    base: BaseModel, limits: EngineLimits = LIMITS, drain_seconds: float = 30.0
) -> Iterator[RunningEngine]:
    """An engine on a free port for as long as the block lasts."""
    engine = Engine(base, limits, threads=1)
    app = EngineApp(engine, TOKEN)
    listener, ready = bind("127.0.0.1", 0), threading.Event()
    server = make_server(app, ready.set, drain_seconds)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="engine-server")
    thread.start()
    assert ready.wait(60.0)
    running = RunningEngine(f"http://127.0.0.1:{listener.getsockname()[1]}", engine, app, server, thread)
    try:
        yield running
    finally:
        server.should_exit = True
        thread.join(30.0)
        assert not thread.is_alive()


def using(served: Any, work: Callable[[EngineClient], Awaitable[Any]], *, stream: bool = False) -> Any:
    """What `work(client)` gives, with a client of an engine that has a `url` and a `token`."""

    async def run() -> Any:
        client = EngineClient(served.url, token=served.token, stream=stream)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


class Gate:
    """Holds the model before it continues busy rows, so that a test can look at what is under way."""

    def __init__(self, engine: Engine) -> None:
        self._passing, self._decoder = threading.Event(), engine._decoder
        self.reached = threading.Event()
        self._advance = engine._decoder.advance
        self._decoder.advance = self._wait  # type: ignore[method-assign, assignment]

    def _wait(self, *arguments: Any) -> list[int]:
        self.reached.set()
        assert self._passing.wait(60.0)
        return self._advance(*arguments)

    def open(self) -> None:
        """Lets everything pass from now on."""
        self._passing.set()

    def instead(self, advance: Any) -> None:
        """Lets everything pass, but has something else done."""
        self._advance = advance
        self._passing.set()


def call(
    running: RunningEngine, method: str, path: str, body: Any = None, headers: Mapping[str, str] = HEADERS
) -> tuple[int, Any, Any]:
    """Status, body and headers of one request."""

    import asyncio

    import aiohttp

    async def called() -> tuple[int, Any, Any]:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, running.url + path, data=data, headers=headers) as response,
        ):
            text = await response.text()
            return response.status, json.loads(text) if text.startswith("{") else text, response.headers

    return asyncio.run(called())
