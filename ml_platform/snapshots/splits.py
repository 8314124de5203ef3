"""Splits: examples divided in time order, so that nothing is measured on what training has seen."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ml_platform.contracts.canonical import digest
from ml_platform.contracts.example import Example
from ml_platform.contracts.product import SplitSpec
from ml_platform.errors import InvalidInputError

Splits = dict[str, list[Example]]

NAMES = ("train", "validation", "test")
_BLANKS = re.compile(r"[ \t\r\n\u00a0]+")
_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _Entity:
    """All examples about one thing, and the place of the newest among them in the order of time."""

    place: tuple[datetime, str]
    examples: tuple[Example, ...]


def split_examples(examples: Sequence[Example], spec: SplitSpec) -> Splits:
    """`train`, `validation` and `test`: the newest entities are for test, those before for validation.

    No entity stands in two splits, no split begins before the one before it has ended, and no
    question with the same facts stands twice. Where an entity's history would break the order of time,
    its older examples are left out; a repeated question stays in the earliest split.
    Examples without a prediction time are split on their own, in the order of a hash of the entity.
    The result does not depend on the order of `examples`; each split is in the order described.
    Raises InvalidInputError when a split would be empty.
    """
    timed = [example for example in examples if example.prediction_time is not None]
    timeless = [example for example in examples if example.prediction_time is None]
    parts = [_divided(part, spec) for part in (timed, timeless)]
    splits = _without_repetitions({name: [*parts[0][name], *parts[1][name]] for name in NAMES})
    empty = [name for name in NAMES if not splits[name]]
    if empty:
        entities = len({example.entity for example in examples})
        raise InvalidInputError(
            f"{len(examples)} examples about {entities} entities are too few to split: {' and '.join(empty)} would be "
            f"empty at validation_share {spec.validation_share:g} and test_share {spec.test_share:g}. Add examples "
            "about more entities, or raise the shares in product.yaml."
        )
    return splits


def question_sha256(example: Example) -> str:
    """What the model is asked: the digest of utterance and facts; equal ones are the same question.

    Case and spacing make no other question of it: exports pad their cells, and what is learnt by heart with a blank at
    its end would be measured without one. Punctuation may (`2 + 3` and `2 - 3`).
    """
    utterance = _BLANKS.sub(" ", unicodedata.normalize("NFC", example.utterance).casefold()).strip(" ")
    return digest({"utterance": utterance, "facts": example.facts})


def wording(utterance: str) -> str:
    """The words in which something is asked, whatever their case, spacing and punctuation."""
    return " ".join(re.findall(r"\w+", utterance.casefold())) or utterance


def _divided(examples: Sequence[Example], spec: SplitSpec) -> Splits:
    """Cuts the line of entities twice, counting from the newest, and drops what stands before its split."""
    line = _entities(examples)
    splits: Splits = {name: [] for name in NAMES}
    end = len(line)
    for name, share in (("test", spec.test_share), ("validation", spec.validation_share)):
        start, wanted = end, round(len(examples) * share)
        while start and sum(len(entity.examples) for entity in line[start:end]) < wanted:
            start -= 1
        begins = line[start - 1].place[0] if start else _LONG_AGO
        splits[name] = [
            example for entity in line[start:end] for example in entity.examples if _time(example) >= begins
        ]
        end = start
    splits["train"] = [example for entity in line[:end] for example in entity.examples]
    return {name: sorted(split, key=_order) for name, split in splits.items()}


def _entities(examples: Sequence[Example]) -> list[_Entity]:
    grouped: dict[str, list[Example]] = {}
    for example in examples:
        grouped.setdefault(example.entity, []).append(example)
    entities = [_Entity(max(_order(one)[:2] for one in group), tuple(group)) for group in grouped.values()]
    return sorted(entities, key=lambda entity: entity.place)


def _without_repetitions(splits: Splits) -> Splits:
    seen: set[str] = set()
    kept: Splits = {}
    for name in NAMES:
        fresh = [example for example in splits[name] if question_sha256(example) not in seen]
        seen.update(question_sha256(example) for example in fresh)
        kept[name] = fresh
    return kept


def _order(example: Example) -> tuple[datetime, str, str]:
    return _time(example), hashlib.sha256(example.entity.encode()).hexdigest(), example.example_id


def _time(example: Example) -> datetime:
    return example.prediction_time or _LONG_AGO
