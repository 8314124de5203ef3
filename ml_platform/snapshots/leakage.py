"""Leakage: whether training or evaluation would see what it must not see."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from itertools import compress
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.evaluation_spec import LabelField
from ml_platform.contracts.evidence import CheckResult
from ml_platform.contracts.example import Example
from ml_platform.contracts.products import Product
from ml_platform.contracts.source import SourceSpec
from ml_platform.lineage.artifacts import Artifact
from ml_platform.snapshots.extract import load_table, manifest_of
from ml_platform.snapshots.rows import known_since
from ml_platform.snapshots.spelling import plain, row_name, spoken
from ml_platform.snapshots.splits import NAMES, question_sha256, wording
from ml_platform.snapshots.suspicion import foretells, repeats

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 3

Splits = Mapping[str, Sequence[Example]]
_Told = tuple[Example, dict[str, Any]]
_Called = dict[str, list[tuple[Any, dict[str, Any]]]]


def check_leakage(product: Product, snapshot: Artifact, splits: Splits, golden: Sequence[Example]) -> CheckResult:
    """`no_leakage`: every way that we know for an answer to slip into the question, looked for.

    Predictions stand before the cutoff; facts carry no outcome, no label of the answer, no column that became known
    only after the prediction, and nothing that foretells an outcome almost surely; splits follow each other in
    time and share no entity and no question, with each other or with the golden sets. What people taught stands in
    `train` alone, at any time, and shares no wording with what is measured by.
    Empty splits are a problem, never a pass.
    """
    everything = [example for name in NAMES for example in splits.get(name, ())]
    problems = [
        *_emptiness(splits),
        *_times(everything, manifest_of(snapshot).cutoff),
        *_time_order(splits),
        *_shared(splits, golden),
        *_taught(splits, golden),
        *_outcomes_among_facts(everything),
        *_labels_among_facts(product, everything),
        *_later_columns(product, snapshot, everything),
    ]
    return CheckResult(
        check="no_leakage", passed=not problems, examined=len(everything) + len(golden), problems=tuple(problems)
    )


def _emptiness(splits: Splits) -> Iterator[str]:
    for name in NAMES:
        if not splits.get(name):
            yield f"split '{name}' holds no example: nothing could be examined. Make examples for every split."
    for name in sorted(set(splits) - set(NAMES)):
        yield f"split '{name}' is unknown and was not examined. Name the splits {', '.join(NAMES)}."


def _times(examples: Sequence[Example], end: datetime) -> Iterator[str]:
    late = [example for example in examples if example.prediction_time and example.prediction_time > end]
    if late:
        first = late[0]
        yield (
            f"{len(late)} examples predict after the cutoff {end:%Y-%m-%d %H:%M}Z, which the snapshot cannot know: "
            f"first '{first.example_id}' at {first.prediction_time:%Y-%m-%d %H:%M}Z. Make them from older rows."
        )


def _time_order(splits: Splits) -> Iterator[str]:
    ended: tuple[datetime, str] | None = None
    for name in NAMES:
        # What people taught may be newer than what is measured: it shares less than time with it, see _taught.
        drawn = [example for example in splits.get(name, ()) if example.origin is None]
        times = [example.prediction_time for example in drawn if example.prediction_time]
        if not times:
            continue
        if ended and min(times) < ended[0]:
            yield (
                f"split '{name}' begins at {min(times):%Y-%m-%d %H:%M}Z, before '{ended[1]}' ends at "
                f"{ended[0]:%Y-%m-%d %H:%M}Z. Split in the order of prediction times."
            )
        ended = max((max(times), name), ended or (max(times), name))


def _shared(splits: Splits, golden: Sequence[Example]) -> Iterator[str]:
    """Entities and questions that stand on both sides; a golden set may share them with `test` only."""
    pairs = [(splits.get(a, ()), splits.get(b, ()), a, b) for a, b in _pairs(NAMES)]
    pairs += [(splits.get(name, ()), golden, name, "the golden sets") for name in ("train", "validation")]
    for one, other, name, other_name in pairs:
        entities = sorted({example.entity for example in one} & {example.entity for example in other})
        if entities:
            yield (
                f"'{name}' and {other_name} share {len(entities)} entities: {_listed(entities)}. "
                "Keep all examples of an entity on one side."
            )
        asked = {question_sha256(example) for example in one}
        repeated = [example.example_id for example in other if question_sha256(example) in asked]
        if repeated:
            yield (
                f"'{name}' and {other_name} share {len(repeated)} questions with the same facts: {_listed(repeated)}. "
                "Remove them from one side."
            )


def _taught(splits: Splits, golden: Sequence[Example]) -> Iterator[str]:
    """Questions that people taught the answer of: only learnt, and in no words that something is measured by."""
    measured = [*splits.get("validation", ()), *splits.get("test", ()), *golden]
    if misplaced := [example.example_id for example in measured if example.origin is not None]:
        yield (
            f"{len(misplaced)} questions that people taught the answer of are measured by: {_listed(misplaced)}. "
            "Keep them in 'train'."
        )
    words = {wording(example.utterance) for example in measured}
    taught = [example for example in splits.get("train", ()) if example.origin is not None]
    if worded := [example.example_id for example in taught if wording(example.utterance) in words]:
        yield f"{len(worded)} taught questions are asked in words that are measured by: {_listed(worded)}. Remove them."


def _outcomes_among_facts(examples: Sequence[Example]) -> Iterator[str]:
    outcomes = sorted({name for example in examples for name in example.outcome})
    facts = sorted({name for example in examples for name in example.facts})
    for fact in sorted(set(facts) & set(outcomes)):
        yield f"fact '{fact}' is an outcome: the question holds the answer. Remove it from the facts."
    for fact in sorted(set(facts) - set(outcomes)):
        for outcome in outcomes:
            told = [(one.facts.get(fact), one.outcome[outcome]) for one in examples if outcome in one.outcome]
            if strength := foretells(told):
                yield (
                    f"fact '{fact}' foretells outcome '{outcome}' almost surely ({strength}): it was probably made "
                    "from it. Remove the fact, or make it from rows known before the prediction."
                )


def _labels_among_facts(product: Product, examples: Sequence[Example]) -> Iterator[str]:
    """Facts that are what the answer is to say. A level that an action policy makes of facts may be told as one."""
    policy, fields = product.action_policy, product.spec.evaluation.fields
    made = policy.field if policy else None
    labels = [name for name, field in fields.items() if isinstance(field, LabelField) and name != made]
    for fact in sorted({name for example in examples for name in example.facts}):
        # An answer in plain text has no fields: the whole of it is what must not be told.
        for label in labels if fields else [""]:
            told = [(one.facts.get(fact), _said(one, label)) for one in examples]
            if repeats(told):
                answer = f"label '{label}'" if label else "the answer"
                yield (
                    f"fact '{fact}' repeats {answer}: the question holds what is to be learnt. "
                    "Remove the fact, or make it from rows known before the prediction."
                )


def _said(example: Example, label: str) -> Any:
    return example.answer if isinstance(example.answer, str) else example.answer.get(label)


def _later_columns(product: Product, snapshot: Artifact, examples: Sequence[Example]) -> Iterator[str]:
    """Facts that repeat what the example's own row, or that of its entity, told only after the prediction.

    A fact that as surely repeats a row known before it is none: a departure tells its airport once more.
    """
    timed = [example for example in examples if example.prediction_time]
    later: dict[str, list[_Told]] = {}
    before: list[_Told] = []
    for table, spec in product.spec.sources.items():
        if any(len(spec.key) == 1 or example.example_id.startswith(f"{table}/") for example in timed):
            later[table], early = _told(table, load_table(snapshot, table), spec, timed)
            before += early
    for fact in sorted({name for example in timed for name in example.facts}):
        if not any(_repeating(fact, before)):
            for table, told in later.items():
                for column in _repeating(fact, told):
                    yield (
                        f"fact '{fact}' repeats {table}.{column}, which became known only after the prediction: first "
                        f"'{told[0][0].example_id}'. Make the fact from rows known before the prediction."
                    )


def _told(
    table: str, rows: "pd.DataFrame", spec: SourceSpec, examples: Sequence[Example]
) -> tuple[list[_Told], list[_Told]]:
    """Each example with rows of a table, parted by whether they became known after the prediction or before.

    The row that an example was declared of is known by its id, whatever the key and the entity are; elsewhere it is the
    rows whose key is the entity.
    """
    own: _Called = {}
    about: _Called = {}
    if ids := {one.example_id for one in examples if one.example_id.startswith(f"{table}/")}:
        own = _rows_called(ids, rows, spec, lambda key: f"{table}/{row_name(key)}")
    if len(spec.key) == 1:
        about = _rows_called({one.entity for one in examples} - {""}, rows, spec, lambda key: spoken(key[0]))
    later: list[_Told] = []
    before: list[_Told] = []
    for example in examples:
        for known, row in own.get(example.example_id, about.get(example.entity, [])):
            part = later if known is not None and known > example.prediction_time else before
            part.append((example, row))
    return later, before


def _rows_called(
    names: Set[str], rows: "pd.DataFrame", spec: SourceSpec, call: Callable[[tuple[Any, ...]], str]
) -> _Called:
    """The rows whose key is called by one of the names: when each became known, and its cells.

    The cells are spelled as facts are; the key and the times of the row itself are not among them.
    """
    import numpy as np

    keys = zip(*(map(plain, rows[column].to_list()) for column in spec.key), strict=True)
    called = [call(key) for key in keys]
    chosen = np.array([name in names for name in called], bool)
    rows = rows[chosen]
    shown = rows[[name for name in spec.columns if name not in {*spec.key, spec.known_column, spec.event_time}]]
    cells = shown.astype(object).where(shown.notna(), None).to_dict("records")
    known = known_since(rows, spec)
    times = [None] * len(rows) if known is None else known.to_list()
    found: _Called = {}
    for name, time, row in zip(compress(called, chosen), times, cells, strict=True):
        spelled = {str(key): spoken(one) if isinstance(one, datetime) else one for key, one in row.items()}
        found.setdefault(name, []).append((time, spelled))
    return found


def _repeating(fact: str, told: Sequence[_Told]) -> Iterator[str]:
    """The columns that a fact repeats, wherever it is shown."""
    shown = [(example.facts[fact], row) for example, row in told if example.facts.get(fact) is not None]
    for column in sorted({column for _, row in shown for column in row}):
        if repeats([(value, row[column]) for value, row in shown if column in row]):
            yield column


def _pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            yield name, other


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
