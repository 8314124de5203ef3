"""A model that reads prompts into the rows of a Memory and continues all busy rows by one token at a time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_platform.families.lora.base_model import BaseModel
from ml_platform.families.lora.hardware import detect_hardware
from ml_platform.families.lora.memory import Memory, register_memory
from ml_platform.families.lora.quiet import quiet_libraries

if TYPE_CHECKING:
    from ml_platform.families.lora.adapter_files import AdapterFiles
    from ml_platform.families.lora.adapter_weights import AdapterWeights
    from ml_platform.families.lora.side_by_side import AdapterStack


class Decoder:
    """A base model with at most one adapter merged into it, or with many beside it after `hold_adapters`.

    Greedy: the same prompts give the same tokens. Call it inside `torch.inference_mode()`, from one thread.
    """

    def __init__(
        self,
        base: BaseModel,
        merged: "AdapterFiles | None" = None,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        """`merged` is the adapter; `device` and `threads` default to the best here. Raises as `merge_adapter` does."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from ml_platform.families.lora.adapter_weights import merge_adapter
        from ml_platform.families.lora.prepacked import prepack_linears

        hardware = detect_hardware(threads)
        hardware.pin()
        self.device = device or hardware.device
        dtype = torch.float32 if self.device == "cpu" else getattr(torch, hardware.dtype)
        with quiet_libraries():
            self.tokenizer = AutoTokenizer.from_pretrained(str(base.path))
            model = AutoModelForCausalLM.from_pretrained(
                str(base.path), dtype=dtype, attn_implementation=register_memory()
            )
        if merged is not None:
            merge_adapter(merged, base, model)
        self.model = model.to(self.device).eval().requires_grad_(False)
        prepack_linears(self.model)
        self._beside: Any = None

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        return int(self.tokenizer.eos_token_id)

    @property
    def bytes_a_token(self) -> int:
        """What the keys and values of one token take, in all layers."""
        config = self.model.config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        return int(2 * config.num_hidden_layers * heads * width * self.model.dtype.itemsize)

    def text(self, tokens: Sequence[int]) -> str:
        """An answer in words, without the token that ends it."""
        end = self.tokenizer.eos_token_id
        return str(self.tokenizer.decode([token for token in tokens if token != end], skip_special_tokens=True))

    def hold_adapters(self) -> None:
        """Lets each row have an adapter of its own from now on: see `using`."""
        from ml_platform.families.lora.side_by_side import SideBySide

        self._beside = SideBySide(self.model)

    def using(self, stack: "AdapterStack", rows: "Sequence[AdapterWeights | None]") -> None:
        """Says whose adapter each row of the next pass has; one row stands for all of a pack that is being read."""
        self._beside.choose(stack, rows)

    def read(self, prompts: Sequence[list[int]], memory: Memory) -> list[int]:
        """Reads prompts into new rows of the memory; the first token of each answer."""
        import torch

        shared = _shared_beginning(prompts)
        tokens = prompts[0][:shared]
        positions = list(range(shared))
        ends = []
        for prompt in prompts:
            tokens = tokens + prompt[shared:]
            positions += range(shared, len(prompt))
            ends.append(len(tokens) - 1)
        memory.read_pack([shared, *(len(prompt) - shared for prompt in prompts)])
        return self._forward([tokens], torch.tensor([positions], device=self.device), memory, torch.tensor(ends))

    def advance(self, last: Sequence[int], memory: Memory) -> list[int]:
        """The next token of each busy row, given the last one."""
        positions = memory.gain_token(self.device)
        return self._forward([[token] for token in last], positions, memory, 1)

    def _forward(self, tokens: list[list[int]], positions: Any, memory: Memory, keep: Any) -> list[int]:
        import torch

        ids = torch.tensor(tokens, device=self.device)
        logits = self.model(
            input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=keep, memory=memory
        ).logits
        chosen: list[int] = logits.argmax(dim=-1).flatten().tolist()
        return chosen


def _shared_beginning(prompts: Sequence[list[int]]) -> int:
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    return next((place for place in range(most) if first[place] != last[place]), max(0, most))
