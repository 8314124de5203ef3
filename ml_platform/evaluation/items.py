"""Items: which examples are put to a model, chosen the same way on every machine."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_platform.contracts.evaluation_spec import RefusalSpec
from ml_platform.contracts.example import Example
from ml_platform.contracts.labels import is_among

TEST = "test"
"""The name of the items that come from the test split; golden sets have their own names."""


@dataclass(frozen=True)
class Item:
    """One question of one set: `items` is `test` or the golden set's name."""

    items: str
    example: Example

    @property
    def key(self) -> tuple[str, str]:
        """What tells this item from every other."""
        return self.items, self.example.example_id

    @property
    def order(self) -> str:
        """Where a hash puts this item: a fair draw that every machine repeats."""
        return hashlib.sha256(f"{self.items}\n{self.example.example_id}".encode()).hexdigest()


def choose_items(test: Sequence[Example], golden: Mapping[str, Sequence[Example]], at_most: int) -> tuple[Item, ...]:
    """The items that the candidate answers: of the test split and of each golden set at most `at_most`.

    What is left out is decided by a hash of the example's id, so the chosen are a random sample of their
    set that does not depend on the order of the file. Order: test first, then golden sets by name.
    """
    sets = {TEST: test, **{name: golden[name] for name in sorted(golden)}}
    return tuple(item for name, examples in sets.items() for item in sample(_items(name, examples), at_most))


def choose_reference_items(items: Sequence[Item], at_most: int) -> tuple[Item, ...]:
    """The items that the reference answers too: at most `at_most` of the candidate's answer items.

    The reference is measured on no other item, so that every comparison is paired.
    """
    return sample([item for item in items if item.example.kind == "answer"], at_most)


def expects_refusal(example: Example, refusal: RefusalSpec | None) -> bool:
    """Whether the expected answer declines because the question is out of scope or an attack."""
    if refusal is None or not isinstance(example.answer, dict):
        return False
    return is_among(example.answer.get(refusal.field), (*refusal.out_of_scope, *refusal.attack))


def _items(name: str, examples: Sequence[Example]) -> list[Item]:
    """Items of a set; the same example twice counts once."""
    return [Item(name, example) for example in {example.example_id: example for example in examples}.values()]


def sample(items: Sequence[Item], at_most: int) -> tuple[Item, ...]:
    """At most so many items, drawn by their hash, in the order in which they stood."""
    chosen = {id(item) for item in sorted(items, key=lambda item: item.order)[:at_most]}
    return tuple(item for item in items if id(item) in chosen)
