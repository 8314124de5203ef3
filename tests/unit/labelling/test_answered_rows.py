"""What was said of answers is known from when it was heard, and nothing that comes later changes what was known."""

import json
import random
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.labelling import GivenLabel
from ml_platform.contracts.provenance import LoggedContract
from ml_platform.contracts.serving import ServingTime
from ml_platform.contracts.source import AnsweredSpec, Origin
from ml_platform.lineage.answered import AnsweredRow, AnswerHistory, known_at
from ml_platform.lineage.labels import LabelStore
from ml_platform.lineage.provenance.store import ProvenanceStore
from tests.samples.answered import ASKED, CLOCK, FLIGHT, RIGHT, answered, correction, fill
from tests.samples.provenance import PRODUCT, make_feedback, make_outcome, response_id_of

AGE = timedelta(hours=36)
EVERY = tuple(Origin)
FOREVER = datetime.fromisoformat("2100-01-01T00:00:00+00:00")


@pytest.fixture
def history(answers: ProvenanceStore, labels: LabelStore) -> AnswerHistory:
    return AnswerHistory(answers, labels)


def rows(
    history: AnswerHistory,
    cutoff: datetime = FOREVER,
    time: ServingTime = ServingTime.FEATURES,
    origins: tuple[Origin, ...] = EVERY,
    **spec: Any,
) -> list[AnsweredRow]:
    wanted = AnsweredSpec(kind="answered", origins=origins, **{"keep_days": 36_500.0, **spec})
    return history.rows(PRODUCT, wanted, time, AGE, cutoff)


def label(number: int, by: str = "ana", answer: str | None = json.dumps(RIGHT), **changes: Any) -> GivenLabel:
    plain = {
        "product": PRODUCT,
        "response_id": response_id_of(number),
        "labeller": by,
        "answer": answer,
        "reason": None if answer else "unclear",
        "labelled_at": CLOCK + timedelta(hours=1),
        "known_at": ASKED + timedelta(hours=1),
    }
    return GivenLabel(**{**plain, **changes})


def landed(number: int, late: bool = True, **changes: Any) -> LoggedContract:
    plain = {
        "entity": {"flight_id": FLIGHT},
        "occurred_at": ASKED + timedelta(hours=5),
        "received_at": CLOCK + timedelta(minutes=number),
        "values": {"late": late},
    }
    return make_outcome(number, **{**plain, **changes})


def test_a_correction_is_one_row_with_its_answer_and_its_times(
    history: AnswerHistory, answers: ProvenanceStore
) -> None:
    fill(answers, answered(1), correction(1), make_feedback(1, idempotency_key="thumb"))
    (row,) = rows(history)
    assert (row.origin, row.response_id, json.loads(row.said or "")) == ("correction", response_id_of(1), RIGHT)
    assert row.asked_at == ASKED
    assert row.known_at == ASKED + timedelta(microseconds=1)
    assert (row.by_model, row.nth_of_voice) == (True, 1)
    assert json.loads(row.entity or "") == {"flight_id": FLIGHT}
    assert list(json.loads(row.facts)) == list(answered(1).facts), "the model is shown facts in this order"


def test_by_our_clock_it_is_known_when_it_was_heard_and_never_before_the_answer(
    history: AnswerHistory, answers: ProvenanceStore
) -> None:
    skewed = correction(2, received_at=CLOCK - timedelta(hours=1))
    fill(answers, answered(1), correction(1), answered(2), skewed)
    found = {row.response_id: row for row in rows(history, time=ServingTime.CLOCK)}
    assert found[response_id_of(1)].known_at == CLOCK + timedelta(seconds=61)
    assert found[response_id_of(2)].known_at == found[response_id_of(2)].asked_at == CLOCK + timedelta(seconds=2)


def test_in_the_time_of_features_it_is_as_late_as_the_newest_answer_had_read(
    history: AnswerHistory, answers: ProvenanceStore
) -> None:
    later = ASKED + timedelta(days=1)
    blocked = [answered(number, features=None) for number in range(5, 30)]
    fill(answers, answered(1), answered(2, published_at=later), *blocked)
    fill(answers, correction(1, received_at=CLOCK + timedelta(seconds=1)), segment="2-a.wal")
    fill(answers, correction(1, idempotency_key="again", received_at=CLOCK + timedelta(hours=1)), segment="3-a.wal")
    first, second = sorted(row.known_at for row in rows(history))
    assert first == ASKED + timedelta(microseconds=1), "the later features were not online yet"
    assert second == later + timedelta(microseconds=1), "answers that read nothing tell no time"


def test_what_comes_later_changes_nothing_that_was_known(
    history: AnswerHistory, answers: ProvenanceStore, labels: LabelStore
) -> None:
    cutoff = ASKED + timedelta(days=2)
    fill(answers, answered(1), correction(1), answered(2), landed(1))
    labels.put(label(2))
    before = rows(history, cutoff)
    assert {row.origin for row in before} == {"correction", "label", "outcome"}
    later = cutoff + timedelta(hours=1)
    fill(answers, answered(100, published_at=later), correction(1, "other", idempotency_key="x", received_at=FOREVER))
    fill(answers, landed(2, late=False, idempotency_key="late news", occurred_at=later))
    labels.put(label(2, answer='{"intent": "why"}', known_at=later))
    assert rows(history, cutoff) == before
    assert len(rows(history)) > len(before)


def test_no_order_of_arrival_changes_a_row(history: AnswerHistory, answers: ProvenanceStore, tmp_path: Path) -> None:
    values = [one for number in range(20) for one in (answered(number), correction(number), landed(number))]
    fill(answers, *values)
    straight = rows(history, max_rows=7)
    assert len(straight) == 14
    url = f"sqlite:///{tmp_path / 'other.sqlite'}"
    random.Random(1).shuffle(values)  # noqa: S311 - any other order
    with closing(ProvenanceStore(url)) as other, closing(LabelStore(url)) as none:
        for number, value in enumerate(values):
            fill(other, value, segment=f"{number}.wal")
        assert rows(AnswerHistory(other, none), max_rows=7) == straight


def test_an_outcome_counts_once_its_answer_is_as_old_as_the_label_age(
    history: AnswerHistory, answers: ProvenanceStore
) -> None:
    fill(answers, answered(1), landed(1), landed(2, occurred_at=ASKED + timedelta(days=9), idempotency_key="late"))
    assert rows(history, ASKED + AGE - timedelta(seconds=1)) == []
    (row,) = rows(history, ASKED + AGE)
    assert (row.origin, row.said, row.known_at) == ("outcome", '{"late":true}', ASKED + AGE)
    assert len(rows(history, ASKED + timedelta(days=9))) == 2


def test_outcomes_join_by_response_too_and_by_nothing_of_another_product(
    history: AnswerHistory, answers: ProvenanceStore
) -> None:
    named = landed(1, entity={}, response_id=response_id_of(1))
    fill(answers, answered(1), named, landed(2, product="other_product"), answered(3, product="other_product"))
    fill(answers, correction(3, product="other_product"), correction(3, idempotency_key="mine"))
    assert [row.response_id for row in rows(history)] == [response_id_of(1)]


def test_what_is_said_of_an_answer_that_never_came_is_no_row_until_it_comes(
    history: AnswerHistory, answers: ProvenanceStore
) -> None:
    fill(answers, correction(1))
    assert rows(history) == []
    fill(answers, answered(1), segment="2-a.wal")
    assert len(rows(history)) == 1


def test_what_one_person_says_is_counted_and_names_nobody(history: AnswerHistory, answers: ProvenanceStore) -> None:
    same = "7" * 64
    for number in range(4):
        fill(answers, answered(number, user_sha256=same if number < 3 else None), correction(number))
    found = rows(history)
    assert sorted(row.nth_of_voice for row in found) == [1, 1, 2, 3]
    assert len({row.voice for row in found}) == 4, "no voice can be followed from one response to another"
    assert not [row for row in found if same in str(row)]


def test_only_what_is_wanted_is_there_and_nothing_older_than_is_kept(
    history: AnswerHistory, answers: ProvenanceStore, labels: LabelStore
) -> None:
    fill(answers, answered(1), correction(1), landed(1))
    labels.put(label(1))
    for origin in Origin:
        assert {row.origin for row in rows(history, origins=(origin,))} == {origin.value}
    week = ASKED + timedelta(days=7)
    assert rows(history, week, keep_days=6.9) == []
    assert len(rows(history, week, keep_days=7.1)) == 3


def test_a_label_is_known_when_it_was_given_in_the_products_time(
    history: AnswerHistory, answers: ProvenanceStore, labels: LabelStore
) -> None:
    fill(answers, answered(1), answered(2, published_at=ASKED + timedelta(hours=3)))
    record = answers.find(response_id_of(1))
    assert record is not None
    at = known_at(answers, record, CLOCK + timedelta(hours=9), ServingTime.FEATURES)
    assert at == ASKED + timedelta(hours=3, microseconds=1)
    labels.put(label(1, known_at=at))
    (row,) = rows(history)
    assert (row.origin, row.known_at) == ("label", at)
