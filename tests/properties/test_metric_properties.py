"""What must hold of every text that a model can produce."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.example import Example
from ml_platform.contracts.metrics import QUANTITIES, rate_metrics
from ml_platform.evaluation.answers import GeneratedAnswer, parse_answer
from ml_platform.evaluation.drawing import printable
from ml_platform.evaluation.groundedness import is_grounded, ungrounded
from ml_platform.evaluation.items import Item
from ml_platform.evaluation.measurements import measure_answers
from ml_platform.evaluation.metrics import score_answer

SPEC = EvaluationSpec.model_validate(
    {
        "answer_format": "json",
        "fields": {"intent": {"kind": "label"}, "reply": {"kind": "text", "grounded": True}},
        "recall": {"recall": {"field": "intent", "positive": ["warn"], "outcome": "came"}},
        "refusal": {"field": "intent", "out_of_scope": ["no"], "attack": ["attack"]},
        "max_test_examples": 10,
        "max_reference_examples": 10,
        "latency_requests": 1,
        "decoding": {"max_new_tokens": 8, "batch_size": 1},
        "cost": {"input_usd_per_million": 1.0, "output_usd_per_million": 1.0},
    }
)
facts = st.one_of(
    st.integers(-10_000, 10_000),
    st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3)),
    st.from_regex(r"[A-Z]{2}[0-9]{2,4}|[A-Z]{3}|[01][0-9]:[0-5][0-9]|20[0-9]{2}-0[1-9]-[12][0-9]", fullmatch=True),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["intent", "reply", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def scored(text: str, kind: str, answer: Any, outcome: dict[str, Any]) -> Any:
    example = Example.model_validate(
        {"example_id": "1", "kind": kind, "entity": "e", "utterance": "?", "answer": answer, "outcome": outcome}
    )
    given_answer = GeneratedAnswer(items="test", example_id="1", text=text, tokens_in=3, tokens_out=4)
    return score_answer(Item("test", example), given_answer, SPEC)


texts = st.text(max_size=60) | json_values.map(json.dumps)
kinds = st.sampled_from(["answer", "attack", "benign"])


@given(texts, kinds, json_values.filter(lambda v: isinstance(v, dict | str)), st.dictionaries(st.just("came"), facts))
def test_any_text_gets_scores_between_zero_and_one_and_never_an_exception(
    text: str, kind: str, answer: Any, outcome: dict[str, Any]
) -> None:
    one = scored(text, kind, answer, outcome)
    assert set(one.scores) <= {*rate_metrics(SPEC), *QUANTITIES}
    assert all(one.scores[metric] in (0.0, 1.0) for metric in rate_metrics(SPEC) if metric in one.scores)
    for found in measure_answers([one], SPEC, 0.95):
        assert (found.value is None) == (found.n == 0) or found.metric == "cost_per_correct_answer_usd"
        if found.n and found.unit == "share" and found.value == 1.0:
            assert found.low is not None
            assert found.low < 0.06, "one answer proves next to nothing"


@given(texts)
def test_a_valid_answer_has_exactly_the_fields_and_stays_valid_when_written_again(text: str) -> None:
    parsed = parse_answer(text, SPEC)
    assert (parsed.fields is None) == bool(parsed.problem)
    if parsed.fields is not None:
        assert set(parsed.fields) == set(SPEC.fields)
        assert parse_answer(json.dumps(dict(parsed.fields)), SPEC).fields == parsed.fields


@given(st.lists(facts, min_size=1, max_size=4))
def test_whatever_only_repeats_facts_is_grounded(values: list[Any]) -> None:
    named = {f"fact_{'abcd'[index]}": value for index, value in enumerate(values)}
    reply = "; then ".join(f"{value:f}" if isinstance(value, float) else str(value) for value in values)
    assert ungrounded(reply, named, "") == ()


@given(st.lists(st.integers(0, 500), max_size=4), st.integers(501, 99_999))
def test_a_number_that_no_fact_holds_is_never_grounded(known: list[int], invented: int) -> None:
    named = {f"fact_{'abcd'[index]}": value for index, value in enumerate(known)}
    assert not is_grounded(f"It takes {invented} minutes.", named, "how long?")
    assert not is_grounded(f"It takes {invented:,} minutes.", named, "how long?")


@settings(max_examples=50)
@given(st.lists(facts, max_size=3), st.text(max_size=40), facts)
def test_more_facts_never_make_a_grounded_reply_ungrounded(values: list[Any], reply: str, more: Any) -> None:
    named = {f"fact_{'abc'[index]}": value for index, value in enumerate(values)}
    if is_grounded(reply, named, ""):
        assert is_grounded(reply, {**named, "more": more}, "")


@given(st.text())
def test_shown_text_holds_no_character_that_acts(text: str) -> None:
    assert not {character for character in printable(text) if ord(character) < 32 or character in "\u202e\u2066\ufeff"}


@pytest.mark.parametrize(
    "piece", ["9", "1,", "A1 ", "5:", "-", "one ", " 5 am", "AB", "twenty-", "1.", "$", "2013-01-"]
)
def test_reading_a_reply_takes_time_in_proportion_to_its_length(piece: str) -> None:
    """No repetition of a piece makes the patterns backtrack: 50,000 characters in well under a second each."""
    started = time.process_time()
    ungrounded(piece * (50_000 // len(piece)), {"fact": 1}, "")
    assert time.process_time() - started < 3.0
