"""The state of a training run as safetensors and JSON: nothing that is loaded can run code."""

import json
from pathlib import Path
from typing import Any

Tensors = dict[str, Any]


def adapter_tensors(model: Any) -> Tensors:
    """The trained weights of a peft model, by the names that adapter files use, on the CPU."""
    from peft import get_peft_model_state_dict

    return {name: tensor.detach().cpu().contiguous() for name, tensor in get_peft_model_state_dict(model).items()}


def load_adapter_tensors(model: Any, path: Path) -> None:
    """Puts the weights of an adapter file into a peft model of the same shape."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(path))


def save_tensors(tensors: Tensors, path: Path) -> None:
    """Tensors in the order of their names, so that equal tensors give equal bytes."""
    from safetensors.torch import save_file

    save_file({name: tensors[name] for name in sorted(tensors)}, path, metadata={"format": "pt"})


def save_optimizer(optimizer: Any, folder: Path) -> None:
    """Writes `optimizer.safetensors` (moments) and `optimizer.json` (everything that is no tensor)."""
    import torch

    state = optimizer.state_dict()
    tensors: Tensors = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if torch.is_tensor(value):
                tensors[f"{index}/{name}"] = value.detach().cpu().contiguous()
            else:
                plain.setdefault(str(index), {})[name] = value
    save_tensors(tensors, folder / "optimizer.safetensors")
    write_json(folder / "optimizer.json", {"plain": plain, "param_groups": state["param_groups"]})


def load_optimizer(optimizer: Any, folder: Path) -> None:
    """Puts a saved state into an optimiser over the same parameters."""
    from safetensors.torch import load_file

    saved = read_json(folder / "optimizer.json")
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in saved["plain"].items()}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})


def write_json(path: Path, value: Any) -> None:
    """Plain values; floating-point numbers come back bit for bit."""
    path.write_text(json.dumps(value, sort_keys=True), encoding="utf-8")


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
