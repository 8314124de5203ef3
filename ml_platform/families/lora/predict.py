"""Answers with a trained adapter: many conversations at once, each as if it were alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.contracts.report import Decoding
from ml_platform.errors import ContractError
from ml_platform.families.lora.adapter_files import AdapterFiles
from ml_platform.families.lora.base_model import BaseModel
from ml_platform.families.lora.decoder import Decoder
from ml_platform.families.lora.encode import encode_prompt
from ml_platform.families.lora.memory import Memory
from ml_platform.families.protocol import Conversation, Generation

STAGE = "generate"
MEMORY_BYTES = 1 << 30
"""For the keys and values of all conversations in work; a longer conversation leaves room for fewer others."""

READ_TOKENS = 1024
"""How many prompt tokens are read in one go: 472 a core-second, with twice as many 399, as they leave the cache."""


@dataclass
class _Answer:
    """A conversation on its way: where it stands in the caller's order, and the tokens so far."""

    place: int
    prompt: list[int]
    tokens: list[int] = field(default_factory=list)

    def takes(self, token: int, end: int, limit: int) -> bool:
        """Adds a token; whether the answer is complete."""
        self.tokens.append(token)
        return token == end or len(self.tokens) >= limit


class Predictor:
    """A base model with at most one adapter, merged in memory so that an answer costs nothing extra.

    Deterministic: the same conversations give the same answers. What else is in the batch changes an
    answer only where two tokens are tied to the last bits of a float.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: AdapterFiles | None = None,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        """`device` and `threads` default to the best here. Raises SourceDataError for what the engine would refuse."""
        self._decoder = Decoder(base, adapter, device, threads)
        self._tokenizer = self._decoder.tokenizer

    def generate(
        self, conversations: Sequence[Conversation], decoding: Decoding, report: Reporter = silent
    ) -> list[Generation]:
        """One answer a conversation, in the order given; at most `decoding.batch_size` are in work at once.

        Raises ContractError for a temperature: evaluation and gates need answers that can be reproduced.
        """
        import torch

        if decoding.temperature:
            raise ContractError(
                f"decoding.temperature is {decoding.temperature}, but answers must be reproducible. Leave it at 0."
            )
        answers = [
            _Answer(place, encode_prompt(self._tokenizer, conversation))
            for place, conversation in enumerate(conversations)
        ]
        done: dict[int, Generation] = {}
        pace = _Pace(report, len(answers))
        with torch.inference_mode():
            for waiting in by_length(answers):
                self._answer_all(waiting, decoding, done, pace)
        return [done[place] for place in range(len(answers))]

    def time_requests(self, conversations: Sequence[Conversation], decoding: Decoding) -> list[float]:
        """The latency of each conversation answered alone, from text to text, in milliseconds; warmed up once."""
        alone = Decoding(max_new_tokens=decoding.max_new_tokens, batch_size=1)
        self.generate(conversations[:1], Decoding(max_new_tokens=2, batch_size=1))
        latencies = []
        for conversation in conversations:
            started = time.perf_counter()
            self.generate([conversation], alone)
            latencies.append((time.perf_counter() - started) * 1000.0)
        return latencies

    def _answer_all(
        self, waiting: list[_Answer], decoding: Decoding, done: dict[int, Generation], pace: "_Pace"
    ) -> None:
        """Answers conversations of about the same length; rows that get free are taken by those who wait."""
        tokens_a_row = len(waiting[-1].prompt) + decoding.max_new_tokens
        fitting = max(1, MEMORY_BYTES // (tokens_a_row * self._decoder.bytes_a_token))
        memory = Memory(min(decoding.batch_size, fitting, len(waiting)), tokens_a_row)
        busy: list[_Answer] = []
        while waiting or busy:
            free = memory.rows - len(busy)
            if waiting and free >= min(len(waiting), max(1, memory.rows // 8)):
                arriving = _take_from_end(waiting, free)
                firsts = self._decoder.read([answer.prompt for answer in arriving], memory)
                tokens: list[int | None] = [None] * len(busy) + firsts
                busy += arriving
            else:
                tokens = [*self._decoder.advance([answer.tokens[-1] for answer in busy], memory)]
            busy = self._take(tokens, busy, memory, decoding, done)
            pace.tell(len(done), sum(token is not None for token in tokens))

    def _take(
        self, tokens: list[int | None], busy: list[_Answer], memory: Memory, decoding: Decoding, done: dict[int, Any]
    ) -> list[_Answer]:
        """Adds a token to each answer that got one; the answers that go on, in the rows of the memory."""
        end = self._decoder.end
        finished = []
        for row, (token, answer) in enumerate(zip(tokens, busy, strict=True)):
            if token is not None and answer.takes(token, end, decoding.max_new_tokens):
                finished.append(row)
                text = self._decoder.text(answer.tokens)
                ended = answer.tokens[-1] == end
                done[answer.place] = Generation(text, len(answer.prompt), len(answer.tokens), ended)
        return [busy[row] for row in memory.drop(finished)]


def by_length(answers: Sequence[_Answer]) -> list[list[_Answer]]:
    """Conversations in groups within which none is much longer than another, each group sorted, longest last.

    The room of a row is that of the longest in its group: one long conversation must not make all rows long.
    """
    groups: dict[int, list[_Answer]] = {}
    for answer in sorted(answers, key=lambda one: (len(one.prompt), one.place)):
        groups.setdefault(max(8, len(answer.prompt).bit_length()), []).append(answer)
    return list(groups.values())


def _take_from_end(waiting: list[_Answer], free: int) -> list[_Answer]:
    """The longest of those who wait: at most `free`, and no more than READ_TOKENS tokens unless it is only one."""
    arriving = [waiting.pop()]
    tokens = len(arriving[0].prompt)
    while waiting and len(arriving) < free and tokens + len(waiting[-1].prompt) <= READ_TOKENS:
        arriving.append(waiting.pop())
        tokens += len(arriving[-1].prompt)
    return arriving


class _Pace:
    """Tells how many answers are done and how fast tokens come."""

    def __init__(self, report: Reporter, total: int) -> None:
        self.report, self.total = report, max(1, total)
        self.tokens = 0
        self.started = self.told = time.monotonic()

    def tell(self, done: int, tokens: int) -> None:
        self.tokens += tokens
        now = time.monotonic()
        if now - self.told < 1.0 and done < self.total:
            return
        self.told = now
        elapsed = max(1e-9, now - self.started)
        left = elapsed / done * (self.total - done) if done else None
        detail = f"{done} of {self.total} answers, {self.tokens / elapsed:.0f} tokens/s"
        self.report(Progress(STAGE, done / self.total, detail, left))
