"""Answers with a trained adapter: many conversations at once, each as if it were alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.contracts.report import Decoding
from ml_platform.errors import ContractError
from ml_platform.families.lora.base_model import BaseModel
from ml_platform.families.lora.encode import encode_prompt
from ml_platform.families.lora.hardware import detect_hardware
from ml_platform.families.lora.memory import Memory, register_memory
from ml_platform.families.lora.quiet import quiet_libraries
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
        self, base: BaseModel, adapter: Path | None = None, device: str | None = None, threads: int | None = None
    ) -> None:
        """`adapter` is the folder of a candidate's `adapter/`; `device` and `threads` default to the best here."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        hardware = detect_hardware(threads)
        hardware.pin()
        self.device = device or hardware.device
        dtype = torch.float32 if self.device == "cpu" else getattr(torch, hardware.dtype)
        with quiet_libraries():
            self._tokenizer = AutoTokenizer.from_pretrained(str(base.path))
            model = AutoModelForCausalLM.from_pretrained(
                str(base.path), dtype=dtype, attn_implementation=register_memory()
            )
            self._model = (model if adapter is None else _merged(model, adapter)).to(self.device).eval()

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
        fitting = max(1, MEMORY_BYTES // (tokens_a_row * self._bytes_a_token))
        memory = Memory(min(decoding.batch_size, fitting, len(waiting)), tokens_a_row)
        busy: list[_Answer] = []
        while waiting or busy:
            free = memory.rows - len(busy)
            if waiting and free >= min(len(waiting), max(1, memory.rows // 8)):
                arriving = _take_from_end(waiting, free)
                tokens = self._read(arriving, memory, len(busy))
                busy += arriving
            else:
                tokens = self._continue([answer.tokens[-1] for answer in busy], memory)
            busy = self._take(tokens, busy, memory, decoding, done)
            pace.tell(len(done), sum(token is not None for token in tokens))

    @property
    def _bytes_a_token(self) -> int:
        """What the keys and values of one token take, in all layers."""
        config = self._model.config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        return int(2 * config.num_hidden_layers * heads * width * self._model.dtype.itemsize)

    def _take(
        self, tokens: list[int | None], busy: list[_Answer], memory: Memory, decoding: Decoding, done: dict[int, Any]
    ) -> list[_Answer]:
        """Adds a token to each answer that got one; the answers that go on, in the rows of the memory."""
        end = self._tokenizer.eos_token_id
        finished = []
        for row, (token, answer) in enumerate(zip(tokens, busy, strict=True)):
            if token is not None and answer.takes(token, end, decoding.max_new_tokens):
                finished.append(row)
                text = self._tokenizer.decode([t for t in answer.tokens if t != end], skip_special_tokens=True)
                ended = answer.tokens[-1] == end
                done[answer.place] = Generation(text, len(answer.prompt), len(answer.tokens), ended)
        return [busy[row] for row in memory.drop(finished)]

    def _read(self, arriving: list[_Answer], memory: Memory, busy: int) -> list[int | None]:
        """Reads prompts into new rows; their first tokens, after a None for each row that was busy before."""
        import torch

        shared = _shared_beginning([answer.prompt for answer in arriving])
        tokens = arriving[0].prompt[:shared]
        positions = list(range(shared))
        ends = []
        for answer in arriving:
            tokens = tokens + answer.prompt[shared:]
            positions += range(shared, len(answer.prompt))
            ends.append(len(tokens) - 1)
        memory.read_pack([shared, *(len(answer.prompt) - shared for answer in arriving)])
        chosen = self._forward([tokens], torch.tensor([positions], device=self.device), memory, torch.tensor(ends))
        return [None] * busy + chosen

    def _continue(self, last: list[int], memory: Memory) -> list[int | None]:
        positions = memory.gain_token(self.device)
        return self._forward([[token] for token in last], positions, memory, 1)

    def _forward(self, tokens: list[list[int]], positions: Any, memory: Memory, keep: Any) -> list[int | None]:
        import torch

        ids = torch.tensor(tokens, device=self.device)
        logits = self._model(
            input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=keep, memory=memory
        ).logits
        chosen: list[int | None] = logits.argmax(dim=-1).flatten().tolist()
        return chosen


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


def _merged(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()


def _shared_beginning(prompts: Sequence[list[int]]) -> int:
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    return next((place for place in range(most) if first[place] != last[place]), max(0, most))
