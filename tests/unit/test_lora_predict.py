"""The predictor: greedy answers as transformers would give them, whatever else is in the batch."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from ml_platform.contracts.home import Home
from ml_platform.contracts.report import Decoding
from ml_platform.errors import ContractError
from ml_platform.families.lora import predict
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
    """An adapter with random weights that change most answers."""
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

    found = Predictor(base, folder, threads=1).generate(conversations, decoding(batch_size))

    assert [(one.text, one.tokens_in, one.tokens_out) for one in found] == oracle(base, folder, conversations)


def test_a_long_conversation_among_short_ones_changes_none_of_them(base, adapter, conversations, monkeypatch):
    long = [*conversations[0][:-1], {"role": "user", "content": "is it late? " * 40}]
    mixed = [*conversations[:5], long, *conversations[5:]]
    monkeypatch.setattr(predict, "MEMORY_BYTES", 3 * 700 * 4 * 2 * 2 * 8 * 4)
    monkeypatch.setattr(predict, "READ_TOKENS", 300)

    found = Predictor(base, adapter, threads=1).generate(mixed, decoding(8))

    assert [(one.text, one.tokens_in, one.tokens_out) for one in found] == oracle(base, adapter, mixed)


def test_the_adapter_changes_answers(base, adapter, conversations):
    bare, tuned = (
        Predictor(base, folder, threads=1).generate(conversations, decoding(8)) for folder in (None, adapter)
    )

    assert bare != tuned


def test_an_answer_stands_where_its_question_stood(base, adapter, conversations):
    predictor = Predictor(base, adapter, threads=1)

    forward = predictor.generate(conversations, decoding(4))
    backward = predictor.generate(conversations[::-1], decoding(4))

    assert forward == backward[::-1]


def test_an_answer_ends_at_its_end_of_turn_or_is_marked_as_cut(base, adapter, conversations):
    found = Predictor(base, adapter, threads=1).generate(conversations, decoding(8, limit=5))

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
