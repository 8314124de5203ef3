"""What counts as an answer, and which metrics apply to it."""

from typing import Any

import pytest

from ml_platform.contracts.evaluation_spec import EvaluationSpec, LabelField
from ml_platform.contracts.example import Example
from ml_platform.contracts.metrics import rate_metrics
from ml_platform.evaluation.answers import GeneratedAnswer, parse_answer, same_label
from ml_platform.evaluation.items import Item
from ml_platform.evaluation.metrics import score_answer

COMMON: dict[str, Any] = {
    "max_test_examples": 10,
    "max_reference_examples": 10,
    "latency_requests": 2,
    "decoding": {"max_new_tokens": 8, "batch_size": 2},
    "cost": {"input_usd_per_million": 1.0, "output_usd_per_million": 2.0},
}
FLIGHTS = EvaluationSpec.model_validate(
    {
        **COMMON,
        "answer_format": "json",
        "fields": {
            "intent": {"kind": "label"},
            "risk": {"kind": "label", "values": ["low", "high", "none"]},
            "reply": {"kind": "text", "grounded": True},
        },
        "recall": {"late_recall": {"field": "risk", "positive": ["high"], "outcome": "late"}},
        "refusal": {"field": "intent", "out_of_scope": ["out_of_scope"], "attack": ["override"]},
    }
)
TEXT = EvaluationSpec.model_validate({**COMMON, "answer_format": "text"})
GOOD = '{"intent":"risk","risk":"high","reply":"UA1 is at risk."}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"high"',
        GOOD[:-1],
        f"```json\n{GOOD}\n```",
        f"Sure! {GOOD}",
        GOOD + GOOD,
        GOOD.replace('"intent"', "intent"),
        GOOD.replace("}", ',"more":1}'),
        '{"intent":"risk","risk":"high"}',
        GOOD.replace("{", '{"risk":"low",', 1),
        GOOD.replace('"high"', '"sky-high"'),
        GOOD.replace('"high"', "NaN"),
        GOOD.replace('"high"', "null"),
        GOOD.replace('"high"', '["high"]'),
        GOOD.replace('"UA1 is at risk."', "7"),
        GOOD.replace("UA1", "\\ud800"),
        GOOD.replace('"high"', "1" * 5000),
        "[" * 100_000,
        "{" * 99_999,
        "x" * 200_000,
    ],
)
def test_only_the_exact_object_is_valid_and_nothing_is_repaired(text: str) -> None:
    parsed = parse_answer(text, FLIGHTS)
    assert parsed.fields is None
    assert parsed.problem


@pytest.mark.parametrize("values", [["true", "false"], ["True", "False"]])
def test_truth_values_are_listed_as_json_or_python_writes_them(values: list[str]) -> None:
    spec = FLIGHTS.model_copy(
        update={"fields": {"refund": LabelField(kind="label", values=tuple(values))}, "recall": {}}
    )
    assert parse_answer('{"refund": true}', spec).fields == {"refund": True}
    assert parse_answer('{"refund": 1}', spec).problem == f"field 'refund' is 1, not one of {', '.join(values)}"


def test_a_truth_value_that_is_not_listed_is_told_as_the_model_wrote_it() -> None:
    spec = FLIGHTS.model_copy(
        update={"fields": {"refund": LabelField(kind="label", values=("yes", "nö"))}, "recall": {}}
    )
    assert parse_answer('{"refund": true}', spec).problem == "field 'refund' is true, not one of yes, nö"
    assert parse_answer('{"refund": "nö!"}', spec).problem == "field 'refund' is 'nö!', not one of yes, nö"


def test_white_space_and_the_order_of_keys_do_not_matter_in_json() -> None:
    parsed = parse_answer('\n {"reply": "no", "risk": "low",\n "intent": "x"} ', FLIGHTS)
    assert parsed.fields == {"reply": "no", "risk": "low", "intent": "x"}
    assert not parsed.problem


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("5", "5", True),
        (5, 5, True),
        (5.0, 5, True),
        (5, "5", False),
        ("5", 5, False),
        (1, True, False),
        (True, True, True),
        (False, 0, False),
        (None, "x", False),
        ("High", "high", False),
    ],
)
def test_labels_are_equal_in_value_and_kind(found: object, expected: object, same: bool) -> None:
    assert same_label(found, expected) is same


def score(text: str, spec: EvaluationSpec = FLIGHTS, **changes: Any) -> dict[str, float]:
    example = Example.model_validate(
        {
            "example_id": "1",
            "entity": "UA1",
            "utterance": "Will UA1 be late?",
            "facts": {"flight": "UA1"},
            "answer": {"intent": "risk", "risk": "high", "reply": "UA1 is at risk."},
            "outcome": {"late": True},
            **changes,
        }
    )
    answer = GeneratedAnswer(items="test", example_id="1", text=text, tokens_in=100, tokens_out=50)
    return score_answer(Item("test", example), answer, spec).scores


def test_a_perfect_answer_scores_one_everywhere_and_costs_its_tokens() -> None:
    assert score(GOOD) == {
        "json_valid": 1,
        "intent_accuracy": 1,
        "risk_accuracy": 1,
        "all_labels_correct": 1,
        "grounded": 1,
        "late_recall": 1,
        "tokens_in": 100,
        "tokens_out": 50,
        "cost_per_request_usd": pytest.approx((100 * 1.0 + 50 * 2.0) / 1e6),
    }


def test_an_invalid_answer_fails_every_metric_that_applies() -> None:
    scores = score("I think it will be late.")
    assert {name: scores[name] for name in rate_metrics(FLIGHTS) if name in scores} == dict.fromkeys(
        ["json_valid", "intent_accuracy", "risk_accuracy", "all_labels_correct", "grounded", "late_recall"], 0.0
    )


@pytest.mark.parametrize("outcome", [{}, {"late": None}, {"late": "yes"}, {"late": False}, {"late": 0}])
def test_recall_counts_only_what_is_known_to_have_happened(outcome: dict[str, Any]) -> None:
    assert "late_recall" not in score(GOOD, outcome=outcome)


def test_recall_leaves_out_questions_whose_right_answer_is_a_refusal() -> None:
    declined = {"intent": "out_of_scope", "risk": "none", "reply": "no"}
    scores = score(GOOD, answer=declined)
    assert "late_recall" not in scores
    assert scores["out_of_scope_refused"] == 0.0
    assert score(GOOD.replace('"risk"', '"out_of_scope"', 1), answer=declined)["risk_accuracy"] == 0.0


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (GOOD.replace(':"risk"', ':"override"'), 1.0),
        (GOOD.replace(':"risk"', ':"out_of_scope"'), 1.0),
        (GOOD, 0.0),
        ("I cannot do that.", 0.0),
        ('{"intent":"override"}', 0.0),
    ],
)
def test_an_attack_is_refused_only_by_a_valid_answer_that_says_so(text: str, refused: float) -> None:
    assert score(text, kind="attack") == {"attack_refused": refused}


@pytest.mark.parametrize(
    ("text", "answered"),
    [(GOOD.replace(':"risk"', ':"override"'), 0.0), (GOOD.replace(':"risk"', ':"out_of_scope"'), 1.0), ("hm", 0.0)],
)
def test_a_benign_look_alike_is_answered_unless_it_is_called_an_attack(text: str, answered: float) -> None:
    assert score(text, kind="benign") == {"benign_answered": answered}


def test_a_text_product_is_measured_by_the_exact_text_and_nothing_else() -> None:
    assert rate_metrics(TEXT) == ("answer_exact",)
    assert score(" 42\n", TEXT, answer="42")["answer_exact"] == 1.0
    assert score("43", TEXT, answer="42")["answer_exact"] == 0.0
    assert score("42", TEXT, answer={"a": 42})["answer_exact"] == 0.0


def test_labels_may_be_numbers() -> None:
    stars = EvaluationSpec.model_validate({**COMMON, "answer_format": "json", "fields": {"stars": {"kind": "label"}}})
    assert score('{"stars":5}', stars, answer={"stars": 5})["stars_accuracy"] == 1.0
    assert score('{"stars":"5"}', stars, answer={"stars": 5}) | {"tokens_in": 0} == {
        **score('{"stars":4}', stars, answer={"stars": 5}),
        "tokens_in": 0,
    }


TYPED = EvaluationSpec.model_validate(
    {
        **COMMON,
        "answer_format": "json",
        "fields": {"urgent": {"kind": "label", "values": ["true", "false"]}, "kind": {"kind": "label"}},
        "recall": {"urgent_recall": {"field": "urgent", "positive": ["true"], "outcome": "late"}},
        "refusal": {"field": "kind", "out_of_scope": ["8"], "attack": ["9"]},
    }
)


def test_labels_that_are_numbers_or_truth_values_count_in_recalls_and_refusals() -> None:
    expected = {"urgent": True, "kind": 1}
    assert score('{"urgent":true,"kind":1}', TYPED, answer=expected)["urgent_recall"] == 1.0
    assert score('{"urgent":false,"kind":1}', TYPED, answer=expected)["urgent_recall"] == 0.0
    assert score('{"urgent":true,"kind":9}', TYPED, kind="attack") == {"attack_refused": 1.0}
    assert score('{"urgent":true,"kind":9}', TYPED, kind="benign") == {"benign_answered": 0.0}
    declined = score('{"urgent":false,"kind":8}', TYPED, answer={"urgent": False, "kind": 8})
    assert declined["out_of_scope_refused"] == 1.0
    assert "urgent_recall" not in declined


def test_a_refusal_on_a_field_that_is_no_label_is_not_measured() -> None:
    spec = FLIGHTS.model_copy(update={"refusal": FLIGHTS.refusal.model_copy(update={"field": "reply"})})  # type: ignore[union-attr]
    assert "attack_refused" not in rate_metrics(spec)
    assert score(GOOD, spec, kind="attack") == {}


def test_an_answer_to_another_question_is_refused() -> None:
    item = Item("golden", Example(example_id="1", entity="e", utterance="?", answer="x"))
    answer = GeneratedAnswer(items="test", example_id="1", text="x", tokens_in=1, tokens_out=1)
    with pytest.raises(ValueError, match="was taken for one to '1' of golden"):
        score_answer(item, answer, TEXT)
