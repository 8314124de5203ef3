"""Several adapters beside one base model, so that each row of a batch has its own and none is merged.

All adapters are laid end to end as if they were one of the sum of their ranks: `y = W x + ((x A') * mask) B'`, where
the mask silences for each row the ranks of all adapters but its own. That is two matrix products a layer
however many adapters share the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ml_platform.families.lora.adapter_weights import AdapterWeights

Ranks = tuple[int, ...]
"""The rank of each adapter of a stack in one layer; 0 where it leaves the layer alone."""


@dataclass(frozen=True)
class _Layer:
    """The adapters of one linear layer: `down` [sum of ranks, in] and `up` [sum of ranks, out]."""

    ranks: Ranks
    down: Any
    up: Any


@dataclass(frozen=True)
class _Part:
    """The ranks from `first` to `last` that a batch needs, and the mask [rows, last - first] where rows differ."""

    first: int
    last: int
    mask: Any


class AdapterStack:
    """Adapters end to end. It never changes: another set is another stack, so that no pass sees half of one."""

    def __init__(self, adapters: Sequence[AdapterWeights] = ()) -> None:
        import torch

        self.adapters = tuple(adapters)
        self.layers: dict[str, _Layer] = {}
        for name in sorted({name for adapter in adapters for name in adapter.layers}):
            pairs = [adapter.layers.get(name) for adapter in adapters]
            held = [pair for pair in pairs if pair is not None]
            ranks = tuple(0 if pair is None else pair[0].shape[0] for pair in pairs)
            self.layers[name] = _Layer(ranks, torch.cat([pair[0] for pair in held]), torch.cat([p[1] for p in held]))

    def parts(self, rows: Sequence[AdapterWeights | None], device: Any) -> dict[Ranks, _Part | None]:
        """What of each kind of layer the rows need; None where no row has an adapter there."""
        places = [None if row is None else self._place(row) for row in rows]
        return {ranks: _part(ranks, places, device) for ranks in {layer.ranks for layer in self.layers.values()}}

    def _place(self, adapter: AdapterWeights) -> int:
        return next(place for place, held in enumerate(self.adapters) if held is adapter)


def _part(ranks: Ranks, places: Sequence[int | None], device: Any) -> _Part | None:
    import torch

    used = {place for place in places if place is not None and ranks[place]}
    if not used:
        return None
    first, last = sum(ranks[: min(used)]), sum(ranks[: max(used) + 1])
    if len(set(places)) == 1:
        return _Part(first, last, None)
    owner = torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(ranks))[first:last]
    asked = torch.tensor([-1 if place is None else place for place in places])
    return _Part(first, last, (asked[:, None] == owner).to(device))


class SideBySide:
    """Adds to each linear layer of a model what the adapters of the rows have to add."""

    def __init__(self, model: Any) -> None:
        import torch

        self._stack = AdapterStack()
        self._parts: dict[Ranks, _Part | None] = {}
        self._device = model.device
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):  # not by a hook, which costs each call 15 us more
                module.forward = partial(self._forward, name, module.forward)  # type: ignore[method-assign]

    def choose(self, stack: AdapterStack, rows: Sequence[AdapterWeights | None]) -> None:
        """The adapters of the rows of the next pass; one row stands for all tokens of a pack."""
        self._stack, self._parts = stack, stack.parts(rows, self._device)

    def _forward(self, name: str, multiply: Callable[[Any], Any], x: Any) -> Any:
        from torch.nn.functional import linear as multiplied

        output = multiply(x)
        layer = self._stack.layers.get(name)
        part = None if layer is None else self._parts[layer.ranks]
        if layer is None or part is None:
            return output
        low = multiplied(x.reshape(-1, x.shape[-1]), layer.down[part.first : part.last])
        if part.mask is not None:
            low *= part.mask
        output.view(-1, output.shape[-1]).addmm_(low, layer.up[part.first : part.last])
        return output
