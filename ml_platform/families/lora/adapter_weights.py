"""The weights of adapters: every one checked against the base model, the same for evaluation as for serving.

Evaluation merges them into the model, the engine holds them beside it. Both take them from here: with a reader of its
own, evaluation would measure another model than the one that serves, wherever the two understand a file differently.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.errors import SourceDataError
from ml_platform.families.lora.adapter_files import CONFIG, WEIGHTS, AdapterConfig, AdapterFiles
from ml_platform.families.lora.base_model import BaseModel


@dataclass(frozen=True, eq=False)
class AdapterWeights:
    """A verified adapter: by linear layer A [rank, in] and B' [rank, out], the scale multiplied into B'.

    `files` holds the SHA-256 of the very bytes that it was made of, by the names of its files.
    """

    files: Mapping[str, str]
    layers: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, eq=False)
class _Layer:
    """A linear layer of the base model with A [rank, in] and B [out, rank] as the file has them."""

    name: str
    linear: Any
    down: Any
    up: Any


def read_adapter(folder: Path, base: BaseModel, model: Any) -> AdapterWeights:
    """The adapter in a folder as peft writes it, each of its two files read once.

    Raises SourceDataError for whatever is missing, torn, not finite, not plain LoRA or not for this base model.
    """
    files = AdapterFiles.read(folder)
    config = AdapterConfig.parse(files, base)
    layers = {}
    for layer in _checked_layers(files, config, model):
        weight = layer.linear.weight
        down, up = layer.down.to(weight.device, weight.dtype), layer.up.t().to(weight.device, weight.dtype)
        layers[layer.name] = pair = down, up * config.scale
        _require_finite(f"{files.where}/{WEIGHTS}: {layer.name}", *pair)
    return AdapterWeights(files.sha256, layers)


def merge_adapter(files: AdapterFiles, base: BaseModel, model: Any) -> None:
    """Adds each layer's `B A`, scaled, to the model's weights: number for number what peft's merging gives.

    Raises SourceDataError as `read_adapter` does; the model may be half merged then.
    """
    config = AdapterConfig.parse(files, base)
    for layer in _checked_layers(files, config, model):
        down, up = layer.down.float(), layer.up.float()
        _require_finite(f"{files.where}/{WEIGHTS}: {layer.name}", down, up * config.scale)
        layer.linear.weight.data += (up @ down) * config.scale


def _checked_layers(files: AdapterFiles, config: AdapterConfig, model: Any) -> Iterator[_Layer]:
    """The layers of the file, which are exactly those that the configuration names."""
    where, found, linear = f"{files.where}/{WEIGHTS}", _parse(files), _linear_layers(model)
    names = {key.rpartition(".lora_")[0] for key in found}
    for name in sorted(names):
        if name not in linear:
            raise SourceDataError(
                f"{where}: {name} is no linear layer of the base model. Load it in the engine of its own base."
            )
    expected = {name for name in linear if config.names(name)}
    if missing := sorted(expected - names):
        raise SourceDataError(
            f"{where} lacks the weights of {missing[0]} and {len(missing) - 1} more layers that "
            f"{CONFIG} names. Write the adapter again."
        )
    if unnamed := sorted(names - expected):
        raise SourceDataError(
            f"{where} holds weights of {unnamed[0]} and {len(unnamed) - 1} more layers that {CONFIG} does not name: "
            "peft would leave them out, and what others measured would not be what is served. Write the adapter again."
        )
    for name in sorted(names):
        yield _checked(f"{where}: {name}", name, found, linear[name], config.rank)


def _parse(files: AdapterFiles) -> dict[str, Any]:
    """The tensors by the names of the base model's layers: `model.layers.0.mlp.up_proj.lora_A.weight`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    where = f"{files.where}/{WEIGHTS}"
    try:
        tensors = load(files.weights)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SourceDataError(f"{where} is no safetensors file: {error}. Write the adapter again.") from None
    prefix, ends = "base_model.model.", (".lora_A.weight", ".lora_B.weight")
    odd = [name for name in tensors if not name.startswith(prefix) or not name.endswith(ends)]
    if odd or not tensors:
        raise SourceDataError(f"{where} holds {odd[0] if odd else 'nothing'}, expected weights of a LoRA.")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _linear_layers(model: Any) -> dict[str, Any]:
    """All but the one that gives the logits: its weights are the embedding's in many models, which peft changes too."""
    import torch

    last = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not last
    }


def _checked(where: str, name: str, found: Mapping[str, Any], linear: Any, rank: int) -> _Layer:
    down, up = (found.get(f"{name}.lora_{letter}.weight") for letter in "AB")
    if down is None or up is None:
        raise SourceDataError(f"{where} has only one of lora_A and lora_B. Write the adapter again.")
    shapes = ((rank, linear.weight.shape[1]), (linear.weight.shape[0], rank))
    if (tuple(down.shape), tuple(up.shape)) != shapes:
        raise SourceDataError(
            f"{where} has the shapes {tuple(down.shape)} and {tuple(up.shape)}, expected {shapes[0]} and {shapes[1]} "
            "by the base model and the rank r. Load it in the engine of its own base."
        )
    return _Layer(name, linear, down, up)


def _require_finite(where: str, *halves: Any) -> None:
    if not all(bool(half.isfinite().all()) for half in halves):
        raise SourceDataError(f"{where} holds numbers that are not finite. The training of this adapter failed.")
