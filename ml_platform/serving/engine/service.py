"""The engine itself, whatever protocol asks it: base model, adapters, the thread of the model."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.errors import EngineError
from ml_platform.serving.engine.job import Job
from ml_platform.serving.engine.metrics import EngineMetrics
from ml_platform.serving.engine.protocol import Ask, ProtocolError
from ml_platform.serving.engine.scheduler import Scheduler, deliver_in
from ml_platform.serving.engine.shelf import Shelf

if TYPE_CHECKING:
    from ml_platform.families.lora.base_model import BaseModel

PROBE_SECONDS = 5.0
PROBE_VALID_SECONDS = 1.0
CHARACTERS_A_TOKEN = 32
"""More than this no text has on average: it cannot fit."""

PROBE = ({"role": "user", "content": "hi"},)


@dataclass(frozen=True)
class EngineLimits:
    """`rows` answers at once, each of at most `context` tokens with its prompt; `max_queue` more may wait."""

    rows: int = 16
    context: int = 1024
    max_queue: int = 64


class Engine:
    """Answers from one base model and many adapters. Make it anywhere, `start` it in the event loop that serves it."""

    def __init__(self, base: "BaseModel", limits: EngineLimits, threads: int | None = None) -> None:
        from ml_platform.families.lora.decoder import Decoder
        from ml_platform.families.lora.side_by_side import AdapterStack

        self.base, self.limits, self.metrics = base, limits, EngineMetrics()
        self._decoder = Decoder(base, threads=threads)
        self._decoder.hold_adapters()
        self.context = min(limits.context, int(self._decoder.model.config.max_position_embeddings))
        self.scheduler = Scheduler(
            self._decoder, AdapterStack(), limits.rows, self.context, limits.max_queue, self.metrics
        )
        self.shelf = Shelf(base, self._decoder, self.scheduler, self.metrics)

    def start(self) -> None:
        """Starts the thread of the model; call it in the event loop."""
        self.scheduler.start(deliver_in(asyncio.get_running_loop()))

    async def stop(self) -> None:
        """Ends the thread of the model."""
        await asyncio.to_thread(self.scheduler.stop, PROBE_SECONDS)

    @contextlib.asynccontextmanager
    async def generation(self, ask: Ask) -> AsyncIterator["Generation"]:
        """A generation on its way; leaving the block early frees its row.

        Raises ProtocolError for an unknown model or too long a prompt, EngineBusyError for a full queue.
        """
        from ml_platform.families.lora.encode import encode_prompt

        held = self.shelf.use(ask.model)
        generation = None
        try:
            self._require_short(ask)
            prompt = encode_prompt(self._decoder.tokenizer, ask.conversation)
            news = asyncio.Event()
            job = Job(
                prompt=prompt,
                limit=self._limit(len(prompt), ask.limit),
                adapter=None if held is None else held.weights,
                tell=news.set,
                streams=ask.streams,
                submitted=time.monotonic(),
            )
            self.scheduler.submit(job)
            generation = Generation(job, news, self)
            yield generation
        finally:
            if generation is None or generation.job.outcome:
                self.shelf.release(held)
            else:
                # The row is given back by the thread of the model, and its adapter must not go before.
                job.streams, job.tell = False, _once_ended(job, lambda: self.shelf.release(held))
                self.scheduler.cancel(job)

    def _require_short(self, ask: Ask) -> None:
        """Refuses what cannot fit before it costs the time of making tokens of it."""
        size = sum(len(message["content"]) for message in ask.conversation)
        if size > CHARACTERS_A_TOKEN * self.context:
            raise ProtocolError(
                400,
                f"This model's maximum context length is {self.context} tokens, but the messages have {size} "
                "characters. Shorten them.",
                param="messages",
            )

    def _limit(self, prompt: int, asked: int | None) -> int:
        room = self.context - prompt
        if room < (asked or 1):
            raise ProtocolError(
                400,
                f"This model's maximum context length is {self.context} tokens, but the prompt has {prompt} and "
                f"{asked or 1} more were asked for. Shorten the messages or lower max_tokens.",
                param="messages" if room < 1 else "max_tokens",
            )
        return asked or room

    def text(self, job: Job) -> str:
        """What a job has said so far."""
        return self._decoder.text(job.tokens)

    async def healthy(self) -> bool:
        """Whether a token comes out: one that somebody got within the last second, or one that is made for this."""
        asked = time.monotonic()
        if not self.scheduler.alive:
            return False
        if asked - self.scheduler.last_token_at < PROBE_VALID_SECONDS:
            return True
        from ml_platform.families.lora.encode import encode_prompt

        news = asyncio.Event()
        prompt = encode_prompt(self._decoder.tokenizer, PROBE)
        job = Job(prompt=prompt, limit=1, adapter=None, tell=news.set, streams=False, submitted=asked)
        try:
            self.scheduler.submit(job, probe=True)
            await asyncio.wait_for(news.wait(), PROBE_SECONDS)
        except (EngineError, TimeoutError):
            self.scheduler.cancel(job)
        return self.scheduler.last_token_at >= asked


def _once_ended(job: Job, act: Callable[[], None]) -> Callable[[], None]:
    """A `tell` that acts at the end and never again: a stream's last token may be told after its outcome is there."""

    def tell() -> None:
        if job.outcome:
            job.tell = lambda: None
            act()

    return tell


class Generation:
    """One job as those who serve it see it."""

    def __init__(self, job: Job, news: asyncio.Event, engine: Engine) -> None:
        self.job, self._news, self._engine = job, news, engine

    async def wait(self) -> None:
        """Returns when the job has news: a token for a stream, or its outcome."""
        await self._news.wait()
        self._news.clear()

    @property
    def text(self) -> str:
        """All that was said so far."""
        return self._engine.text(self.job)
