"""Adapters as they are read for serving: safetensors only, and every weight checked against the base model."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.errors import SourceDataError
from ml_platform.families.lora.base_model import BaseModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, []),
    "alora_invocation_tokens": (None, []),
    "use_qalora": (False, None),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}
"""What a plain LoRA says; anything else would need arithmetic that is not done here."""


@dataclass(frozen=True, eq=False)
class AdapterWeights:
    """A verified adapter: by linear layer A [rank, in] and B' [rank, out], the scale multiplied into B'.

    `files` holds the SHA-256 of the very bytes that it was made of, by the names of its files.
    """

    files: Mapping[str, str]
    layers: Mapping[str, tuple[Any, Any]]


def read_adapter(folder: Path, base: BaseModel, model: Any) -> AdapterWeights:
    """The adapter in a folder as peft writes it, each of its two files read once.

    Raises SourceDataError for whatever is missing, torn, not finite, not plain LoRA or not for this base model.
    """
    configuration = _read_bytes(folder, CONFIG)
    config = _parse_config(folder, configuration, base)
    data = _read_bytes(folder, WEIGHTS)
    found = _parse(folder, data)
    layers = {}
    linear = _linear_layers(model)
    for name in sorted({key.rpartition(".lora_")[0] for key in found}):
        layers[name] = _checked(folder, name, found, linear, config)
    _require_all(folder, layers, linear, config)
    return AdapterWeights({CONFIG: bytes_sha256(configuration), WEIGHTS: bytes_sha256(data)}, layers)


def _parse_config(folder: Path, data: bytes, base: BaseModel) -> dict[str, Any]:
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceDataError(f"{folder / CONFIG} is no JSON: {error}. Write the adapter again.") from None
    if not isinstance(config, dict):
        raise SourceDataError(f"{folder / CONFIG} holds no JSON object. Write the adapter again.")
    for field, allowed in PLAIN.items():
        if config.get(field, allowed[0]) not in allowed:
            raise SourceDataError(
                f"{folder / CONFIG}: {field} is {config[field]!r}, expected {allowed[0]!r}. "
                "The engine serves plain LoRA."
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise SourceDataError(f"{folder / CONFIG}: r is {rank!r} and lora_alpha {alpha!r}, expected two numbers.")
    named = str(config.get("base_model_name_or_path", ""))
    digest = named.rpartition("@")[2] if "@" in named else named.rpartition("/")[2]
    if len(digest) == len(base.sha256) and _is_hexadecimal(digest) and digest != base.sha256:
        raise SourceDataError(
            f"{folder}: the adapter was trained on {named}, this engine serves {base.reference}. "
            "Load it in the engine of its own base model."
        )
    return config


def _is_hexadecimal(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)


def _read_bytes(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for path in folder.glob(pattern))
        found = f"has {', '.join(pickled)}, which can run code when it is loaded, and" if pickled else "has"
        raise SourceDataError(
            f"{folder} {found} no {name}. Name the folder of an adapter as peft writes it, with safetensors."
        ) from None
    except OSError as error:
        raise SourceDataError(f"{folder / name} cannot be read: {error.strerror}. Write the adapter again.") from None


def _parse(folder: Path, data: bytes) -> dict[str, Any]:
    """The tensors by the names of the base model's layers: `model.layers.0.mlp.up_proj.lora_A.weight`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SourceDataError(f"{folder / WEIGHTS} is no safetensors file: {error}. Write the adapter again.") from None
    prefix = "base_model.model."
    odd = [name for name in tensors if not name.startswith(prefix) or ".lora_" not in name]
    if odd or not tensors:
        raise SourceDataError(f"{folder / WEIGHTS} holds {odd[0] if odd else 'nothing'}, expected weights of a LoRA.")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _linear_layers(model: Any) -> dict[str, Any]:
    import torch

    return {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def _checked(
    folder: Path, name: str, found: Mapping[str, Any], linear: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[Any, Any]:
    """A and B' of a layer, on the model's device, in its dtype, scaled."""
    where = f"{folder / WEIGHTS}: {name}"
    if name not in linear:
        raise SourceDataError(f"{where} is no linear layer of the base model. Load it in the engine of its own base.")
    down, up = (found.get(f"{name}.lora_{letter}.weight") for letter in "AB")
    if down is None or up is None:
        raise SourceDataError(f"{where} has only one of lora_A and lora_B. Write the adapter again.")
    weight, rank = linear[name].weight, config["r"]
    shapes = ((rank, weight.shape[1]), (weight.shape[0], rank))
    if (tuple(down.shape), tuple(up.shape)) != shapes:
        raise SourceDataError(
            f"{where} has the shapes {tuple(down.shape)} and {tuple(up.shape)}, expected {shapes[0]} and {shapes[1]} "
            "by the base model and the rank r. Load it in the engine of its own base."
        )
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    pair = down.to(weight.device, weight.dtype), up.t().to(weight.device, weight.dtype) * scale
    if not all(bool(half.isfinite().all()) for half in pair):
        raise SourceDataError(f"{where} holds numbers that are not finite. The training of this adapter failed.")
    return pair


def _require_all(folder: Path, layers: Mapping[str, Any], linear: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Every layer that the configuration names has its weights: a file that lost some would answer, but otherwise."""
    targets, chosen = config.get("target_modules"), config.get("layers_to_transform")
    if not isinstance(targets, list):
        return
    numbers = chosen if isinstance(chosen, list) else None if chosen is None else [chosen]
    expected = {
        name
        for name in linear
        if name.rpartition(".")[2] in targets and (numbers is None or _layer_number(name) in numbers)
    }
    if missing := sorted(expected - layers.keys()):
        raise SourceDataError(
            f"{folder / WEIGHTS} lacks the weights of {missing[0]} and {len(missing) - 1} more layers that "
            f"{CONFIG} names. Write the adapter again."
        )


def _layer_number(name: str) -> int | None:
    """13 of `model.layers.13.mlp.up_proj`."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)
