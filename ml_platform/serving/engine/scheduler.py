"""The thread of the model: prompts are read as rows get free, and all busy rows go on together, token by token."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ml_platform.errors import EngineBusyError, EngineError
from ml_platform.families.lora.memory import Memory
from ml_platform.serving.engine.job import Job, Outcome
from ml_platform.serving.engine.metrics import EngineMetrics

if TYPE_CHECKING:
    from ml_platform.families.lora.decoder import Decoder
    from ml_platform.families.lora.side_by_side import AdapterStack

READ_TOKENS = 512
"""How many prompt tokens are read in one go, unless one prompt has more: busy rows wait for so long."""

MOST_FAILURES = 5
"""After so many failed passes in a row the thread ends, and with it the process: a device may be lost for good."""

Deliver = Callable[[Sequence[Job]], None]
"""Hands jobs with news to the event loop; called in the thread of the model."""

log = logging.getLogger(__name__)


class Scheduler:
    """Continuous batching over one decoder. `submit`, `cancel` and `stack` are for other threads, all else is its own.

    Reading prompts and continuing rows take turns, so that arrivals never stall those who are being answered for
    longer than one reading. A pack that is read holds prompts of one adapter only; the batch holds any mixture.
    """

    def __init__(
        self, decoder: "Decoder", stack: "AdapterStack", rows: int, context: int, max_queue: int, metrics: EngineMetrics
    ) -> None:
        self.stack = stack
        self.last_token_at = float("-inf")
        self._decoder, self._rows, self._context, self._max_queue = decoder, rows, context, max_queue
        self._metrics, self._failures = metrics, 0
        metrics.watch(lambda: self.load)
        self._memory = Memory(rows, context)
        self._busy: list[Job] = []
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._deliver: Deliver = lambda _jobs: None
        self._thread = threading.Thread(target=self._run, name="engine-model", daemon=True)

    def start(self, deliver: Deliver) -> None:
        """Starts the thread; `deliver` gets the jobs that have news."""
        self._deliver = deliver
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Ends the thread after the pass that it is in; whoever is not answered yet gets CANCELLED."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def load(self) -> tuple[int, int]:
        """How many jobs wait, and how many rows are busy."""
        return len(self._waiting), len(self._busy)

    def submit(self, job: Job, *, probe: bool = False) -> None:
        """Queues a job; a probe goes first and fits into any queue.

        Raises EngineBusyError when the queue is full and EngineError when the thread is gone.
        """
        with self._changed:
            if not self.alive or self._stopping:
                raise EngineError("the thread of the model has ended. Restart the engine.")
            if probe:
                self._waiting.appendleft(job)
            elif len(self._waiting) >= self._max_queue:
                raise EngineBusyError(f"{len(self._waiting)} requests wait already. Try again later.", 1.0)
            else:
                self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Frees the job's row before the next pass."""
        job.cancelled = True
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        import torch

        try:
            with torch.inference_mode():
                read_last = False
                while self._wait_for_work():
                    read_last = self._step(read_last)
        except Exception:
            log.exception("the thread of the model ends")
        finally:
            with self._changed:
                self._stopping = True
                left = [*self._busy, *self._waiting]
                self._busy, self._waiting = [], deque()
            self._end(left, Outcome.CANCELLED)

    def _wait_for_work(self) -> bool:
        """Drops what nobody waits for any more, and sleeps until there is something to do; False: stop."""
        while True:
            with self._changed:
                lost = [job for job in self._waiting if job.cancelled]
                for job in lost:
                    self._waiting.remove(job)
                idle = not (lost or self._waiting or self._busy or self._stopping)
                if idle:
                    self._changed.wait()
            gone = [row for row, job in enumerate(self._busy) if job.cancelled]
            lost += [self._busy[row] for row in gone]
            self._free(gone)
            self._end(lost, Outcome.CANCELLED)
            if self._stopping:
                return False
            if self._busy or self._waiting:
                return True

    def _step(self, read_last: bool) -> bool:
        """One pass through the model: whether it read prompts. What fails in it fails for all who took part."""
        arriving = [] if read_last and self._busy else self._choose()
        if not (arriving or self._busy):
            return False
        try:
            if arriving:
                self._take(arriving, self._read(arriving))
            else:
                self._take(self._busy, self._advance())
            self._failures = 0
        except Exception as error:
            log.exception("a pass through the model failed; %d answers are lost", len(self._busy))
            self._metrics.failed_passes.inc()
            lost, self._busy = self._busy, []
            self._memory = Memory(self._rows, self._context)
            self._end(lost, Outcome.FAILED)
            self._failures += 1
            if self._failures >= MOST_FAILURES:
                raise EngineError(f"{MOST_FAILURES} passes through the model failed in a row.") from error
        return bool(arriving)

    def _choose(self) -> list[Job]:
        """The first who waits, and those behind it with the same adapter, as far as rows and READ_TOKENS go."""
        with self._changed:
            free = self._rows - len(self._busy)
            if not free or not self._waiting:
                return []
            chosen = [self._waiting.popleft()]
            tokens = len(chosen[0].prompt)
            for job in list(self._waiting):
                tokens += len(job.prompt)
                if len(chosen) >= free or tokens > READ_TOKENS:
                    break
                if job.adapter is chosen[0].adapter:
                    chosen.append(job)
                    self._waiting.remove(job)
                else:
                    tokens -= len(job.prompt)
        return chosen

    def _read(self, arriving: list[Job]) -> list[int]:
        started = time.monotonic()
        for job in arriving:
            job.started = started
        self._busy += arriving
        self._decoder.using(self.stack, [arriving[0].adapter])
        return self._decoder.read([job.prompt for job in arriving], self._memory)

    def _advance(self) -> list[int]:
        self._decoder.using(self.stack, [job.adapter for job in self._busy])
        return self._decoder.advance([job.tokens[-1] for job in self._busy], self._memory)

    def _take(self, jobs: Sequence[Job], tokens: Sequence[int]) -> None:
        """Gives each job its token, frees the rows of those that are complete, and tells whoever listens."""
        now, end = time.monotonic(), self._decoder.end
        told: list[Job] = []
        for job, token in zip(jobs, tokens, strict=True):
            job.tokens.append(token)
            job.first_token = job.first_token or now
            if token == end or len(job.tokens) >= job.limit:
                job.outcome = Outcome.STOP if token == end else Outcome.LENGTH
            if job.streams or job.outcome:
                told.append(job)
        self.last_token_at = now
        self._metrics.took(len(tokens))
        self._free([row for row, job in enumerate(self._busy) if job.outcome])
        if told:
            self._deliver(told)

    def _free(self, rows: list[int]) -> None:
        if rows:
            self._busy = [self._busy[row] for row in self._memory.drop(rows)]

    def _end(self, jobs: Sequence[Job], outcome: Outcome) -> None:
        for job in jobs:
            job.outcome = outcome
        if jobs:
            self._deliver(jobs)


def deliver_in(loop: Any) -> Deliver:
    """Calls each job's `tell` in an event loop; one wake-up a pass however many rows it had."""

    def tell_all(jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.tell()

    def deliver(jobs: Sequence[Job]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell_all, tuple(jobs))

    return deliver
