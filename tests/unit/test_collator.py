"""Packs: examples laid end to end learn exactly what they would learn apart."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from ml_platform.errors import ContractError, SourceDataError
from ml_platform.families.lora.attention import register_attention
from ml_platform.families.lora.collate import IGNORED, collate_pack, shared_beginning
from ml_platform.families.lora.encode import Encoded, encode_example, encode_examples
from ml_platform.families.lora.loop import summed_loss
from tests.samples.tiny_lora import PROMPT, save_tiny_model, tiny_examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return encode_examples(tokenizer, PROMPT, tiny_examples(6), 200, "train")[0]


@pytest.fixture(scope="module")
def packed_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=register_attention()).eval()


@pytest.fixture(scope="module")
def plain_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()


def logits_apart(model, encoded):
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([one.tokens])).logits[0] for one in encoded]


def logits_packed(model, encoded, shared, segments=None):
    pack = collate_pack(encoded, shared)
    with torch.inference_mode():
        return model(
            input_ids=pack["input_ids"],
            position_ids=pack["position_ids"],
            segments=segments or pack["segments"],
            use_cache=False,
        ).logits[0]


def test_packed_logits_equal_those_of_separate_examples(packed_model, plain_model, encoded):
    expected = torch.cat(logits_apart(plain_model, encoded))

    torch.testing.assert_close(logits_packed(packed_model, encoded, 0), expected, rtol=1e-4, atol=1e-4)


def test_a_shared_beginning_stands_once_and_changes_no_logit(packed_model, plain_model, encoded):
    shared = shared_beginning(encoded)
    apart = logits_apart(plain_model, encoded)
    expected = torch.cat([apart[0][:shared], *(logits[shared:] for logits in apart)])

    found = logits_packed(packed_model, encoded, shared)

    assert shared > 20
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_without_segments_the_examples_would_read_each_other(packed_model, plain_model, encoded):
    expected = torch.cat(logits_apart(plain_model, encoded))

    leaking = logits_packed(packed_model, encoded, 0, segments=[0, len(expected)])

    assert (leaking - expected).abs().max() > 0.1


def test_transformers_own_attention_isolates_only_without_a_cache(plain_model, encoded):
    expected = torch.cat(logits_apart(plain_model, encoded))
    pack = collate_pack(encoded)
    given = {"input_ids": pack["input_ids"], "position_ids": pack["position_ids"]}

    with torch.inference_mode():
        isolated = plain_model(**given, use_cache=False).logits[0]
        leaking = plain_model(**given, use_cache=True).logits[0]

    torch.testing.assert_close(isolated, expected, rtol=1e-4, atol=1e-4)
    assert (leaking - expected).abs().max() > 0.1


def test_the_loss_equals_the_plain_one_over_full_padded_logits(packed_model, plain_model, encoded):
    longest = max(len(one.tokens) for one in encoded)
    ids = torch.zeros(len(encoded), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(encoded):
        ids[row, : len(one.tokens)] = torch.tensor(one.tokens)
        mask[row, : len(one.tokens)] = 1
        labels[row, one.answer_start : len(one.tokens)] = torch.tensor(one.tokens[one.answer_start :])
    with torch.inference_mode():
        plain = plain_model(input_ids=ids, attention_mask=mask, labels=labels).loss
        for shared in (0, shared_beginning(encoded)):
            pack = collate_pack(encoded, shared)
            ours = summed_loss(packed_model, pack) / len(pack["labels"])
            torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_gradients_with_a_shared_beginning_equal_those_without(packed_model, encoded):
    gradients = []
    for shared in (0, shared_beginning(encoded)):
        packed_model.zero_grad()
        summed_loss(packed_model, collate_pack(encoded, shared)).backward()
        gradients.append(packed_model.model.layers[0].mlp.up_proj.weight.grad.clone())

    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-3)


def test_labels_are_exactly_the_answers_with_their_end_of_turn(encoded, tokenizer):
    pack = collate_pack(encoded, shared_beginning(encoded))

    answers = [tokenizer.decode(one.tokens[one.answer_start :]) for one in encoded]

    assert tokenizer.decode(pack["labels"]) == "".join(answers)
    assert answers[:2] == ["gate 0<|im_end|>", '{"risk":"low"}<|im_end|>']


def test_each_kept_logit_stands_right_before_its_label(encoded):
    pack = collate_pack(encoded)

    assert pack["input_ids"][0][pack["logits_to_keep"] + 1].tolist() == pack["labels"].tolist()


def test_an_empty_pack_costs_no_loss(packed_model):
    pack = collate_pack([])

    loss = summed_loss(packed_model, pack)

    assert loss.item() == 0.0
    assert cross_entropy(torch.zeros(1, 4), pack["labels"], ignore_index=IGNORED, reduction="sum") == 0.0


def test_a_supervised_token_is_never_part_of_the_shared_beginning():
    twins = [Encoded(name, (1, 2, 3, 4, 5), answer_start=3) for name in "ab"]

    assert shared_beginning(twins) == 2
    assert collate_pack(twins, 2)["labels"].tolist() == [4, 5, 4, 5]


def test_longer_examples_are_left_out_by_name(tokenizer):
    examples = [
        *tiny_examples(40),
        tiny_examples(1)[0].model_copy(update={"example_id": "huge", "utterance": "x" * 999}),
    ]

    kept, left_out = encode_examples(tokenizer, PROMPT, examples, 200, "train")

    assert (len(kept), left_out) == (40, ["huge"])


def test_a_limit_that_most_examples_exceed_is_refused_with_the_longest(tokenizer):
    with pytest.raises(SourceDataError, match=r"6 of 6 train examples .* max_example_tokens = 32 .*e00"):
        encode_examples(tokenizer, PROMPT, tiny_examples(6), 32, "train")


def test_no_training_examples_are_refused(tokenizer):
    with pytest.raises(SourceDataError, match="no training examples"):
        encode_examples(tokenizer, PROMPT, [], 200, "train")


def test_a_template_that_hides_where_the_answer_begins_is_refused(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"

    with pytest.raises(ContractError, match="does not put the answer right after the prompt"):
        encode_example(tokenizer, PROMPT, tiny_examples(1)[0])
