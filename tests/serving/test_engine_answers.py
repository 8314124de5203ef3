"""What the engine says is what the merged model says, whoever else is in the batch."""

import asyncio
import time

import pytest

from ml_platform.contracts.report import Decoding
from ml_platform.families.lora.adapter_files import AdapterFiles
from ml_platform.families.lora.predict import Predictor
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.engine_client import EngineClient
from tests.samples.engine import CONVERSATIONS, DECODING, LIMITS, TOKEN, make_world, running_engine


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("engine-answers"))


@pytest.fixture(scope="module")
def running(world):
    with running_engine(world.base) as engine:
        yield engine


@pytest.fixture(scope="module")
def expected(world):
    """By model: the answers of evaluation's predictor, with the adapter merged."""
    folders = {world.base.name: None} | {adapter.name: adapter.path for adapter in world.adapters}
    return {
        name: Predictor(world.base, folder and AdapterFiles.read(folder), threads=1).generate(CONVERSATIONS, DECODING)
        for name, folder in folders.items()
    }


def ask_all(running, world, asks, *, stream=False, decoding=DECODING):
    """The answers to (model, conversation) pairs, all asked at once."""

    async def asked():
        client = EngineClient(running.url, token=TOKEN, stream=stream)
        try:
            for adapter in world.adapters:
                await client.load(adapter.name, adapter.path, timeout_seconds=30.0)
            deadline = Deadline.after(60.0, time.monotonic())
            return await asyncio.gather(
                *(client.generate(model, CONVERSATIONS[place], decoding, deadline=deadline) for model, place in asks)
            )
        finally:
            await client.close()

    return asyncio.run(asked())


def plain(one):
    return one.text, one.tokens_in, one.tokens_out, one.finished


def test_one_adapter_alone_answers_as_if_it_were_merged(running, world, expected):
    name = world.adapters[0].name

    found = ask_all(running, world, [(name, place) for place in range(len(CONVERSATIONS))])

    assert [plain(one) for one in found] == [plain(one) for one in expected[name]]


@pytest.mark.parametrize("stream", [False, True])
def test_three_adapters_and_the_base_share_batches_and_answer_as_if_alone(running, world, expected, stream):
    models = [world.base.name, *(adapter.name for adapter in world.adapters)]
    asks = [(model, place) for place in range(len(CONVERSATIONS)) for model in models]

    found = ask_all(running, world, asks, stream=stream)

    assert [plain(one) for one in found] == [plain(expected[model][place]) for model, place in asks]
    assert len({expected[model][0].text for model in models}) == len(models)


def test_more_questions_than_rows_are_all_answered(running, world, expected):
    name = world.adapters[1].name
    asks = [(name, place % len(CONVERSATIONS)) for place in range(LIMITS.rows * 5)]

    found = ask_all(running, world, asks)

    assert [one.text for one in found] == [expected[name][place].text for _, place in asks]


def test_short_streams_lose_no_last_piece(running, world, expected):
    name, short = world.adapters[0].name, Decoding(max_new_tokens=2, batch_size=8)
    asks = [(name, place % len(CONVERSATIONS)) for place in range(150)]

    whole = ask_all(running, world, asks, decoding=short)
    streamed = ask_all(running, world, asks, decoding=short, stream=True)

    assert [plain(one) for one in streamed] == [plain(one) for one in whole]


def test_an_answer_that_ends_by_itself_is_finished_and_one_that_is_cut_is_not(world, expected):
    with running_engine(world.base) as running:
        cut = ask_all(running, world, [(world.base.name, 0)], decoding=Decoding(max_new_tokens=1, batch_size=1))[0]
        tokenizer = running.engine._decoder.tokenizer
        (first,) = tokenizer.encode(cut.text, add_special_tokens=False)
        # Whatever this model says first is made the end of turn.
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(first)
        found = ask_all(running, world, [(world.base.name, 0)])[0]

    assert (cut.finished, cut.tokens_out) == (False, 1)
    assert (found.text, found.tokens_out, found.finished) == ("", 1, True)


def test_the_engine_tells_how_long_a_request_waited_and_when_its_first_token_came(running, world):
    for stream in (False, True):
        found = ask_all(running, world, [(world.base.name, 0)], stream=stream)[0]

        assert 0.0 <= found.queue_ms <= found.first_token_ms < 60_000.0
