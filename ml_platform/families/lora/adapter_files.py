"""The two files of an adapter as peft writes them: read once as bytes, their configuration understood whole."""

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
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}
"""What a plain LoRA says."""
HARMLESS = frozenset(
    {
        *("r", "lora_alpha", "use_rslora", "target_modules", "layers_to_transform"),  # understood here
        *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
        *("lora_dropout", "megatron_core", "qalora_group_size", "runtime_config"),
    }
)
"""Fields that may say anything. All others must be empty, those of a later peft, too: each could mean other arithmetic
or other layers, and an adapter that two programs understand differently is measured as one model and served as another.
"""


@dataclass(frozen=True)
class AdapterFiles:
    """The bytes of an adapter, and in words where they came from: what was checked is what is computed with."""

    where: str
    configuration: bytes
    weights: bytes

    @classmethod
    def read(cls, folder: Path) -> "AdapterFiles":
        """The files in a folder. Raises SourceDataError where one is missing or cannot be read."""
        return cls(str(folder), _read_bytes(folder, CONFIG), _read_bytes(folder, WEIGHTS))

    @property
    def sha256(self) -> dict[str, str]:
        """The digests of the files by their names."""
        return {CONFIG: bytes_sha256(self.configuration), WEIGHTS: bytes_sha256(self.weights)}


@dataclass(frozen=True)
class AdapterConfig:
    """What a plain LoRA's configuration says: the rank, by what its product is scaled, and which layers have one."""

    rank: int
    scale: float
    targets: tuple[str, ...]
    numbers: frozenset[int] | None

    @classmethod
    def parse(cls, files: AdapterFiles, base: BaseModel) -> "AdapterConfig":
        """Raises SourceDataError for whatever is no plain LoRA, or one of another base model."""
        where = f"{files.where}/{CONFIG}"
        config = _mapping(files.configuration, where)
        _require_plain(config, where)
        _require_base(config, files.where, base)
        rank, alpha = config.get("r"), config.get("lora_alpha")
        if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise SourceDataError(f"{where}: r is {rank!r} and lora_alpha {alpha!r}, expected two numbers.")
        targets, chosen = config.get("target_modules"), config.get("layers_to_transform")
        numbers = chosen if isinstance(chosen, list) else [] if chosen is None else [chosen]
        if not isinstance(targets, list) or not targets or not all(isinstance(one, str) for one in targets):
            raise SourceDataError(
                f"{where}: target_modules is {targets!r}, expected a list of names. Write out which layers it has."
            )
        if not all(type(number) is int for number in numbers):
            raise SourceDataError(f"{where}: layers_to_transform is {chosen!r}, expected numbers of layers.")
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        return cls(rank, scale, tuple(targets), frozenset(numbers) or None)

    def names(self, layer: str) -> bool:
        """Whether a linear layer of the base model has weights in the adapter, by the rules of peft."""
        if layer in self.targets:
            return True
        ends = any(layer.endswith(f".{target}") for target in self.targets)
        return ends and (self.numbers is None or _layer_number(layer) in self.numbers)


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


def _mapping(data: bytes, where: str) -> dict[str, Any]:
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceDataError(f"{where} is no JSON: {error}. Write the adapter again.") from None
    if not isinstance(config, dict):
        raise SourceDataError(f"{where} holds no JSON object. Write the adapter again.")
    return config


def _require_plain(config: Mapping[str, Any], where: str) -> None:
    for field, value in config.items():
        allowed = PLAIN.get(field, (False, None, {}, []))
        if field not in HARMLESS and value not in allowed:
            raise SourceDataError(
                f"{where}: {field} is {value!r}, expected {allowed[0]!r}. The engine serves plain LoRA."
            )


def _require_base(config: Mapping[str, Any], where: str, base: BaseModel) -> None:
    named = str(config.get("base_model_name_or_path", ""))
    digest = named.rpartition("@")[2] if "@" in named else named.rpartition("/")[2]
    if len(digest) == len(base.sha256) and _is_hexadecimal(digest) and digest != base.sha256:
        raise SourceDataError(
            f"{where}: the adapter was trained on {named}, this engine serves {base.reference}. "
            "Load it in the engine of its own base model."
        )


def _is_hexadecimal(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)


def _layer_number(name: str) -> int | None:
    """13 of `model.layers.13.mlp.up_proj`."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)
