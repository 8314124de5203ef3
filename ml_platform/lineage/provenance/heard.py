"""What the store heard of answers, looked up for snapshots: corrections, outcomes, how late it was."""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select, tuple_

from ml_platform.contracts.provenance import Feedback, FeedbackKind, Outcome, ProvenanceRecord
from ml_platform.lineage.provenance.schema import feedback, outcomes, responses
from ml_platform.lineage.provenance.store import PAGE, ProvenanceStore, record_of
from ml_platform.lineage.provenance.writing import microseconds

SUBJECTS = 20_000
"""Names read at once: short texts, not records."""
IS_CORRECTION = f'%"kind":"{FeedbackKind.CORRECTION.value}"%'
"""Quotes inside of texts are escaped, so only the key itself looks like this."""


def corrections(store: ProvenanceStore, product: str) -> Iterator[list[Feedback]]:
    """Every correction of a response of this product, in pages, in the order in which they were heard."""
    query = select(feedback).where(
        feedback.c.product == product, feedback.c.response_id.is_not(None), feedback.c.content.like(IS_CORRECTION)
    )
    for said in _feedback(store, query, -1):
        yield [one for one in said if one.kind is FeedbackKind.CORRECTION]


def records_of(store: ProvenanceStore, product: str, response_ids: Sequence[str]) -> dict[str, ProvenanceRecord]:
    """The records of these responses, as far as the store has them and they are of this product."""
    wanted, found = sorted(set(response_ids)), {}
    for start in range(0, len(wanted), PAGE):
        named = responses.c.response_id.in_(wanted[start : start + PAGE])
        query = select(responses.c.content, responses.c.sha256, responses.c.response_id)
        for row in store.rows(query.where(named, responses.c.product == product)):
            found[row.response_id] = record_of(row.content, row.sha256, row.response_id)
    return found


def outcome_subjects(store: ProvenanceStore, product: str) -> set[str]:
    """What outcomes of this product are about, each once: `response_id`s and entities as text, in no order."""
    query = select(outcomes.c.number, outcomes.c.response_id, outcomes.c.entity).where(outcomes.c.product == product)
    last, found = 0, set[str]()
    while rows := store.rows(query.where(outcomes.c.number > last).order_by(outcomes.c.number).limit(SUBJECTS)):
        found.update(row.response_id or row.entity for row in rows)
        last = rows[-1].number
    return found


def outcomes_about(
    store: ProvenanceStore, product: str, subjects: Sequence[str]
) -> list[tuple[str, Outcome, ProvenanceRecord]]:
    """The outcomes about these, with each answer that they are joined to: by its response, or by its entity."""
    heard_of: list[tuple[str, Outcome, ProvenanceRecord]] = []
    for start in range(0, len(subjects), PAGE):
        page = subjects[start : start + PAGE]
        said = []
        for column, other in ((outcomes.c.response_id, None), (outcomes.c.entity, outcomes.c.response_id)):
            named = (outcomes.c.product == product) & column.in_(page)
            query = select(outcomes.c.content).where(named if other is None else named & other.is_(None))
            said += [Outcome.from_log(row.content) for row in store.rows(query)]
        by_id = records_of(store, product, [one.response_id for one in said if one.response_id])
        by_entity: dict[str | None, list[ProvenanceRecord]] = {}
        query = select(responses.c.content, responses.c.sha256, responses.c.response_id)
        for row in store.rows(query.where(responses.c.product == product, responses.c.entity.in_(page))):
            record = record_of(row.content, row.sha256, row.response_id)
            by_entity.setdefault(record.entity_key, []).append(record)
        for one in said:
            if one.response_id:
                heard_of += [(one.response_id, one, by_id[one.response_id])] if one.response_id in by_id else []
            else:
                heard_of += [(one.entity_key or "", one, record) for record in by_entity.get(one.entity_key, ())]
    return heard_of


def product_time(store: ProvenanceStore, product: str, moment: datetime) -> datetime | None:
    """How late it was for a product that lives in the time of its features: that of the newest answer until `moment`
    that read any; None before the first."""
    query = select(responses).where(responses.c.product == product, responses.c.answered_us <= microseconds(moment))
    place = (responses.c.answered_us, responses.c.number)
    query, at_once = query.order_by(*(column.desc() for column in place)), 1  # nearly every answer has read some
    while rows := store.rows(query.limit(at_once)):
        for row in rows:
            read = record_of(row.content, row.sha256, row.response_id).features
            if read is not None and read.published_at is not None:
                return read.published_at
        query, at_once = query.where(tuple_(*place) < (rows[-1].answered_us, rows[-1].number)), PAGE
    return None


def said_since(store: ProvenanceStore, product: str, since: datetime) -> Iterator[list[Feedback]]:
    """All feedback on responses of this product that was heard since then, in pages, in the order in which it came."""
    query = select(feedback).where(feedback.c.product == product, feedback.c.response_id.is_not(None))
    yield from _feedback(store, query, microseconds(since) - 1)


def _feedback(store: ProvenanceStore, query: Select[Any], after_us: int) -> Iterator[list[Feedback]]:
    query = query.order_by(feedback.c.received_us, feedback.c.number).limit(PAGE)
    last = (after_us, sys.maxsize)
    while rows := store.rows(query.where(tuple_(feedback.c.received_us, feedback.c.number) > last)):
        yield [Feedback.from_log(row.content) for row in rows]
        last = (rows[-1].received_us, rows[-1].number)
