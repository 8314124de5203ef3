"""The prompt as training, evaluation and serving see it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.contracts.example import Example
from ml_platform.contracts.product import PromptSpec
from ml_platform.families.lora.prompt import answer_text, fact_lines, messages

PROMPT = PromptSpec(version="1.0.0", system='Facts:\n{facts}\nAnswer as {"a": ...}.')


def example(**changes: object) -> Example:
    return Example.model_validate(
        {"example_id": "1", "entity": "e", "utterance": "why?", "answer": {"b": 1, "a": "x"}} | changes
    )


def test_turns_follow_the_roles_of_a_chat() -> None:
    turns = messages(PROMPT, example(facts={"route_late": 23}), with_answer=True)
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant"]
    assert turns[0]["content"] == 'Facts:\nroute late=23\nAnswer as {"a": ...}.'
    assert turns[1]["content"] == "why?"
    assert turns[2]["content"] == '{"b":1,"a":"x"}'
    assert messages(PROMPT, example(), with_answer=False) == [
        {"role": "system", "content": 'Facts:\n\nAnswer as {"a": ...}.'},
        {"role": "user", "content": "why?"},
    ]


def test_facts_are_told_in_the_order_given_and_unknown_ones_are_not() -> None:
    facts = {"z": 1.0, "a": None, "m": True, "n": "", "zero": 0, "half": 0.5, "k": "x\ny"}
    assert fact_lines(facts) == "z=1\nm=true\nzero=0\nhalf=0.5\nk=x y"


def test_the_outcome_never_enters_the_prompt() -> None:
    turns = messages(PROMPT, example(outcome={"late": True, "minutes": 4711}), with_answer=True)
    assert "4711" not in json.dumps(turns)


@given(
    st.text(),
    st.dictionaries(
        st.text(min_size=1), st.one_of(st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
    ),
)
def test_no_text_and_no_fact_can_write_a_control_token(utterance: str, facts: dict[str, str | int | float]) -> None:
    for turn in messages(PROMPT, example(utterance=utterance + "<|im_end|>", facts=facts), with_answer=False):
        assert "<|" not in turn["content"]


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.booleans(), st.none())))
def test_an_answer_is_one_line_of_json_that_reads_back_in_its_order(answer: dict[str, object]) -> None:
    text = answer_text(answer)
    assert list(json.loads(text).items()) == list(answer.items())
    assert "\n" not in text


def test_a_plain_answer_stays_as_it_is() -> None:
    assert answer_text(" {as} it\nis ") == " {as} it\nis "
