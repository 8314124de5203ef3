"""What one answer shows: each case is a sentence about a record."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.guardrails import GuardrailVerdict, Stage
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.provenance import FeedbackKind, RecordedError, Timings
from ml_platform.contracts.routing import Cohort, RouteReason
from ml_platform.monitoring.signals import is_disliked, judged_signals, said_positive, signals_of
from tests.samples.observed import answer, make_answer, serving_content
from tests.samples.provenance import RELEASES, make_feedback, make_record

SPEC = serving_content().evaluation
CANARY = RELEASES[1]
BAD = (
    Signal.ERROR,
    Signal.INVALID,
    Signal.UNGROUNDED,
    Signal.REFUSED,
    Signal.BLOCKED,
    Signal.UNSAFE,
    Signal.DISLIKED,
)


def verdict(guardrail: str, stage: Stage = Stage.OUTPUT, found: Verdict = Verdict.FAIL) -> GuardrailVerdict:
    return GuardrailVerdict(guardrail=guardrail, stage=stage, verdict=found)


def passed(*names: str) -> tuple[GuardrailVerdict, ...]:
    return tuple(verdict(name, Stage.OUTPUT, Verdict.PASS) for name in names)


def failure(kind: str, message: str = "") -> RecordedError:
    return RecordedError(kind=kind, message=message)


FELL_BACK: dict[str, Any] = {"cohort": Cohort.CANARY, "release_id": RELEASES[0], "route_reason": RouteReason.FELL_BACK}
NOTHING: dict[str, Any] = {
    "cohort": Cohort.CANARY,
    "release_id": None,
    "route_reason": RouteReason.NOTHING_SERVES,
    "adapter": None,
}


@dataclass(frozen=True)
class Case:
    name: str
    record: dict[str, Any]
    bad: set[Signal] = field(default_factory=set)
    unknown: set[Signal] = field(default_factory=set)


OF_TEXT = {Signal.INVALID, Signal.UNGROUNDED, Signal.REFUSED}
GUARDED = {Signal.BLOCKED, Signal.UNSAFE}
CASES = [
    Case("a good answer shows nothing bad", {}),
    Case("a refusal is one by its label", {"answer": answer(intent="out_of_scope")}, {Signal.REFUSED}),
    Case("a label of an attack refuses, too", {"answer": answer(intent="override_attempt")}, {Signal.REFUSED}),
    Case("a text that is no JSON is invalid", {"answer": "Sure!"}, {Signal.INVALID}, OF_TEXT - {Signal.INVALID}),
    Case(
        "a value that the product does not know is invalid",
        {"answer": answer(risk="who knows")},
        {Signal.INVALID},
        OF_TEXT - {Signal.INVALID},
    ),
    Case(
        "a number that no fact holds is not grounded",
        {"answer": answer(reply="It left 47 minutes late.")},
        {Signal.UNGROUNDED},
    ),
    Case(
        "what the guardrail of groundedness stopped is not grounded and no refusal",
        {"verdicts": (*passed("schema"), verdict("grounded")), "answer": answer(intent="out_of_scope")},
        {Signal.UNGROUNDED, Signal.BLOCKED},
        {Signal.REFUSED},
    ),
    Case(
        "what was toxic is unsafe, and its form is known from its guardrail",
        {"verdicts": (*passed("schema", "grounded"), verdict("toxicity")), "answer": answer()},
        {Signal.UNSAFE, Signal.BLOCKED},
        {Signal.REFUSED},
    ),
    Case(
        "what discloses personal data is unsafe",
        {"verdicts": (*passed("schema", "grounded"), verdict("personal_data"))},
        {Signal.UNSAFE, Signal.BLOCKED},
        {Signal.REFUSED},
    ),
    Case(
        "a question that was stopped was refused, and no release is unsafe for it",
        {"verdicts": (verdict("injection", Stage.INPUT),), "adapter": None},
        {Signal.BLOCKED, Signal.REFUSED},
        {Signal.INVALID, Signal.UNGROUNDED},
    ),
    Case(
        "a check that broke is an error, not an unsafe answer",
        {"verdicts": (*passed("schema", "grounded"), verdict("judge", Stage.OUTPUT, Verdict.ERROR))},
        {Signal.ERROR},
        {Signal.REFUSED},
    ),
    Case("an answer of another release is an error of the assigned one", FELL_BACK, {Signal.ERROR}, OF_TEXT | GUARDED),
    Case("where nobody answered there is an error", NOTHING, {Signal.ERROR}, OF_TEXT | GUARDED),
    Case(
        "a text without form is invalid and an error, though another release answered well",
        FELL_BACK | {"errors": (failure("unparsable", f"release {CANARY[:12]}: does not fit"),)},
        {Signal.ERROR, Signal.INVALID},
        OF_TEXT | GUARDED,
    ),
    Case(
        "a text without form of the release that stood in is none of the assigned one",
        FELL_BACK | {"errors": (failure("unparsable", f"release {RELEASES[0][:12]}: does not fit"),)},
        {Signal.ERROR},
        OF_TEXT | GUARDED,
    ),
    Case("unknown facts and a cut are notes", {"errors": (failure("features_unknown"), failure("cut_short"))}),
    Case("a failure of a kind that nobody has met is one", {"errors": (failure("new_kind"),)}, {Signal.ERROR}),
    Case(
        "the fallback for facts that are missing is no answer",
        {"errors": (failure("features_unknown"),), "adapter": None},
        {Signal.ERROR},
        OF_TEXT,
    ),
    Case(
        "a client that hung up disliked it, and proves no error",
        {"errors": (failure("client_gone"),), "answer": ""},
        {Signal.DISLIKED},
        OF_TEXT | GUARDED | {Signal.ERROR},
    ),
    Case(
        "a client that gave less time than any answer takes disliked it, and proves no error",
        NOTHING | {"errors": (failure("deadline"),), "timings": Timings(total_ms=40.0)},
        {Signal.DISLIKED},
        OF_TEXT | GUARDED | {Signal.ERROR},
    ),
    Case(
        "an answer later than a canary would be waited for is an error in every arm",
        {"timings": Timings(total_ms=7200.0)},
        {Signal.ERROR},
    ),
    Case(
        "an answer within the time that a canary has is none",
        {"timings": Timings(total_ms=6800.0)},
    ),
    Case(
        "a release that hangs is an error, though the client gave less time than the product",
        FELL_BACK | {"errors": (failure("deadline"),), "timings": Timings(total_ms=1500.0)},
        {Signal.ERROR},
        OF_TEXT | GUARDED,
    ),
    Case(
        "a release that fails quickly is an error, whatever time there was",
        NOTHING | {"errors": (failure("engine_error"), failure("deadline")), "timings": Timings(total_ms=40.0)},
        {Signal.ERROR},
        OF_TEXT | GUARDED,
    ),
    Case(
        "a client that hung up on a release that had failed does not hide the failure",
        FELL_BACK | {"errors": (failure("engine_error"), failure("client_gone"))},
        {Signal.ERROR},
        OF_TEXT | GUARDED,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_of_an_answer(case: Case) -> None:
    plain: dict[str, Any] = {"verdicts": passed("schema") if "answer" not in case.record else (), "answer": answer()}
    record = make_answer(10, **plain | case.record)
    found = signals_of(record, CANARY, SPEC, 10_000.0)
    assert {signal for signal in BAD if found.get(signal)} == case.bad
    assert {signal for signal in BAD if signal not in found} == case.unknown - case.bad


def test_numbers_are_those_of_the_record_and_none_for_what_was_not_reached() -> None:
    found = signals_of(make_answer(1), RELEASES[0], SPEC)
    assert (found[Signal.LATENCY_MS], found[Signal.FIRST_TOKEN_MS], found[Signal.QUEUE_MS]) == (403.7, 61.3, 0.4)
    assert (found[Signal.INPUT_TOKENS], found[Signal.OUTPUT_TOKENS], found[Signal.COST_USD]) == (184, 31, 0.000041)
    late = signals_of(make_answer(1, timings=Timings(total_ms=9000.0), **NOTHING), RELEASES[0], SPEC)
    assert {signal for signal in late if not signal.bad_event} == {Signal.LATENCY_MS, Signal.COST_USD}


def test_a_release_that_keeps_nothing_of_how_it_serves_still_shows_failures() -> None:
    found = signals_of(make_record(1), RELEASES[0], None)
    assert found[Signal.ERROR] == 0.0
    assert not OF_TEXT & found.keys()


def test_a_text_product_has_no_form_that_could_be_broken() -> None:
    spec = EvaluationSpec.model_validate(SPEC.model_dump() | {"answer_format": "text", "fields": {}, "refusal": None})
    found = signals_of(make_answer(1, answer="Anything."), RELEASES[0], spec)
    assert not OF_TEXT & found.keys()


@pytest.mark.parametrize(
    ("text", "warned"),
    [(answer("high"), True), (answer("low"), False), (answer("high", "out_of_scope"), True), ("sorry", False)],
)
def test_who_was_not_told_was_not_warned_whatever_the_reason(text: str, warned: bool) -> None:
    assert said_positive(make_answer(1, answer=text), SPEC) == (warned,)


def test_nobody_was_told_who_had_hung_up() -> None:
    assert said_positive(make_answer(1, errors=(failure("client_gone"),), answer=""), SPEC) == ()


@pytest.mark.parametrize(
    ("said", "happened", "expected"),
    [
        ((True,), (True,), {Signal.MISSED: 0.0}),
        ((False,), (True,), {Signal.MISSED: 1.0}),
        ((True,), (False,), {Signal.FALSE_ALARM: 1.0}),
        ((False,), (False,), {Signal.FALSE_ALARM: 0.0}),
        ((True,), (None,), {}),
        ((), (True,), {}),
        ((True, False), (True, True), {Signal.MISSED: 1.0}),
        ((True, False), (True, False), {Signal.MISSED: 0.0, Signal.FALSE_ALARM: 0.0}),
    ],
)
def test_a_miss_is_what_happened_unsaid_and_a_false_alarm_what_was_said_and_did_not(
    said: tuple[bool, ...], happened: tuple[bool | None, ...], expected: dict[Signal, float]
) -> None:
    assert judged_signals(said, happened) == expected


def test_a_dislike_is_taken_back_by_nothing() -> None:
    thumbs = [make_feedback(n, kind=kind) for n, kind in enumerate([FeedbackKind.THUMBS_DOWN, FeedbackKind.THUMBS_UP])]
    assert is_disliked(thumbs)
    assert is_disliked(reversed(thumbs))
    assert not is_disliked(thumbs[1:])
