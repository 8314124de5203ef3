"""Adapters come and go while the engine answers; a bad one is refused and leaves everything as it was."""

import asyncio
import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from ml_platform.errors import AdapterMissingError, EngineError
from ml_platform.serving.adapter_names import CONFIGURATION, WEIGHTS
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.engine.protocol import Ask
from ml_platform.serving.engine.service import Engine
from tests.samples.engine import CONVERSATIONS, DECODING, LIMITS, Gate, TinyAdapter, make_world, running_engine, using


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("engine-adapters"))


@pytest.fixture(scope="module")
def shared(world):
    with running_engine(world.base) as engine:
        yield engine


def ask(client, model, place=0, seconds=60.0):
    return client.generate(model, CONVERSATIONS[place], DECODING, deadline=Deadline.after(seconds, time.monotonic()))


def copy_of(adapter, folder, *, config=None, weights=None):
    """The adapter again, with its configuration or its tensors changed."""
    shutil.copytree(adapter.path, folder)
    if config:
        path = folder / CONFIGURATION
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    if weights:
        tensors = load_file(folder / WEIGHTS)
        weights(tensors)
        save_file(tensors, folder / WEIGHTS)
    return folder


def first(tensors):
    return next(iter(tensors))


def poison(tensors):
    tensors[first(tensors)][0, 0] = float("nan")


def widen(tensors):
    name = first(tensors)
    tensors[name] = torch.cat([tensors[name], tensors[name]], dim=1)


def lose_one(tensors):
    tensors.pop(first(tensors))


def lose_a_layer(tensors):
    for name in [name for name in tensors if ".layers.3." in name]:
        tensors.pop(name)


def add_a_head(tensors):
    tensors["base_model.model.lm_head.weight"] = torch.zeros(2, 2)


BAD = {
    "holds numbers that are not finite": {"weights": poison},
    "has the shapes": {"weights": widen},
    "only one of lora_A and lora_B": {"weights": lose_one},
    "lacks the weights of": {"weights": lose_a_layer},
    "expected weights of a LoRA": {"weights": add_a_head},
    "holds weights of model.layers.0.self_attn.v_proj and 3 more layers": {"config": {"target_modules": ["q_proj"]}},
    "exclude_modules is": {"config": {"exclude_modules": ["v_proj"]}},
    "was trained on other@": {"config": {"base_model_name_or_path": "other@" + "0" * 64}},
    "use_dora is True": {"config": {"use_dora": True}},
    "peft_type is 'IA3'": {"config": {"peft_type": "IA3"}},
    "modules_to_save is": {"config": {"modules_to_save": ["lm_head"]}},
    "r is 0": {"config": {"r": 0}},
    "lora_alpha None": {"config": {"lora_alpha": None}},
}


@pytest.mark.parametrize("told", BAD)
def test_a_bad_adapter_is_refused_with_its_reason_and_changes_nothing(world, shared, tmp_path, told):
    bad = copy_of(world.adapters[0], tmp_path / "bad", **BAD[told])

    async def work(client):
        before = await client.models(timeout_seconds=10.0), (await ask(client, world.base.name)).text
        with pytest.raises(EngineError, match=r"answered 400: .*not loaded") as refused:
            await client.load("tiny@trial", bad, timeout_seconds=30.0)
        after = await client.models(timeout_seconds=10.0), (await ask(client, world.base.name)).text
        return str(refused.value), before == after

    message, unchanged = using(shared, work)
    assert told in message
    assert unchanged


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]), "no safetensors file"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), "no safetensors file"),
        (lambda folder: (folder / WEIGHTS).unlink(), "no adapter_model.safetensors"),
        (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), "can run code when it is loaded"),
        (lambda folder: (folder / CONFIGURATION).unlink(), "no adapter_config.json"),
        (lambda folder: (folder / CONFIGURATION).write_text("[" * 100_000), "is no JSON"),
        (lambda folder: (folder / CONFIGURATION).write_text("[]"), "holds no JSON object"),
        (shutil.rmtree, "no adapter_config.json"),
    ],
)
def test_a_torn_or_missing_file_is_refused(world, shared, tmp_path, spoil, told):
    folder = copy_of(world.adapters[0], tmp_path / "torn")
    spoil(folder)

    async def work(client):
        with pytest.raises(EngineError, match=told):
            await client.load("tiny@torn", folder, timeout_seconds=30.0)

    using(shared, work)


def test_a_name_whose_digest_is_not_that_of_the_bytes_is_refused(world, shared):
    one, other, _ = world.adapters

    async def work(client):
        with pytest.raises(EngineError, match="not the one in its name"):
            await client.load(other.name, one.path, timeout_seconds=30.0)
        return await client.models(timeout_seconds=10.0)

    assert other.name not in using(shared, work)


def test_the_same_weights_with_another_scaling_are_another_model(world, shared, tmp_path):
    one = world.adapters[0]
    other = TinyAdapter.of(copy_of(one, tmp_path / "scaled", config={"lora_alpha": 80}))

    async def work(client):
        await client.load(one.name, one.path, timeout_seconds=30.0)
        with pytest.raises(EngineError, match="not the one in its name"):
            await client.load(one.name, other.path, timeout_seconds=30.0)
        await client.load(other.name, other.path, timeout_seconds=30.0)
        return await ask(client, one.name), await ask(client, other.name)

    found = using(shared, work)
    assert one.name != other.name
    assert found[0].text != found[1].text


def test_a_free_name_means_one_thing_only(world, shared):
    one, other, _ = world.adapters

    async def work(client):
        await client.load("free-name", one.path, timeout_seconds=30.0)
        await client.load("free-name", one.path, timeout_seconds=30.0)
        before = await ask(client, "free-name")
        with pytest.raises(EngineError, match="in use for other bytes"):
            await client.load("free-name", other.path, timeout_seconds=30.0)
        return before.text, (await ask(client, "free-name")).text

    before, after = using(shared, work)
    assert before == after


def test_the_base_models_name_cannot_be_taken(world, shared):
    async def work(client):
        with pytest.raises(EngineError, match="cannot be the name"):
            await client.load(world.base.name, world.adapters[0].path, timeout_seconds=30.0)

    using(shared, work)


def test_an_adapter_that_is_unloaded_finishes_what_it_has_begun(world):
    one, other, _ = world.adapters

    async def work(client):
        for adapter in (one, other):
            await client.load(adapter.name, adapter.path, timeout_seconds=30.0)
        expected = (await ask(client, one.name)).text
        gate = Gate(running.engine)
        begun = [asyncio.ensure_future(ask(client, one.name)) for _ in range(3)]
        while sum(running.engine.scheduler.load) < 3:
            await asyncio.sleep(0.01)
        await client.unload(one.name, timeout_seconds=30.0)
        with pytest.raises(AdapterMissingError):
            await ask(client, one.name)
        gate.open()
        answers = [answer.text for answer in await asyncio.gather(*begun)]
        # Answers are here a moment before the engine has ended their uses; the next change of the stack then lets go.
        ends = time.monotonic() + 20.0
        while any(held.uses for held in running.engine.shelf._stacked):
            assert time.monotonic() < ends
            await asyncio.sleep(0.005)
        await client.unload(other.name, timeout_seconds=30.0)
        return expected, answers

    with running_engine(world.base) as running:
        expected, answers = using(running, work)
        assert answers == [expected] * 3
        assert running.engine.scheduler.stack.adapters == ()
        assert running.engine.shelf.held == ()


def test_loading_and_unloading_under_load_changes_no_answer(world, shared):
    one, *others = world.adapters

    async def work(client):
        await client.load(one.name, one.path, timeout_seconds=30.0)
        expected = (await ask(client, one.name)).text
        asking = asyncio.gather(*(ask(client, one.name) for _ in range(60)))
        changes = 0
        while not asking.done():
            for adapter in others:
                await client.load(adapter.name, adapter.path, timeout_seconds=30.0)
            for adapter in others:
                await client.unload(adapter.name, timeout_seconds=30.0)
            changes += 1
        return expected, {answer.text for answer in await asking}, changes

    expected, found, changes = using(shared, work)
    assert found == {expected}
    assert changes


def test_a_stream_that_is_left_gives_its_adapter_back_once(world):
    """Its last token and its end reach the event loop together here, as they do where that is busy."""
    one = world.adapters[0]

    async def work():
        engine = Engine(world.base, LIMITS, threads=1)
        gate = Gate(engine)
        engine.start()
        await engine.shelf.load(one.name, str(one.path))
        asked = Ask(one.name, tuple(CONVERSATIONS[0]), 24, streams=True, with_usage=False)
        async with engine.generation(asked) as left:
            assert await asyncio.to_thread(gate.reached.wait, 60.0)
        gate.open()
        while left.job.outcome is None:
            time.sleep(0.001)  # the loop must not run before both are there
        await engine.stop()
        (held,) = engine.shelf.held
        return held.uses

    assert asyncio.run(work()) == 0
