"""The adapter: fresh low-rank weights on a frozen base model, and the file that describes them."""

import json
import re
from typing import Any

from ml_platform.contracts.product import TrainingSpec
from ml_platform.errors import ContractError
from ml_platform.families.lora.attention import register_attention
from ml_platform.families.lora.base_model import BaseModel
from ml_platform.families.lora.hardware import Hardware


def load_trainable(base: BaseModel, spec: TrainingSpec, hardware: Hardware) -> Any:
    """The frozen base model with a fresh adapter on all linear layers of its upper layers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, set_seed

    register_attention()
    model = AutoModelForCausalLM.from_pretrained(
        str(base.path), dtype=getattr(torch, hardware.dtype), attn_implementation=hardware.attention
    )
    layers = model.config.num_hidden_layers
    upper = layers if spec.upper_layers is None else spec.upper_layers
    if upper > layers:
        raise ContractError(
            f"training.upper_layers is {upper}, but {base.name} has {layers} layers. Lower it, or leave it out for all."
        )
    set_seed(spec.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=linear_layers(model),
        layers_to_transform=list(range(layers - upper, layers)),
    )
    return get_peft_model(model, config)


def linear_layers(model: Any) -> list[str]:
    """The names of all linear layers inside the decoder layers, sorted: `down_proj`, `gate_proj`, ..."""
    import torch

    inside = re.compile(r"\.layers\.\d+\..*?([^.]+)$")
    return sorted(
        {
            match[1]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and (match := inside.search(name))
        }
    )


def adapter_config(model: Any, base: BaseModel) -> dict[str, Any]:
    """The configuration for peft, with the base model by digest instead of by path, and everything in a fixed order."""
    values: dict[str, Any] = model.peft_config["default"].to_dict()
    values |= {"base_model_name_or_path": base.reference, "inference_mode": True}
    return json.loads(json.dumps(values, sort_keys=True, default=sorted))  # type: ignore[no-any-return]
