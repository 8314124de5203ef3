"""The pack plan: every example once an epoch, in an order that anybody can make again."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.errors import ContractError
from ml_platform.families.lora.hardware import Hardware
from ml_platform.families.lora.lessons import packs_at_once
from ml_platform.families.lora.packs import fill_packs, plan_packs
from tests.samples.tiny_lora import SPEC

LENGTHS = st.lists(st.integers(1, 120), min_size=1, max_size=80)


@given(LENGTHS, st.integers(64, 200), st.integers(1, 4), st.integers(1, 3), st.integers())
def test_every_epoch_learns_every_example_once(lengths, pack_tokens, packs_per_step, epochs, seed):
    plan = plan_packs(lengths, pack_tokens, packs_per_step, epochs, seed)

    learnt = [index for pack in plan.packs for index in pack]
    for epoch in range(epochs):
        part = learnt[epoch * len(lengths) : (epoch + 1) * len(lengths)]
        assert sorted(part) == list(range(len(lengths)))


@given(LENGTHS, st.integers(64, 200), st.integers(1, 4), st.integers())
def test_no_pack_is_overfull_and_all_steps_are_equally_many_packs(lengths, pack_tokens, packs_per_step, seed):
    plan = plan_packs(lengths, pack_tokens, packs_per_step, 1, seed)

    assert {len(step) for step in plan.steps} == {packs_per_step}
    for pack in plan.packs:
        assert sum(lengths[index] for index in pack) <= pack_tokens or len(pack) == 1


@given(LENGTHS, st.integers(64, 200))
def test_first_fit_leaves_at_most_one_pack_half_empty(lengths, pack_tokens):
    loads = [sum(lengths[index] for index in pack) for pack in fill_packs(range(len(lengths)), lengths, pack_tokens)]

    assert all(one + other > pack_tokens for one, other in itertools.combinations(loads, 2))


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    lengths = [10 + index % 50 for index in range(60)]

    plans = [plan_packs(lengths, 160, 2, 2, seed) for seed in (1, 1, 2)]

    assert plans[0] == plans[1] != plans[2]


def test_a_plan_is_the_same_on_every_machine():
    assert plan_packs([50, 60, 70, 80, 90], 150, 2, 1, 13).steps == (((4, 1), (3, 2)), ((0,), ()))


def test_each_epoch_has_its_own_order():
    plan = plan_packs([40] * 30, 120, 1, 2, 3)

    assert plan.packs[:10] != plan.packs[10:]


def test_ten_thousand_examples_are_packed_at_once():
    lengths = [50 + (index * 37) % 200 for index in range(10_000)]

    packs = fill_packs(range(10_000), lengths, 1280)

    assert sum(lengths) / (1280 * len(packs)) == pytest.approx(1.0, abs=0.03)


def hardware(processes, longest_pack=1280):
    return Hardware("cpu", "float32", "within_examples", "adamw_torch", 1, longest_pack, processes)


def at_once(pack_tokens, packs_per_step, **given):
    return packs_at_once(
        SPEC.model_copy(update={"pack_tokens": pack_tokens, "packs_per_step": packs_per_step}), hardware(**given)
    )


def test_packs_that_processes_cannot_share_evenly_are_refused():
    with pytest.raises(ContractError, match="packs_per_step is 2, which 3 processes cannot share"):
        at_once(640, 2, processes=3)


@pytest.mark.parametrize(
    ("asked", "processes", "longest_pack", "learnt_as_one"),
    [
        ((640, 2), 1, 1280, 2),
        ((640, 2), 2, 1280, 1),
        ((640, 6), 1, 1280, 2),
        ((640, 6), 2, 8192, 3),
        ((640, 5), 1, 1280, 1),
        ((4096, 4), 1, 1280, 1),
    ],
)
def test_packs_of_a_step_are_learnt_together_as_far_as_the_device_likes(asked, processes, longest_pack, learnt_as_one):
    assert at_once(*asked, processes=processes, longest_pack=longest_pack) == learnt_as_one
