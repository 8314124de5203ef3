"""Matrices that never change, laid out once as the CPU's kernels read them.

In fp32 on a CPU torch multiplies with MKL, which lays a matrix out anew in every call. oneDNN, which torch brings as
well, takes one that was laid out before: 2 to 4 times as fast for 2 to 16 rows of a 135 M model, 1.1 to 1.4 times for
the hundreds of rows of a pack (ADR 24). Its operators are none of torch's public ones: torch is pinned, and where
they are missing everything computes as before.

Imports torch at its top: only processes that compute with a model import it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear

ROWS = 64
"""What the layout is chosen for. From 8 to 640 it is the same one; for a single row it is one that slows the others."""


class FixedMatrix:
    """W [out, in] of a frozen layer, laid out once where that can be done, otherwise as it is."""

    def __init__(self, weight: Tensor) -> None:
        self.packed = can_prepack(weight)
        self.weight = _laid_out(weight) if self.packed else weight
        self._transposed: Tensor | None = None

    def times(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x W' + bias` for x [..., in]."""
        return _multiply(x, self.weight, bias) if self.packed else torch.nn.functional.linear(x, self.weight, bias)

    def times_back(self, gradient: Tensor) -> Tensor:
        """`gradient W` for gradient [..., out]. The first call lays W' out as well, which takes its memory again."""
        if not self.packed:
            return gradient @ self.weight
        if self._transposed is None:
            self._transposed = _laid_out(self.weight.to_dense().t().contiguous())
        return _multiply(gradient, self._transposed, None)


class PrepackedLinear(Linear):
    """A frozen linear layer whose plain weights are gone; `weight` still tells their shape, type and device."""

    def __init__(self, linear: Linear) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self.matrix = FixedMatrix(linear.weight)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weights [out, in] in the kernels' own layout."""
        return self.matrix.weight

    def forward(self, x: Tensor) -> Tensor:
        """`x W' + bias`, with a gradient for x where it needs one."""
        if x.requires_grad and torch.is_grad_enabled():
            result: Tensor = _FixedLinear.apply(x, self.matrix, self.bias)  # type: ignore[no-untyped-call]
            return result
        return self.matrix.times(x, self.bias)


class _FixedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: FixedMatrix, bias: Tensor | None) -> Tensor:
        ctx.matrix = matrix
        return matrix.times(x, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.matrix.times_back(gradient), None, None


def prepack_linears(model: Any) -> int:
    """Replaces the frozen linear layers of a model by prepacked ones; how many that are.

    None on CUDA, in other precisions than fp32, or where torch came without oneDNN. The model gives the same
    numbers but for the last bits.
    """
    found = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    linears = [(parent, name, child) for parent, name, child in found if type(child) is Linear]
    packable = [(parent, name, child) for parent, name, child in linears if can_prepack(child.weight)]
    for parent, name, child in packable:
        setattr(parent, name, PrepackedLinear(child))
    return len(packable)


def fixed_matrix(linear: Linear) -> FixedMatrix:
    """The matrix of a frozen layer, prepacked or not."""
    return linear.matrix if isinstance(linear, PrepackedLinear) else FixedMatrix(linear.weight)


def can_prepack(weight: Tensor) -> bool:
    """Whether the matrix is frozen, in fp32 on a CPU of the x86 kind, where this was measured, and oneDNN is here."""
    return (
        not weight.requires_grad
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]  # torch brings it for x86 only
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def _laid_out(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    return packed


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product
