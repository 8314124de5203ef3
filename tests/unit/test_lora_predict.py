"""The predictor: greedy answers as transformers would give them, whatever else is in the batch."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ml_platform.contracts.home import Home
from ml_platform.contracts.report import Decoding
from ml_platform.errors import ContractError, SourceDataError
from ml_platform.families.lora import predict
from ml_platform.families.lora.adapter_files import CONFIG, WEIGHTS, AdapterFiles
from ml_platform.families.lora.adapter_weights import merge_adapter, read_adapter
from ml_platform.families.lora.encode import encode_prompt
from ml_platform.families.lora.predict import Predictor
from ml_platform.families.lora.prompt import messages
from tests.samples.tiny_lora import PROMPT, tiny_base, tiny_examples

LIMIT = 24


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(Home(tmp_path_factory.mktemp("predict") / "home"))


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """The folder of an adapter with random weights that change most answers."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base.path)
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"]))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    folder = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def conversations():
    return [messages(PROMPT, example, with_answer=False) for example in tiny_examples(14)]


def decoding(batch_size, limit=LIMIT):
    return Decoding(max_new_tokens=limit, batch_size=batch_size)


def oracle(base, adapter, conversations):
    """Tokens by transformers' own generate(), one conversation at a time."""
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    model = AutoModelForCausalLM.from_pretrained(base.path)
    model = (model if adapter is None else PeftModel.from_pretrained(model, adapter)).eval()
    answers = []
    for conversation in conversations:
        ids = torch.tensor([encode_prompt(tokenizer, conversation)])
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=LIMIT, do_sample=False
            )[0][ids.shape[1] :]
        kept = out[out != tokenizer.eos_token_id]
        answers.append((tokenizer.decode(kept, skip_special_tokens=True), ids.shape[1], len(out)))
    return answers


@pytest.mark.parametrize("with_adapter", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_answers_are_those_of_transformers_generate(base, adapter, conversations, batch_size, with_adapter):
    folder = adapter if with_adapter else None

    found = Predictor(base, folder and AdapterFiles.read(folder), threads=1).generate(
        conversations, decoding(batch_size)
    )

    assert [(one.text, one.tokens_in, one.tokens_out) for one in found] == oracle(base, folder, conversations)


def test_a_long_conversation_among_short_ones_changes_none_of_them(base, adapter, conversations, monkeypatch):
    long = [*conversations[0][:-1], {"role": "user", "content": "is it late? " * 40}]
    mixed = [*conversations[:5], long, *conversations[5:]]
    monkeypatch.setattr(predict, "MEMORY_BYTES", 3 * 700 * 4 * 2 * 2 * 8 * 4)
    monkeypatch.setattr(predict, "READ_TOKENS", 300)

    found = Predictor(base, AdapterFiles.read(adapter), threads=1).generate(mixed, decoding(8))

    assert [(one.text, one.tokens_in, one.tokens_out) for one in found] == oracle(base, adapter, mixed)


def changed(adapter, folder, config, keep=None):
    """The adapter again, with another configuration and only some of its tensors."""
    shutil.copytree(adapter, folder)
    (folder / CONFIG).write_text(json.dumps(json.loads((adapter / CONFIG).read_text()) | config))
    tensors = load_file(adapter / WEIGHTS)
    save_file({name: tensor for name, tensor in tensors.items() if keep is None or keep(name)}, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("config", "keep"),
    [
        ({}, None),
        ({"use_rslora": True, "lora_alpha": 5}, None),
        ({"layers_to_transform": [2, 3], "lora_alpha": 3}, lambda name: ".layers.2." in name or ".layers.3." in name),
        ({"layers_to_transform": 1}, lambda name: ".layers.1." in name),
        (
            {"layers_to_transform": [1], "target_modules": ["model.layers.0.self_attn.q_proj"]},
            lambda n: "0.self" in n and "q_" in n,
        ),
    ],
)
def test_merged_weights_are_those_of_peft_to_the_bit(base, adapter, tmp_path, config, keep, dtype):
    folder = changed(adapter, tmp_path / "changed", config, keep)
    ours, theirs = (AutoModelForCausalLM.from_pretrained(base.path, dtype=dtype) for _ in range(2))

    merge_adapter(AdapterFiles.read(folder), base, ours)
    theirs = PeftModel.from_pretrained(theirs, folder).merge_and_unload()

    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in ours.state_dict().items())


UNCLEAR = {
    "holds weights of model.layers.0.mlp.up_proj and 7 more layers": {"target_modules": ["q_proj"]},
    "holds weights of model.layers.0.mlp.up_proj and 8 more layers": {"layers_to_transform": [3]},
    "target_modules is 'q_proj'": {"target_modules": "q_proj"},
    "target_modules is \\[\\]": {"target_modules": []},
    "layers_to_transform is 'all'": {"layers_to_transform": "all"},
    "layers_pattern is": {"layers_pattern": ["blocks"]},
    "exclude_modules is": {"exclude_modules": ["v_proj"]},
    "kasa_config is": {"kasa_config": {"beta": 1.0}},
    "use_bdlora is": {"use_bdlora": {"nblocks": 2}},
    "a_field_of_a_later_peft is": {"a_field_of_a_later_peft": 1},
}


@pytest.mark.parametrize("told", UNCLEAR)
def test_an_adapter_that_peft_and_the_engine_understand_differently_is_neither_measured_nor_served(
    base, adapter, tmp_path, told
):
    folder = changed(adapter, tmp_path / "changed", UNCLEAR[told])

    with pytest.raises(SourceDataError, match=told):
        Predictor(base, AdapterFiles.read(folder), threads=1)
    with pytest.raises(SourceDataError, match=told):
        read_adapter(folder, base, AutoModelForCausalLM.from_pretrained(base.path))


def test_an_adapter_of_the_layer_that_gives_the_logits_is_refused_for_its_weights_are_the_embeddings(
    base, adapter, tmp_path
):
    folder = changed(adapter, tmp_path / "changed", {"target_modules": ["lm_head"]})
    save_file(
        {f"base_model.model.lm_head.lora_{letter}.weight": torch.zeros(4, 4) for letter in "AB"}, folder / WEIGHTS
    )

    with pytest.raises(SourceDataError, match="lm_head is no linear layer"):
        Predictor(base, AdapterFiles.read(folder), threads=1)


def test_the_adapter_changes_answers(base, adapter, conversations):
    bare, tuned = (
        Predictor(base, files, threads=1).generate(conversations, decoding(8))
        for files in (None, AdapterFiles.read(adapter))
    )

    assert bare != tuned


def test_an_answer_stands_where_its_question_stood(base, adapter, conversations):
    predictor = Predictor(base, AdapterFiles.read(adapter), threads=1)

    forward = predictor.generate(conversations, decoding(4))
    backward = predictor.generate(conversations[::-1], decoding(4))

    assert forward == backward[::-1]


def test_an_answer_ends_at_its_end_of_turn_or_is_marked_as_cut(base, adapter, conversations):
    found = Predictor(base, AdapterFiles.read(adapter), threads=1).generate(conversations, decoding(8, limit=5))

    assert all(one.tokens_out <= 5 for one in found)
    assert all(one.finished or one.tokens_out == 5 for one in found)
    assert any(not one.finished for one in found)


def test_an_answer_that_ends_at_once_frees_its_row(base, conversations):
    predictor = Predictor(base, None, threads=1)
    first = predictor.generate(conversations[:1], decoding(1, limit=1))[0]
    # Whatever this model says first is made the end of turn: every answer is then over after one token.
    token = AutoTokenizer.from_pretrained(base.path).encode(first.text, add_special_tokens=False)
    predictor._tokenizer.eos_token = predictor._tokenizer.convert_ids_to_tokens(token[0])

    found = predictor.generate(conversations[:1] * 5, decoding(2))

    assert [(one.text, one.tokens_out, one.finished) for one in found] == [("", 1, True)] * 5


def test_no_conversations_give_no_answers(base):
    assert Predictor(base, None, threads=1).generate([], decoding(8)) == []


def test_a_temperature_is_refused_because_gates_need_the_same_answers_again(base, conversations):
    hot = Decoding(max_new_tokens=4, batch_size=2, temperature=0.7)

    with pytest.raises(ContractError, match=r"temperature is 0\.7.*reproducible"):
        Predictor(base, None, threads=1).generate(conversations, hot)


def test_each_request_is_timed_alone(base, conversations):
    latencies = Predictor(base, None, threads=1).time_requests(conversations[:3], decoding(8, limit=4))

    assert len(latencies) == 3
    assert all(0.0 < latency < 60_000.0 for latency in latencies)


def test_progress_ends_at_the_whole(base, conversations):
    told = []

    Predictor(base, None, threads=1).generate(conversations, decoding(4), told.append)

    assert told[-1].share == 1.0
    assert told[-1].detail.startswith("14 of 14 answers, ")
