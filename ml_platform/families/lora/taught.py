"""Taught examples: questions that were really asked, each with the answer that somebody said would have been right.

They are only learnt, never measured by. They may be newer than what a candidate is measured by, for a correction that
waits for weeks teaches nobody: so they share no entity, no question and no wording with it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.canonical import canonical_bytes
from ml_platform.contracts.evaluation_spec import EvaluationSpec, LabelField
from ml_platform.contracts.example import Example, FactValue
from ml_platform.contracts.products import Product
from ml_platform.contracts.source import AnsweredSpec, Origin
from ml_platform.families.lora.soundness import kind_problem, label_kinds, problems_of
from ml_platform.snapshots.readers import plain
from ml_platform.snapshots.spelling import spoken
from ml_platform.snapshots.splits import Splits, question_sha256, wording

if TYPE_CHECKING:
    from ml_platform.families.lora.examples import ExamplesContext

MOST_TAUGHT = 0.25
"""At most this share of what is learnt comes from people: more would be a way to teach what they like."""
MOST_OF_ONE = 20
"""So many corrections of one user teach."""
OUTRANKS = (Origin.LABEL, Origin.OUTCOME, Origin.CORRECTION)
"""Whose word counts first: labellers are asked to look, outcomes only say what happened, users may be cross."""
_NAMED = {Origin.LABEL: "a label", Origin.OUTCOME: "an outcome", Origin.CORRECTION: "a correction"}

Row = Mapping[str, Any]


def taught_examples(context: "ExamplesContext") -> list[Example]:
    """What the snapshot's sources of kind `answered` teach, sound and without contradiction, by `said_id`.

    What teaches nothing is set aside with its reason: no JSON of the product's fields, a number that stands in no
    fact, an answer that no model gave, labellers who disagree.
    """
    by_response: dict[str, list[Row]] = {}
    fields = set(context.product.spec.evaluation.fields)
    for row in _rows(context):
        if row["origin"] == Origin.OUTCOME.value and not _names_all(row["said"], fields):
            continue  # says what happened and not what to answer: facts for hooks, nothing to set aside
        if reason := _reason_against(row):
            context.set_aside(row["said_id"], reason)
        else:
            by_response.setdefault(row["response_id"], []).append(row)
    settled = (_settled(said, context) for _, said in sorted(by_response.items()))
    return [example for example in settled if example is not None]


def set_aside_rows(context: "ExamplesContext") -> list[dict[str, Any]]:
    """What was said and teaches nothing, each with its reason, by `said_id`."""
    return [
        {"said_id": row["said_id"], "reason": context.aside[row["said_id"]], "original": plain(row)}
        for row in _rows(context)
        if row["said_id"] in context.aside
    ]


def is_taught(product: Product) -> bool:
    """Whether people can teach this product at all: whether it has a source of what was said of its answers."""
    return any(isinstance(spec, AnsweredSpec) for spec in product.spec.sources.values())


def _rows(context: "ExamplesContext") -> list[dict[str, Any]]:
    sources = [name for name, spec in context.product.spec.sources.items() if isinstance(spec, AnsweredSpec)]
    rows = [row for name in sources for row in context.table(name).to_dict("records")]
    # A product may have two such sources, e.g. of different ages: what both hold was said once.
    once = {row["said_id"]: {str(name): value for name, value in row.items()} for row in rows}
    return [once[said_id] for said_id in sorted(once)]


def with_taught(
    context: "ExamplesContext", splits: Splits, taught: Sequence[Example], golden: Iterable[Example]
) -> Splits:
    """The splits, what was taught learnt beside `train`: as far as nothing is measured by it.

    Of too many the newest stay. A question in `train` that was taught another answer gives way.
    """
    measured = [*chain.from_iterable(part for name, part in splits.items() if name != "train"), *golden]
    entities, wordings = {one.entity for one in measured}, {wording(one.utterance) for one in measured}
    facts = {name for one in splits["train"] for name in one.facts}
    kinds = label_kinds(splits["train"], context.product.spec.evaluation)
    most = int(MOST_TAUGHT / (1 - MOST_TAUGHT) * len(splits["train"]))
    kept: dict[str, Example] = {}
    for example in sorted(_undisputed(context, taught), key=_newest_first):
        reason = ""
        if example.entity in entities:
            reason = "is about what candidates are measured by"
        elif wording(example.utterance) in wordings:
            reason = "asks in words that candidates are measured by"
        elif not facts.issuperset(example.facts):
            reason = "shows facts that no other example has"
        elif problem := kind_problem(example, kinds):
            reason = problem
        elif question_sha256(example) in kept:
            reason = "another said the same, or was outvoted"
        elif len(kept) >= most:
            reason = f"more than {MOST_TAUGHT:.0%} of what is learnt"
        if reason:
            context.set_aside(example.example_id, reason)
        else:
            kept[question_sha256(example)] = example
    train = [one for one in splits["train"] if question_sha256(one) not in kept]
    return {**splits, "train": [*train, *reversed(kept.values())]}


def _undisputed(context: "ExamplesContext", taught: Sequence[Example]) -> Iterator[Example]:
    """What was taught, without questions that were asked again with the same facts and then answered otherwise."""
    spec = context.product.spec.evaluation
    said: dict[str, set[bytes]] = {}
    for example in taught:
        said.setdefault(question_sha256(example), set()).add(_verdict(example, spec))
    for example in taught:
        if len(said[question_sha256(example)]) > 1:
            context.set_aside(example.example_id, "people say different things")
        else:
            yield example


def _reason_against(row: Row) -> str:
    if not row["by_model"]:
        return "no model answered it"
    if row["origin"] == Origin.CORRECTION.value and row["nth_of_voice"] > MOST_OF_ONE:
        return f"beyond {MOST_OF_ONE} corrections of one user"
    return ""


def _names_all(outcome: str, fields: set[str]) -> bool:
    """Whether an outcome is an answer: it names every field of it."""
    return bool(fields) and fields <= json.loads(outcome).keys()


def _settled(said: Sequence[Row], context: "ExamplesContext") -> Example | None:
    """The one right answer to a question; None where there is none, or where people disagree."""
    for origin in OUTRANKS:
        mine = [row for row in said if row["origin"] == origin.value]
        newest = _newest_of_each(mine)
        for row in mine:
            if row not in newest:
                context.set_aside(row["said_id"], "the same person said otherwise later")
        sound = [example for row in newest if (example := _example(row, context)) is not None]
        if not sound:
            continue
        for row in said:
            if row not in mine and row["said_id"] not in context.aside:
                context.set_aside(row["said_id"], f"{_NAMED[origin]} outranks it")
        unanswerable = sum(row["said"] is None for row in newest)
        chosen = _agreed(sound, unanswerable, context.product.spec.evaluation)
        for example in sound:
            if chosen is None:
                context.set_aside(example.example_id, "people say different things")
            elif example is not chosen:
                context.set_aside(example.example_id, "another said the same, or was outvoted")
        return chosen
    return None


def _newest_of_each(rows: Iterable[Row]) -> list[Row]:
    by_voice = {row["voice"]: row for row in sorted(rows, key=lambda row: (row["known_at"], row["said_id"]))}
    return list(by_voice.values())


def _agreed(sound: Sequence[Example], unanswerable: int, spec: EvaluationSpec) -> Example | None:
    """The newest of what more than half of the people say, judged by labels where the product has any."""
    verdicts = [_verdict(example, spec) for example in sound]
    verdict, votes = Counter(verdicts).most_common(1)[0]
    if 2 * votes <= len(sound) + unanswerable:
        return None
    return [example for example, said in zip(sound, verdicts, strict=True) if said == verdict][-1]


def _verdict(example: Example, spec: EvaluationSpec) -> bytes:
    if isinstance(example.answer, str):
        return wording(example.answer).encode()
    labels = [name for name, field in spec.fields.items() if isinstance(field, LabelField)]
    return canonical_bytes({name: example.answer[name] for name in labels or example.answer})


def _example(row: Row, context: "ExamplesContext") -> Example | None:
    """What a row teaches; None, and the row set aside, where it is not sound."""
    if row["said"] is None:
        context.set_aside(row["said_id"], "nobody could answer it")
        return None
    spec = context.product.spec
    answer, problem = _answer(row, spec.evaluation)
    if problem:
        context.set_aside(row["said_id"], problem)
        return None
    facts: dict[str, FactValue] = json.loads(row["facts"])
    example = Example(
        example_id=row["said_id"],
        entity=_entity(row, spec.examples.entity),
        prediction_time=row["asked_at"],
        utterance=row["utterance"],
        facts=facts,
        answer=answer,
        origin=Origin(row["origin"]),
    )
    if problems := list(problems_of(example, spec.evaluation)):
        context.set_aside(row["said_id"], problems[0])
        return None
    return example


def _answer(row: Row, spec: EvaluationSpec) -> tuple[dict[str, Any] | str, str]:
    """The answer in what was said, and what is wrong with it; strictly read, for the model will write the same."""
    text: str = row["said"]
    if row["origin"] == Origin.OUTCOME.value:
        values = json.loads(text)
        return {name: values[name] for name in spec.fields}, ""
    if spec.answer_format == "text":
        return text, ""
    try:
        found = json.loads(text, parse_constant=_refuse, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        return "", f"is no JSON: {error}"
    if not isinstance(found, dict):
        return "", f"is a JSON {type(found).__name__}, expected an object with {', '.join(spec.fields)}"
    return found, ""


def _entity(row: Row, declared: str | None) -> str:
    """What the question was about, in the words of the other examples; the response where it was about nothing."""
    if row["entity"] is None:
        return f"response/{row['response_id']}"
    entity: dict[str, Any] = json.loads(row["entity"])
    if declared in entity:
        return spoken(entity[declared])
    return spoken(next(iter(entity.values()))) if len(entity) == 1 else str(row["entity"])


def _newest_first(example: Example) -> tuple[float, str]:
    return (-example.prediction_time.timestamp() if example.prediction_time else 0.0, example.example_id)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
