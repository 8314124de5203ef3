"""Fused adapters: what peft computes, in one piece."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ml_platform.families.lora.collate import IGNORED
from ml_platform.families.lora.fused import fuse_adapters, summed_cross_entropy
from tests.samples.tiny_lora import save_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def tuned(folder, **options):
    """A peft model whose adapter already changes every layer that it is on."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"], **options)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model


def loss_and_gradients(model):
    ids = torch.arange(3, 63).reshape(2, 30)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("options", [{}, {"layers_to_transform": [2, 3]}])
def test_loss_and_gradients_are_those_of_peft(folder, options):
    model = tuned(folder, **options)
    fused = copy.deepcopy(model)

    assert fuse_adapters(fused) == 4 * len(options.get("layers_to_transform", range(4)))

    (expected, gradients), (found, found_gradients) = loss_and_gradients(model), loss_and_gradients(fused)
    torch.testing.assert_close(found, expected)
    assert found_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_gradients_are_right_by_finite_differences():
    from ml_platform.families.lora.fused import _FusedLora
    from ml_platform.families.lora.prepacked import FixedMatrix

    torch.manual_seed(0)
    x, w, a, b = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 7), (6, 7), (3, 7), (6, 3)))
    learnt = [tensor.requires_grad_() for tensor in (x, a, b)]

    assert torch.autograd.gradcheck(lambda x, a, b: _FusedLora.apply(x, FixedMatrix(w), a, b, 1.7), learnt)


def test_the_loss_and_its_gradient_are_those_of_torch():
    torch.manual_seed(0)
    logits = [(torch.randn(9, 50) * 20).requires_grad_() for _ in range(1)]
    logits.append(logits[0].detach().clone().requires_grad_())
    labels = torch.tensor([3, IGNORED, 0, 49, 7, IGNORED, 1, 2, 3])

    expected = torch.nn.functional.cross_entropy(logits[0], labels, ignore_index=IGNORED, reduction="sum")
    found = summed_cross_entropy(logits[1], labels, IGNORED)
    (expected / 3).backward()
    (found / 3).backward()

    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logits[1].grad, logits[0].grad, rtol=1e-4, atol=1e-6)


def test_the_loss_stays_finite_where_a_label_is_all_but_impossible():
    logits = torch.tensor([[500.0, -500.0]], requires_grad=True)

    loss = summed_cross_entropy(logits, torch.tensor([1]), IGNORED)
    loss.backward()

    assert loss.item() == 1000.0
    assert logits.grad.tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("options", [{"lora_dropout": 0.1}, {"use_dora": True}])
def test_layers_that_do_more_are_left_to_peft(folder, options):
    assert fuse_adapters(tuned(folder, **options)) == 0


def test_layers_in_mixed_precision_are_left_to_peft(folder):
    model = tuned(folder)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and not hasattr(module, "lora_A"):
            module.weight.data = module.weight.data.to(
                torch.bfloat16 if module.weight.shape[0] > 4 and module.weight.shape[1] > 4 else torch.float32
            )

    assert fuse_adapters(model) == 0
