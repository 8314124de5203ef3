"""Labels: what happened in the end, and which of it may count as the label of an answer; pure.

A label counts once its answer has reached the product's label age, in every arm alike, and only if it was there by
then. What came late, twice, against itself or against time is kept out, with the reason.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.provenance import Outcome, Scalar
from ml_platform.contracts.serving import ServingTime

SKEW = timedelta(minutes=1)
"""How far apart the clocks of two machines may be before one of them is called wrong."""


class Flaw(StrEnum):
    """Why an outcome is no label of an answer."""

    LATE = "late"
    DUPLICATE = "duplicate"
    CONTRADICTORY = "contradictory"
    BEFORE_ANSWER = "before_answer"
    FROM_THE_FUTURE = "from_the_future"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Told:
    """An outcome as labels need it: `at` is when it counts as known, `happened` what each recall asks for.

    A value in `happened` is None where the outcome does not say, or says what is neither true nor false nor a number.
    """

    key: str
    at: datetime
    occurred_at: datetime
    received_at: datetime
    happened: tuple[bool | None, ...]


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of one answer: `happened` is None without a label; `flaws` are the outcomes that did not count."""

    happened: tuple[bool | None, ...] | None
    flaws: tuple[Flaw, ...] = ()


def told(outcome: Outcome, evaluation: EvaluationSpec | None, time: ServingTime) -> Told:
    """An outcome in the product's time: what it was worth knowing is known when it occurred, or once we heard of it."""
    recalls = () if evaluation is None else tuple(evaluation.recall.values())
    return Told(
        key=outcome.idempotency_key,
        at=outcome.occurred_at if time is ServingTime.FEATURES else outcome.received_at,
        occurred_at=outcome.occurred_at,
        received_at=outcome.received_at,
        happened=tuple(_truth(outcome.values, recall.outcome) for recall in recalls),
    )


def label_of(
    answered: datetime, age: timedelta, outcomes: Iterable[Told], time: ServingTime, *, asked: bool = True
) -> Label:
    """The label of an answer given at `answered`, in the product's time, once it is `age` old.

    `asked` says whether the product asks for anything that may happen; if not, any sound outcome is a label. Outcomes
    that say the same count once; of such as contradict each other none does. Their order does not matter.
    """
    flaws: list[Flaw] = []
    sound: list[Told] = []
    for one in sorted(outcomes, key=lambda one: (one.at, one.key)):
        flaw = _flaw(one, answered, age, time, asked=asked)
        if flaw is None:
            sound.append(one)
        else:
            flaws.append(flaw)
    if not sound:
        return Label(None, tuple(flaws))
    happened = tuple(_agreed(values) for values in zip(*(one.happened for one in sound), strict=True))
    if any(len(values) > 1 for values in happened):
        return Label(None, (*flaws, *[Flaw.CONTRADICTORY] * len(sound)))
    flaws += [Flaw.DUPLICATE] * (len(sound) - 1)
    return Label(tuple(next(iter(values), None) for values in happened), tuple(flaws))


def _flaw(one: Told, answered: datetime, age: timedelta, time: ServingTime, *, asked: bool) -> Flaw | None:
    # Where history is replayed, the world's clock and ours have nothing to do with each other.
    skew = SKEW if time is ServingTime.CLOCK else timedelta()
    if time is ServingTime.CLOCK and one.occurred_at > one.received_at + SKEW:
        return Flaw.FROM_THE_FUTURE
    if one.occurred_at < answered - skew:
        return Flaw.BEFORE_ANSWER
    if one.at > answered + age:
        return Flaw.LATE
    if asked and all(value is None for value in one.happened):
        return Flaw.UNUSABLE
    return None


def _agreed(values: Iterable[bool | None]) -> frozenset[bool]:
    return frozenset(value for value in values if value is not None)


def _truth(values: Mapping[str, Scalar | None], name: str) -> bool | None:
    """Only a boolean or a number is an outcome, as in evaluation."""
    value = values.get(name)
    return bool(value) if isinstance(value, bool | int | float) else None
