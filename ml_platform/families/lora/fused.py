"""Fewer passes over memory for the same numbers: adapters inside their matrix product, a loss that leaves its gradient.

Imports torch at its top: only the training process and tests import it.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ml_platform.families.lora.prepacked import FixedMatrix, fixed_matrix, prepack_linears


def fuse_adapters(model: Any) -> int:
    """Lets every plain LoRA layer of a peft model compute in one piece; how many layers that are.

    Peft computes `W x`, then `B A x`, scales that and adds it, with a pass over memory for each and as many
    backward. Layers that do more (dropout, bias, DoRA, mixed precision) are left to peft. Frozen weights are laid
    out once where that helps (see prepacked).
    """
    from peft.tuners.lora import Linear

    fusible = [module for module in model.modules() if isinstance(module, Linear) and _is_plain(module)]
    prepack_linears(model)
    for module in fusible:
        module.forward = partial(_forward, module, fixed_matrix(module.base_layer))
    return len(fusible)


class _FusedLora(torch.autograd.Function):
    """`y = x W' + s x A' B'` for x [n, in], W [out, in], A [r, in], B [out, r]; W is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: FixedMatrix, a: Tensor, b: Tensor, scale: float) -> Tensor:
        low = x @ a.t()
        ctx.save_for_backward(x, a, b, low)
        ctx.w, ctx.scale = w, scale
        return w.times(x).addmm_(low, b.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        x, a, b, low = ctx.saved_tensors
        low_gradient = (gradient @ b).mul_(ctx.scale)
        a_gradient = low_gradient.t() @ x
        b_gradient = (gradient.t() @ low).mul_(ctx.scale)
        x_gradient = ctx.w.times_back(gradient).addmm_(low_gradient, a) if ctx.needs_input_grad[0] else None
        return x_gradient, None, a_gradient, b_gradient, None


def summed_cross_entropy(logits: Tensor, labels: Tensor, ignored: int) -> Tensor:
    """The cross entropy of logits [k, words] and labels [k], summed over the labels that are not `ignored`.

    The gradient is made in the buffer of the probabilities, which saves two passes over k x words numbers.
    """
    loss: Tensor = _SummedCrossEntropy.apply(logits, labels, ignored)  # type: ignore[no-untyped-call]
    return loss


class _SummedCrossEntropy(torch.autograd.Function):
    """`sum(-log softmax(logits)[label])`; the gradient is softmax(logits) minus one at the label."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, ignored: int) -> Tensor:
        buffer = torch.log_softmax(logits, dim=-1)
        counted = labels != ignored
        places = torch.where(counted, labels, 0)[:, None]
        loss = -(buffer.gather(1, places)[:, 0] * counted).sum()
        ctx.save_for_backward(buffer, places, counted)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        buffer, places, counted = ctx.saved_tensors
        probabilities = buffer.exp_()
        probabilities.scatter_add_(1, places, probabilities.new_full(places.shape, -1.0))
        return probabilities.mul_((counted * gradient)[:, None]), None, None


def _forward(module: Any, w: FixedMatrix, x: Tensor, *_: Any, **__: Any) -> Tensor:
    (name,) = module.active_adapters
    result: Tensor = _FusedLora.apply(  # type: ignore[no-untyped-call]
        x.reshape(-1, x.shape[-1]),
        w,
        module.lora_A[name].weight,
        module.lora_B[name].weight,
        module.scaling[name],
    )
    return result.view(*x.shape[:-1], -1)


def _is_plain(module: Any) -> bool:
    """Whether the layer is a frozen linear one without bias plus one low-rank product, all in one precision."""
    if len(module.active_adapters) != 1 or module.merged or module.disable_adapters or module.fan_in_fan_out:
        return False
    (name,) = module.active_adapters
    weights = (module.base_layer.weight, module.lora_A[name].weight, module.lora_B[name].weight)
    return (
        type(module.base_layer) is torch.nn.Linear
        and module.base_layer.bias is None
        and module.lora_B[name].bias is None
        and isinstance(module.lora_dropout[name], torch.nn.Identity)
        and not module.use_dora.get(name, False)
        and len({weight.dtype for weight in weights}) == 1
        and not module.base_layer.weight.requires_grad
    )
