"""Frozen matrices that are laid out once: the same numbers, forth and back, and only where it may be done."""

import copy

import pytest
import torch
from torch.nn import Linear
from transformers import AutoModelForCausalLM

from ml_platform.families.lora import prepacked
from ml_platform.families.lora.prepacked import FixedMatrix, PrepackedLinear, can_prepack, prepack_linears
from tests.samples.tiny_lora import save_tiny_model

ROWS = (1, 2, 3, 8, 48, 130, 641)


def frozen(*shape, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(*shape, dtype=dtype)


def test_this_torch_brings_the_operators():
    """Their names are torch's own business: a release that renames them is to be noticed, not only slower."""
    assert can_prepack(frozen(24, 16)) or not torch.backends.mkl.is_available()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("rows", ROWS)
def test_products_forth_and_back_are_those_of_torch(rows, packed, monkeypatch):
    if not packed:
        monkeypatch.setattr(prepacked, "can_prepack", lambda _: False)
    weight, bias = frozen(96, 64), frozen(96)
    x, gradient = frozen(rows, 64), frozen(rows, 96)

    matrix = FixedMatrix(weight)

    assert matrix.packed is (packed and can_prepack(weight))
    torch.testing.assert_close(matrix.times(x), x @ weight.t(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(matrix.times(x, bias), x @ weight.t() + bias, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(matrix.times_back(gradient), gradient @ weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", ROWS)
def test_the_same_product_has_the_same_bits_each_time(rows):
    matrix, again, x = FixedMatrix(frozen(96, 64)), FixedMatrix(frozen(96, 64)), frozen(rows, 64)

    assert torch.equal(matrix.times(x), again.times(x))
    assert torch.equal(matrix.times_back(matrix.times(x)), again.times_back(again.times(x)))


def test_a_prepacked_layer_gives_its_input_the_gradient_of_the_plain_one():
    plain = Linear(64, 96).requires_grad_(False)
    layer = PrepackedLinear(plain)
    inputs = [frozen(2, 5, 64).requires_grad_() for _ in range(2)]

    outputs = [plain(inputs[0]), layer(inputs[1])]
    for output in outputs:
        output.square().sum().backward()

    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-3)
    assert (layer.weight.shape, layer.weight.dtype) == (plain.weight.shape, plain.weight.dtype)


def test_a_model_says_the_same_and_what_learns_stays_as_it_is(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path)).requires_grad_(False)
    model.model.layers[0].mlp.up_proj.weight.requires_grad_()
    prepared = copy.deepcopy(model)
    linears = sum(type(module) is Linear for module in model.modules())
    ids = torch.arange(3, 63).reshape(2, 30)

    replaced = prepack_linears(prepared)

    assert replaced == (linears - 1 if can_prepack(model.lm_head.weight) else 0)
    assert type(prepared.model.layers[0].mlp.up_proj) is Linear
    torch.testing.assert_close(prepared(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_alone(dtype):
    assert not can_prepack(frozen(8, 8, dtype=dtype))
    assert not can_prepack(frozen(8, 8).requires_grad_())
