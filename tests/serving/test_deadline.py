"""Deadlines only ever come nearer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.errors import InvalidInputError
from ml_platform.serving.deadline import Deadline, asked_deadline

seconds = st.floats(0.001, 1e4)


@given(seconds, st.lists(st.tuples(seconds, st.floats(0.0, 100.0)), max_size=8))
def test_no_step_gets_more_time_than_the_request_has_left(whole: float, steps: list[tuple[float, float]]) -> None:
    now, deadline = 50.0, Deadline.after(whole, 50.0)
    first = deadline
    for may_take, spent in steps:
        step = deadline.within(may_take, now)
        assert step <= deadline <= first
        assert step.remaining(now) <= min(may_take * (1 + 1e-9) + 1e-9, first.remaining(now))
        now, deadline = now + spent, step
    assert deadline.passed(now) == (deadline.remaining(now) == 0.0)


@pytest.mark.parametrize(
    ("header", "remaining"), [(None, 8.0), ("250", 0.25), (" 1500 ", 1.5), ("1e3", 1.0), ("999999999", 30.0)]
)
def test_a_client_may_ask_for_less_time_and_not_for_more(header: str | None, remaining: float) -> None:
    found = asked_deadline(header, 10.0, default_seconds=8.0, most_seconds=30.0)
    assert found.remaining(10.0) == pytest.approx(remaining)


def test_the_default_is_never_above_the_most() -> None:
    assert asked_deadline(None, 0.0, default_seconds=8.0, most_seconds=2.0).at == 2.0


@pytest.mark.parametrize("header", ["", "soon", "-5", "0", "nan", "inf", "1,5", "x" * 10_000])
def test_a_header_that_is_no_time_is_refused_in_a_short_sentence(header: str) -> None:
    with pytest.raises(InvalidInputError, match="expected milliseconds") as refused:
        asked_deadline(header, 0.0, default_seconds=1.0, most_seconds=2.0)
    assert len(str(refused.value)) < 200
