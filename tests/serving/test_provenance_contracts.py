"""A record says what produced an answer, and is read back as it was written."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ml_platform.contracts.provenance import (
    FeaturesRead,
    Feedback,
    FeedbackKind,
    Outcome,
    ProvenanceRecord,
    RecordedError,
    Timings,
    entity_key,
)
from ml_platform.contracts.routing import Cohort, RouteReason
from ml_platform.errors import ContractError, IntegrityError
from tests.samples.provenance import NOW, make_feedback, make_outcome, make_record

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
finite = st.floats(allow_nan=False, allow_infinity=False)
name = st.from_regex(r"\A[a-z][a-z0-9_]{0,20}\Z")
moment = st.datetimes(timezones=st.just(UTC))
scalar = st.booleans() | st.integers(-(2**53), 2**53) | finite | text


@st.composite
def features(draw: st.DrawFn) -> FeaturesRead:
    values = draw(st.dictionaries(name, st.none() | scalar, max_size=4))
    return FeaturesRead(
        service=draw(text),
        definitions_sha256="e" * 64,
        read_at=draw(moment),
        keys=draw(st.dictionaries(name, st.integers(-(2**53), 2**53) | text, max_size=3)),
        values=values,
        event_at={known: draw(st.none() | moment) for known in values},
    )


records = st.builds(
    make_record,
    st.integers(0, 10**6),
    answered_at=moment,
    utterance=text,
    answer=text,
    features=st.none() | features(),
    cost_usd=st.floats(0, 1e6),
    timings=st.builds(Timings, queue_ms=st.none() | st.floats(0, 1e9), total_ms=st.floats(0, 1e9)),
    errors=st.lists(st.builds(RecordedError, kind=name, message=text), max_size=2).map(tuple),
)


@given(records)
def test_a_record_is_read_back_from_the_log_as_it_was(record: ProvenanceRecord) -> None:
    written = record.log_bytes()
    again = ProvenanceRecord.from_log(written)
    assert again == record
    assert again.log_bytes() == written


@given(records)
def test_the_quick_bytes_say_what_the_canonical_ones_say(record: ProvenanceRecord) -> None:
    assert json.loads(record.log_bytes()) == json.loads(record.canonical_bytes())


def test_what_is_no_record_is_not_read_as_one() -> None:
    for data in (b"", b"{}", b"[1]", b"\xff", make_feedback(1).log_bytes(), make_record(1).log_bytes()[:-1]):
        with pytest.raises(IntegrityError, match="a logged ProvenanceRecord"):
            ProvenanceRecord.from_log(data)


def test_half_a_surrogate_pair_is_refused_in_words() -> None:
    with pytest.raises(ContractError, match="half a surrogate pair"):
        make_record(1, utterance="late \ud83d?").log_bytes()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"cohort": Cohort.SHADOW}, "shadow_of"),
        ({"shadow_of": "resp_12345678"}, "shadow_of"),
        ({"release_id": None}, "contradicts route_reason"),
        ({"route_reason": RouteReason.NOTHING_SERVES}, "contradicts route_reason"),
        ({"response_id": "short"}, "response_id"),
        ({"response_id": 'resp_"quoted"'}, "response_id"),
        ({"exposure": 1.01}, "exposure"),
        ({"cost_usd": float("nan")}, "cost_usd"),
        ({"answered_at": datetime(2013, 4, 1)}, "answered_at"),  # noqa: DTZ001 - what is refused
        ({"user_sha256": "alice"}, "user_sha256"),
        ({"timings": {"total_ms": -1.0}}, "total_ms"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        make_record(1, **changes)


def test_a_fallback_may_come_from_no_release_and_a_shadow_names_its_response() -> None:
    assert make_record(1, route_reason=RouteReason.NOTHING_SERVES, release_id=None, adapter=None).release_id is None
    assert make_record(1, cohort=Cohort.SHADOW, shadow_of="resp_12345678").shadow_of == "resp_12345678"


def test_each_value_of_a_feature_has_its_time() -> None:
    with pytest.raises(ValidationError, match="wind_mph"):
        FeaturesRead(
            service="s", definitions_sha256="e" * 64, read_at=NOW, keys={}, values={"wind_mph": 3.0}, event_at={}
        )


def test_feedback_and_outcomes_are_about_something() -> None:
    with pytest.raises(ValidationError, match="name what this is about"):
        make_feedback(1, response_id=None)
    with pytest.raises(ValidationError, match="name what this is about"):
        make_outcome(1, entity={})
    with pytest.raises(ValidationError, match="a correction needs its text"):
        make_feedback(1, kind=FeedbackKind.CORRECTION)
    with pytest.raises(ValidationError, match="values"):
        make_outcome(1, values={})


def test_what_is_sent_again_says_the_same_whenever_it_is_received() -> None:
    for value in (make_feedback(1), make_outcome(1)):
        later = value.model_copy(update={"received_at": value.received_at + timedelta(days=3)})
        assert later.said_sha256 == value.said_sha256
    assert make_feedback(1).said_sha256 != make_feedback(1, kind=FeedbackKind.THUMBS_DOWN).said_sha256
    assert make_outcome(1).said_sha256 != make_outcome(1, values={"arrival_delay_min": 41}).said_sha256


def test_what_was_said_is_read_back_as_it_was() -> None:
    assert Feedback.from_log(make_feedback(1).log_bytes()) == make_feedback(1)
    assert Outcome.from_log(make_outcome(1).log_bytes()) == make_outcome(1)
    assert {kind for kind in FeedbackKind if kind.explicit} == {"thumbs_up", "thumbs_down", "correction"}


def test_equal_entities_have_equal_keys_and_others_others() -> None:
    assert entity_key({"a": 1, "b": "x"}) == entity_key({"b": "x", "a": 1})
    assert entity_key({"a": 1}) != entity_key({"a": "1"})
    assert entity_key({}) is None
