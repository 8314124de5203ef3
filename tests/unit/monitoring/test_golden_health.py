"""Golden sets: their age, what they cover of what users ask, and when somebody should look."""

from datetime import UTC, date, datetime

from ml_platform.contracts.example import Example
from ml_platform.monitoring.golden import assess_golden


def question(day: int | None, kind: str = "answer") -> Example:
    return Example.model_validate(
        {
            "example_id": f"{kind} {day}",
            "kind": kind,
            "entity": f"{kind} {day}",
            "prediction_time": None if day is None else datetime(2013, 3, day, tzinfo=UTC),
            "utterance": "Will it be late?",
            "answer": "Yes.",
        }
    )


def test_a_set_is_as_old_as_its_newest_question() -> None:
    found = assess_golden("answers", "1.0.0", [question(1), question(20), question(None)], date(2013, 3, 31), 0.9)
    assert (found.newest, found.age_days, found.examples, found.warning) == (date(2013, 3, 20), 11, 3, None)


def test_an_old_set_and_one_that_covers_little_warn_and_say_what_to_do() -> None:
    found = assess_golden("answers", "1.0.0", [question(1)], date(2013, 12, 31), 0.31)
    assert found.warning == (
        "golden set answers: its newest question is 305 days old and only 31% of what users ask resembles one of its "
        "questions. Add newer questions (mlp label next), or gates judge by old ones."
    )


def test_without_live_questions_or_times_there_is_nothing_to_warn_of() -> None:
    found = assess_golden("answers", "1.0.0", [question(None)], date(2013, 12, 31), None)
    assert (found.newest, found.age_days, found.coverage, found.warning) == (None, None, None, None)


def test_attacks_do_not_age() -> None:
    found = assess_golden("attacks", "1.0.0", [question(1, "attack")], date(2015, 1, 1), None)
    assert (found.newest, found.warning, found.examples) == (None, None, 1)


def test_questions_from_after_the_day_make_no_negative_age() -> None:
    assert assess_golden("answers", "1.0.0", [question(20)], date(2013, 3, 1), 1.0).age_days == 0
