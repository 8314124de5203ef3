"""The keys and values of conversations that are being answered, in rows that come and go."""

from collections.abc import Sequence
from typing import Any

NAME = "remember"


def register_memory() -> str:
    """Makes `attend_with_memory` known to transformers; the name to give as `attn_implementation`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend_with_memory)
    return NAME


class Memory:
    """Keys and values for up to `rows` conversations of up to `tokens` tokens, the busy rows always first.

    Row i holds its conversation from slot 0 to `lengths[i]`, without padding. `incoming` are the segments of a pack
    that is being read into new rows; None while each busy row gains one token.
    """

    def __init__(self, rows: int, tokens: int) -> None:
        self.rows, self.tokens = rows, tokens
        self.lengths: list[int] = []
        self.incoming: Sequence[int] | None = None
        self.mask: Any = None
        self._keys: dict[int, Any] = {}
        self._values: dict[int, Any] = {}

    def read_pack(self, segments: Sequence[int]) -> None:
        """Opens a row for each segment after the shared first one; the next forward pass fills them."""
        shared, *own = segments
        self.incoming = segments
        self.lengths += [shared + size for size in own]

    def gain_token(self, device: Any) -> Any:
        """Makes room for one token in every row; the position of each row's new token, [rows, 1]."""
        import torch

        self.incoming = None
        self.lengths = [length + 1 for length in self.lengths]
        ends = torch.tensor(self.lengths, device=device)
        self.mask = (torch.arange(max(self.lengths), device=device) < ends[:, None])[:, None, None, :]
        return ends[:, None] - 1

    def drop(self, finished: Sequence[int]) -> list[int]:
        """Frees rows; the last busy rows move into the gaps. The old row number of each row that stays."""
        kept = list(range(len(self.lengths)))
        for row in sorted(finished, reverse=True):
            last = len(kept) - 1
            if row != last:
                kept[row] = kept[last]
                end = self.lengths[last]
                for store in (*self._keys.values(), *self._values.values()):
                    store[row, :, :end] = store[last, :, :end]
                self.lengths[row] = end
            kept.pop()
            self.lengths.pop()
        return kept

    def remember(self, layer: int, keys: Any, values: Any) -> None:
        """Stores the keys and values, [1 or rows, heads, new tokens, d], that a layer computed."""
        stores = self._stores(layer, keys)
        if self.incoming is None:
            import torch

            busy = torch.arange(len(self.lengths), device=keys.device)
            places = torch.tensor(self.lengths, device=keys.device) - 1
            for store, new in zip(stores, (keys, values), strict=True):
                store[busy, :, places] = new[:, :, 0]
            return
        shared, *own = self.incoming
        first = len(self.lengths) - len(own)
        for store, new in zip(stores, (keys, values), strict=True):
            beginning, *rest = new[0].split([shared, *own], dim=1)
            for row, piece in enumerate(rest, start=first):
                store[row, :, :shared] = beginning
                store[row, :, shared : shared + piece.shape[1]] = piece

    def recall(self, layer: int) -> tuple[Any, Any]:
        """The keys and values of all busy rows, [rows, heads, longest, d]; what is beyond a row's length is masked."""
        busy, longest = len(self.lengths), max(self.lengths)
        return self._keys[layer][:busy, :, :longest], self._values[layer][:busy, :, :longest]

    def _stores(self, layer: int, like: Any) -> tuple[Any, Any]:
        if layer not in self._keys:
            shape = (self.rows, like.shape[1], self.tokens, like.shape[3])
            self._keys[layer], self._values[layer] = like.new_zeros(shape), like.new_zeros(shape)
        return self._keys[layer], self._values[layer]


def attend_with_memory(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    memory: Memory | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """Attention that reads packs into the memory's new rows, or lets each row's new token look back."""
    from torch.nn.functional import scaled_dot_product_attention

    from ml_platform.families.lora.attention import attend_within_examples

    if memory is None:
        raise ValueError("the attention 'remember' needs a Memory: pass memory= to the model")
    memory.remember(module.layer_idx, key, value)
    if memory.incoming is not None:
        return attend_within_examples(module, query, key, value, attention_mask, scaling, segments=memory.incoming)
    keys, values = memory.recall(module.layer_idx)
    rows, heads, _one, width = query.shape
    # The query heads that share a key head stand as one sequence, so that no key is copied.
    grouped = query.reshape(rows, keys.shape[1], heads // keys.shape[1], width)
    read = scaled_dot_product_attention(grouped, keys, values, attn_mask=memory.mask, scale=scaling)
    return read.reshape(rows, 1, heads, width), None
