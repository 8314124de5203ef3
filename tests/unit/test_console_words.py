"""Numbers, readings and times as people read them."""

from datetime import UTC, datetime, timedelta

import pytest

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitoring import ArmReading
from ml_platform.serving.gateway.console import words
from tests.samples.looks import make_look, make_reading

NOW = datetime(2013, 4, 1, 12, tzinfo=UTC)


def test_values_and_effects_have_their_units() -> None:
    rate, quantile, mean = (make_reading(name, 50) for name in ("error_rate", "latency_p95", "cost_per_answer"))
    assert words.value_words(0.0213, rate) == "2.1 %"
    assert words.value_words(0.0004, rate) == "0.04 %"
    assert words.effect_words(-0.013, rate) == "−1.3 points"
    assert words.value_words(1840.4, quantile) == "1,840 ms"
    assert words.effect_words(1.084, quantile) == "×1.08"
    assert words.value_words(0.000021, mean) == "$0.021 per 1,000"
    assert words.effect_words(0.0000004, mean) == "+$0.0004 per 1,000"
    assert words.value_words(None, rate) == words.effect_words(None, mean) == "–"


def test_bounds_name_the_one_that_is_there() -> None:
    reading = make_reading("error_rate", 50, effect=0.01, effect_lower=-0.02, effect_upper=0.03)
    assert words.bounds_words(reading) == "−2.0 to +3.0 points"
    assert words.short_bounds(reading) == "−2.0 to +3.0"
    assert words.bounds_words(reading.model_copy(update={"effect_lower": None})) == "at most +3.0 points"
    assert words.bounds_words(reading.model_copy(update={"effect_upper": None})) == "at least −2.0 points"
    nothing = reading.model_copy(update={"effect_lower": None, "effect_upper": None})
    assert words.bounds_words(nothing) == "no bound yet"


def test_production_alone_is_told_by_its_own_value_and_limit() -> None:
    alone = {"canary": None, "effect": None, "effect_lower": None, "effect_upper": None, "limit": 0.2}
    reading = make_reading("error_rate", 50, **alone)
    assert not words.compares(reading)
    assert words.shown_numbers(reading)[0] == reading.production.value  # type: ignore[union-attr]
    assert words.limit_words(reading) == "below 20.0 %"
    assert words.edge_words(0.2, reading) == "20 %"
    assert words.shown_numbers(reading.model_copy(update={"production": None})) == (None, None, None)


def test_an_arm_says_how_many_it_stands_on_and_how_many_have_a_label() -> None:
    reading = make_reading("missed_late_rate", 50)
    arm = ArmReading(users=1, answers=2, value=0.5, lower=None, upper=None, coverage=0.8)
    assert words.arm_words(arm, reading) == "50.0 % · 1 user, 80% labelled"
    assert words.short_arm(arm, reading) == "50.0 % (1)"
    assert words.arm_words(None, reading) == words.short_arm(None, reading) == "–"


@pytest.mark.parametrize(("value", "said"), [(1.34, "1.34, stops at 180"), (2e7, "over 10,000, stops at 180")])
def test_evidence_of_harm_is_told_beside_what_it_takes(value: float, said: str) -> None:
    assert words.evidence_words(make_reading("error_rate", 50, e_value=value)) == said
    assert words.evidence_words(make_reading("error_rate", 50, e_value=None)) is None


def test_what_a_metric_waits_for_is_told_without_its_name() -> None:
    reading = make_reading("error_rate", 50, waits_for="error_rate: about 31 more users in the canary")
    assert words.waits_words(reading) == "about 31 more users in the canary"
    assert words.waits_words(make_reading("error_rate", 50, waits_for=None)) is None


def test_the_gravest_verdicts_come_first() -> None:
    readings = tuple(
        make_reading("error_rate", 50, verdict=verdict)
        for verdict in (Verdict.PASS, Verdict.FAIL, Verdict.PASS, Verdict.INCONCLUSIVE)
    )
    look = make_look("a", NOW, decision={"readings": readings})
    assert list(words.verdicts(look.decision).items()) == [
        (Verdict.FAIL, 1),
        (Verdict.INCONCLUSIVE, 1),
        (Verdict.PASS, 2),
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "just now"), (0.4, "just now"), (3, "3 s ago"), (119, "119 s ago"), (180, "3 min ago"), (7300, "2 h ago")],
)
def test_how_long_ago_is_told_in_one_unit(seconds: float, said: str) -> None:
    assert words.ago(NOW - timedelta(seconds=seconds), NOW) == said


def test_a_look_that_is_old_says_that_nobody_looks() -> None:
    look = make_look("a", NOW)
    assert words.late_look(look, NOW + timedelta(seconds=10)) is None
    assert "the last look was 20 s ago" in (words.late_look(look, NOW + timedelta(seconds=20)) or "")
