"""What was answered live and what was then said of it, as rows of a snapshot: by whom, and when it became known.

Times are the product's own (serving.yaml, `time`). Where history is replayed faster than ours, what people say is
known a moment after the newest features that any answer had read by then: a correction of an answer that was given
right at a cutoff belongs to the next snapshot. Nothing that comes later can change what was known before.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from ml_platform.contracts.home import Home
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.contracts.serving import ServingTime
from ml_platform.contracts.source import AnsweredSpec, Origin
from ml_platform.lineage.databases import read_url
from ml_platform.lineage.labels import LabelStore
from ml_platform.lineage.provenance import heard
from ml_platform.lineage.provenance.store import ProvenanceStore

AT_ONCE = 500
A_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True)
class AnsweredRow:
    """One thing that was said of one answer; the columns of ANSWERED_COLUMNS.

    `voice` tells apart who spoke of one response and names nobody; `nth_of_voice` counts what the same person said of
    any response until then. `by_model` is False for what guardrails or fallbacks answered. `facts` is JSON in the
    order in which the model was shown them; `said` a right answer, or the values of an outcome as JSON.
    """

    said_id: str
    origin: str
    response_id: str
    release_id: str | None
    cohort: str
    entity: str | None
    asked_at: datetime
    known_at: datetime
    utterance: str
    facts: str
    answer: str
    by_model: bool
    voice: str
    nth_of_voice: int
    said: str | None


@dataclass(frozen=True)
class _Said:
    """What was said, before it is numbered: `person` is compared and never written down, `subject` draws lots."""

    row: AnsweredRow
    person: str
    subject: str


class AnswerHistory:
    """Everything said of a product's answers, from the store of records and the labels beside it."""

    def __init__(self, answers: ProvenanceStore, labels: LabelStore) -> None:
        self._answers, self._labels = answers, labels

    @classmethod
    @contextmanager
    def at(cls, home: Home) -> "Iterator[AnswerHistory | None]":
        """That of a home, closed at the end; None where nothing was ever recorded. Asking makes no store."""
        url = read_url(home.provenance_url, "store")
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            yield None
            return
        answers, labels = ProvenanceStore(home.provenance_url), LabelStore(home.provenance_url)
        with closing(answers), closing(labels):
            yield cls(answers, labels)

    def rows(
        self, product: str, spec: AnsweredSpec, time: ServingTime, label_age: timedelta, cutoff: datetime
    ) -> list[AnsweredRow]:
        """What was known at the cutoff, by `said_id`: the same whatever was said or recorded since.

        Raises StorageError and BusyError when the store does not answer: a snapshot must not depend on that.
        """
        oldest = cutoff - timedelta(days=spec.keep_days)

        def known(said: Iterable[_Said]) -> list[_Said]:
            return [one for one in said if one.row.known_at <= cutoff and one.row.asked_at >= oldest]

        found: list[AnsweredRow] = []
        if Origin.CORRECTION in spec.origins:
            found += _drawn(known(self._corrections(product, time)), spec.max_rows)
        if Origin.LABEL in spec.origins:
            found += _drawn(known(self._given(product, time)), spec.max_rows)
        if Origin.OUTCOME in spec.origins:
            said: list[_Said] = []
            for about in self._outcomes(product, time, label_age, cutoff):
                said += known(about)
                if len(said) >= spec.max_rows:
                    break
            found += _drawn(said, spec.max_rows)
        return sorted(found, key=lambda row: row.said_id)

    def _corrections(self, product: str, time: ServingTime) -> Iterator[_Said]:
        for page in heard.corrections(self._answers, product):
            records = heard.records_of(self._answers, product, [one.response_id or "" for one in page])
            for one in page:
                record = records.get(one.response_id or "")
                if record is not None:
                    known = known_at(self._answers, record, one.received_at, time)
                    person = record.user_sha256 or record.response_id
                    yield _said(Origin.CORRECTION, one.idempotency_key, record, known, person, one.text, time)

    def _given(self, product: str, time: ServingTime) -> Iterator[_Said]:
        given = self._labels.all(product)
        records = heard.records_of(self._answers, product, [label.response_id for label in given])
        for label in given:
            record = records.get(label.response_id)
            if record is not None:
                name = f"{label.labeller} {label.labelled_at.isoformat()} {label.said_sha256}"
                known = max(label.known_at, asked_at(record, time))
                yield _said(Origin.LABEL, name, record, known, label.labeller, label.answer, time)

    def _outcomes(self, product: str, time: ServingTime, age: timedelta, cutoff: datetime) -> Iterator[list[_Said]]:
        """What happened, of answers as old as the label age: earlier, only what happens soon would be known.

        In batches, in the order of a hash: whoever has enough need not read the rest.
        """
        subjects = sorted(heard.outcome_subjects(self._answers, product), key=_order)
        for start in range(0, len(subjects), AT_ONCE):
            batch = []
            for subject, one, record in heard.outcomes_about(self._answers, product, subjects[start : start + AT_ONCE]):
                mature = max(one.occurred_at, asked_at(record, time) + age)
                if mature <= cutoff:
                    known = max(mature, known_at(self._answers, record, one.received_at, time))
                    values = json.dumps(one.values, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
                    key = one.idempotency_key
                    batch.append(_said(Origin.OUTCOME, key, record, known, key, values, time, subject=subject))
            yield batch


def asked_at(record: ProvenanceRecord, time: ServingTime) -> datetime:
    """When a question was asked, in the product's time: that of the features which its answer read."""
    read = record.features.published_at if time is ServingTime.FEATURES and record.features else None
    return read or record.answered_at


def known_at(store: ProvenanceStore, record: ProvenanceRecord, heard_at: datetime, time: ServingTime) -> datetime:
    """When something that we heard of at `heard_at` became known, in the product's time; never before the question."""
    asked = asked_at(record, time)
    if time is ServingTime.CLOCK:
        return max(heard_at, asked)
    return max(heard.product_time(store, record.product, heard_at) or asked, asked) + A_MOMENT


def _said(
    origin: Origin,
    name: str,
    record: ProvenanceRecord,
    known: datetime,
    person: str,
    said: str | None,
    time: ServingTime,
    *,
    subject: str | None = None,
) -> _Said:
    row = AnsweredRow(
        said_id=f"{origin.value}/{record.response_id}/{hashlib.sha256(name.encode()).hexdigest()[:24]}",
        origin=origin.value,
        response_id=record.response_id,
        release_id=record.release_id,
        cohort=record.cohort.value,
        entity=record.entity_key,
        asked_at=asked_at(record, time),
        known_at=known,
        utterance=record.utterance,
        facts=json.dumps(record.facts, ensure_ascii=False, separators=(",", ":")),
        answer=record.answer,
        by_model=record.adapter is not None,
        voice=hashlib.sha256(f"{record.response_id}\n{person}".encode()).hexdigest()[:16],
        nth_of_voice=1,
        said=said,
    )
    return _Said(row, person, subject or record.response_id)


def _drawn(said: Iterable[_Said], most: int) -> list[AnsweredRow]:
    """At most so many rows, by a hash of what they are about; each with how many of them a person had said by then."""
    counts: Counter[str] = Counter()
    numbered = []
    for one in sorted(said, key=lambda one: (one.row.known_at, one.row.said_id)):
        counts[one.person] += 1
        numbered.append((_order(one.subject), replace(one.row, nth_of_voice=counts[one.person])))
    return [row for _, row in sorted(numbered, key=lambda pair: (pair[0], pair[1].said_id))[:most]]


def _order(subject: str) -> str:
    """Where a hash puts what something is about: a fair draw that no order of arrival can change."""
    return hashlib.sha256(f"answered\n{subject}".encode()).hexdigest()
