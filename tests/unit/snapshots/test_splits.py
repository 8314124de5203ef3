"""Splits keep time order and whole entities, whatever the examples look like."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ml_platform.contracts.example import Example
from ml_platform.contracts.product import SplitSpec
from ml_platform.errors import InvalidInputError
from ml_platform.snapshots.splits import Splits, question_sha256, split_examples

SPEC = SplitSpec(validation_share=0.1, test_share=0.2)
START = datetime(2024, 1, 1, tzinfo=UTC)


def example(number: int, entity: str | None = None, hours: float | None = None, **changes: Any) -> Example:
    values = {
        "example_id": f"e{number}",
        "entity": entity or f"entity {number}",
        "prediction_time": None if hours is None else START + timedelta(hours=hours),
        "utterance": f"question {number}",
        "answer": "yes",
    }
    return Example(**{**values, **changes})


def test_the_newest_examples_are_for_test_and_those_before_for_validation() -> None:
    splits = split_examples([example(number, hours=number) for number in range(100)], SPEC)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [70, 10, 20]
    assert [one.example_id for one in splits["test"]] == [f"e{number}" for number in range(80, 100)]
    assert [one.example_id for one in splits["validation"]] == [f"e{number}" for number in range(70, 80)]


def test_without_times_the_split_depends_on_nothing_but_the_entities() -> None:
    examples = [example(number) for number in range(200)]
    splits = split_examples(examples, SPEC)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [140, 20, 40]
    assert split_examples(examples[::-1], SPEC) == splits
    reworded = [one.model_copy(update={"answer": "no"}) for one in examples]
    for name, split in split_examples(reworded, SPEC).items():
        assert [one.entity for one in split] == [one.entity for one in splits[name]]


def test_an_entity_with_a_long_history_stands_in_one_split_and_its_old_examples_are_left_out() -> None:
    examples = [example(number, hours=number) for number in range(100)]
    examples += [example(200, "regular", 3, utterance="old"), example(201, "regular", 99.5, utterance="new")]
    splits = split_examples(examples, SPEC)
    assert [one.example_id for name in splits for one in splits[name] if one.entity == "regular"] == ["e201"]


def test_a_question_with_the_same_facts_stays_in_the_earliest_split_only() -> None:
    examples = [example(number, hours=number, facts={"n": number}) for number in range(100)]
    examples += [example(1000 + number, hours=number, utterance="Hello!") for number in (1, 75, 99)]
    splits = split_examples(examples, SPEC)
    assert [name for name in splits for one in splits[name] if one.utterance == "Hello!"] == ["train"]


@pytest.mark.parametrize("examples", [[], [example(1, hours=1)], [example(n, "one entity", n) for n in range(50)]])
def test_too_few_entities_are_an_error_that_counts_them(examples: list[Example]) -> None:
    with pytest.raises(InvalidInputError, match=rf"{len(examples)} examples about [01] entities are too few to split"):
        split_examples(examples, SPEC)


one_example = st.builds(
    example,
    st.integers(0, 400),
    st.sampled_from([f"entity {letter}" for letter in "abcdefghijklmnop"]),
    st.one_of(st.none(), st.integers(0, 30)),
)


def try_split(examples: list[Example]) -> Splits:
    try:
        return split_examples(examples, SPEC)
    except InvalidInputError:
        assume(False)
        raise


@given(st.lists(one_example, min_size=5, max_size=60), st.randoms(use_true_random=False))
def test_splits_never_overlap_and_never_go_back_in_time(examples: list[Example], random: Any) -> None:
    examples = [one.model_copy(update={"example_id": f"e{number}"}) for number, one in enumerate(examples)]
    splits = try_split(examples)
    parts = [splits[name] for name in ("train", "validation", "test")]
    for earlier, later in ((parts[0], parts[1]), (parts[0], parts[2]), (parts[1], parts[2])):
        timed = [{one.entity for one in part if one.prediction_time} for part in (earlier, later)]
        assert not timed[0] & timed[1]
        assert not {question_sha256(one) for one in earlier} & {question_sha256(one) for one in later}
        before = [one.prediction_time for one in earlier if one.prediction_time]
        after = [one.prediction_time for one in later if one.prediction_time]
        assert not before or not after or max(before) <= min(after)
    shuffled = random.sample(examples, len(examples))
    assert {name: [one.example_id for one in part] for name, part in try_split(shuffled).items()} == {
        name: [one.example_id for one in part] for name, part in splits.items()
    }
