"""Signals: what one answer shows, read off its record; pure.

What is compared are arms as assigned. So what a user lived through counts for the release that the user was assigned
to: that it failed, how long it took, whether a warning was missed, whoever answered in the end. What only the text of
a release shows, its form, its groundedness, its refusals, counts where it was that release's text.
"""

from collections.abc import Iterable

from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.guardrails import GuardrailVerdict, Stage
from ml_platform.contracts.labels import is_among
from ml_platform.contracts.metrics import grounded_fields, refuses
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.provenance import Feedback, FeedbackKind, ProvenanceRecord
from ml_platform.contracts.routing import RouteReason
from ml_platform.contracts.serving import SHARE_OF_DEADLINE
from ml_platform.evaluation.answers import ParsedAnswer, parse_answer
from ml_platform.evaluation.groundedness import is_grounded

CLIENT_GONE, DEADLINE = "client_gone", "deadline"
UNPARSABLE = "unparsable"
NOTES = frozenset({CLIENT_GONE, "features_unknown", "cut_short"})
"""Kinds of recorded errors with which an answer is still one; every other kind is a failure of a release."""
LEAST_PATIENCE = 0.1
"""Who waits for less than this share of the product's own deadline proves nothing about any release by being too late:
else whoever may ask could have every release taken back. A release that hangs shows with everybody who waits longer."""
FORM, GROUNDED = "schema", "grounded"
"""The output guardrails that are about quality; whatever else stops an answer stops it because it is unsafe."""
DISLIKES = frozenset(
    {FeedbackKind.THUMBS_DOWN, FeedbackKind.CORRECTION, FeedbackKind.REPHRASED, FeedbackKind.ABANDONED}
)


def signals_of(
    record: ProvenanceRecord,
    assigned: str | None,
    evaluation: EvaluationSpec | None,
    deadline_ms: float | None = None,
) -> dict[Signal, float]:
    """What is known of an answer at once; evaluation and deadline are of the release that the user was `assigned` to.

    A signal that says nothing of this answer is absent: of an answer that a client did not wait for, nobody knows how
    good it was, but the client walked away.
    """
    found = _measured(record)
    if (_left(record) and _is_own(record)) or _had_no_patience(record, deadline_ms):
        return found | {Signal.DISLIKED: 1.0}
    found[Signal.ERROR] = float(has_failed(record) or _came_late(record, deadline_ms))
    found[Signal.DISLIKED] = 0.0
    if _is_own(record):
        found |= _guarded(record.verdicts)
        found |= _of_text(record, evaluation) if evaluation is not None else {}
    elif evaluation is not None and evaluation.answer_format == "json" and _was_unparsable(record, assigned):
        found[Signal.INVALID] = 1.0
    return found


def has_failed(record: ProvenanceRecord) -> bool:
    """Whether the assigned release gave no answer: it failed, another answered for it, or a check of it broke."""
    stopped = any(one.verdict is Verdict.FAIL for one in record.verdicts)
    return (
        not _is_own(record)
        or any(error.kind not in NOTES for error in record.errors)
        or any(one.verdict not in (Verdict.PASS, Verdict.FAIL) for one in record.verdicts)
        or (record.adapter is None and not stopped)
    )


def said_positive(record: ProvenanceRecord, evaluation: EvaluationSpec | None) -> tuple[bool, ...]:
    """For each recall of the product, by its order, whether the user was told what it calls positive.

    Whatever did not say so did not warn: a refusal, a safe reply, a failure. Empty where nobody was there to be told.
    """
    if evaluation is None or not evaluation.recall or _left(record):
        return ()
    fields = parse_answer(record.answer, evaluation).fields or {}
    return tuple(is_among(fields.get(recall.field), recall.positive) for recall in evaluation.recall.values())


def is_disliked(feedback: Iterable[Feedback]) -> bool:
    """Whether anybody disliked the answer. A thumb up beside it takes nothing back: order does not matter.

    What was said of an entity names no answer, and may be older than each: with it one person could dislike all.
    """
    return any(one.kind in DISLIKES and one.response_id is not None for one in feedback)


def judged_signals(said: tuple[bool, ...], happened: tuple[bool | None, ...]) -> dict[Signal, float]:
    """What a mature label shows: `missed` where something happened, `false_alarm` where something did not.

    Both are shares of what the world did, which no release can choose.
    """
    known = [(told, came) for told, came in zip(said, happened, strict=False) if came is not None]
    found: dict[Signal, float] = {}
    if any(came for _, came in known):
        found[Signal.MISSED] = float(any(came and not told for told, came in known))
    if any(not came for _, came in known):
        found[Signal.FALSE_ALARM] = float(any(told and not came for told, came in known))
    return found


def _measured(record: ProvenanceRecord) -> dict[Signal, float]:
    timings, own = record.timings, _is_own(record)
    numbers = {
        Signal.LATENCY_MS: timings.total_ms,
        Signal.COST_USD: record.cost_usd,
        Signal.FIRST_TOKEN_MS: timings.first_token_ms if own else None,
        Signal.QUEUE_MS: timings.queue_ms if own else None,
        Signal.INPUT_TOKENS: record.input_tokens if own and record.adapter else None,
        Signal.OUTPUT_TOKENS: record.output_tokens if own and record.adapter else None,
    }
    return {signal: float(value) for signal, value in numbers.items() if value is not None}


def _guarded(verdicts: tuple[GuardrailVerdict, ...]) -> dict[Signal, float]:
    stopped = [one for one in verdicts if one.verdict is Verdict.FAIL]
    unsafe = any(one.stage is Stage.OUTPUT and one.guardrail not in (FORM, GROUNDED) for one in stopped)
    return {Signal.BLOCKED: float(bool(stopped)), Signal.UNSAFE: float(unsafe)}


def _of_text(record: ProvenanceRecord, evaluation: EvaluationSpec) -> dict[Signal, float]:
    """What the release's own text shows. Of one that a guardrail stopped there is only what the guardrails said."""
    if any(one.stage is Stage.INPUT and one.verdict is Verdict.FAIL for one in record.verdicts):
        return {Signal.REFUSED: 1.0}
    if record.adapter is None:
        return {}
    stopped = {one.guardrail: one.verdict for one in record.verdicts if one.stage is Stage.OUTPUT}
    if any(verdict is not Verdict.PASS for verdict in stopped.values()):
        return {
            signal: float(stopped[name] is Verdict.FAIL)
            for signal, name in ((Signal.INVALID, FORM), (Signal.UNGROUNDED, GROUNDED))
            if stopped.get(name) in (Verdict.PASS, Verdict.FAIL)
        }
    parsed = parse_answer(record.answer, evaluation)
    found: dict[Signal, float] = {}
    if evaluation.answer_format == "json":
        found[Signal.INVALID] = float(parsed.fields is None)
    if parsed.fields is None:
        return found
    if grounded_fields(evaluation):
        found[Signal.UNGROUNDED] = float(GROUNDED not in stopped and not _stands(record, parsed, evaluation))
    if refuses(evaluation) and evaluation.refusal is not None:
        label = parsed.fields.get(evaluation.refusal.field)
        declined = (*evaluation.refusal.out_of_scope, *evaluation.refusal.attack)
        found[Signal.REFUSED] = float(is_among(label, declined))
    return found


def _stands(record: ProvenanceRecord, parsed: ParsedAnswer, evaluation: EvaluationSpec) -> bool:
    """Whether the texts stand in the facts; asked where no guardrail has looked."""
    texts = [str((parsed.fields or {}).get(name) or "") for name in grounded_fields(evaluation)]
    return all(is_grounded(text, record.facts, record.utterance) for text in texts)


def _is_own(record: ProvenanceRecord) -> bool:
    """Whether the release that was assigned, or asked for by an operator, is the one that answered."""
    return record.route_reason in (RouteReason.ASSIGNED, RouteReason.OVERRIDE)


def _left(record: ProvenanceRecord) -> bool:
    return any(error.kind == CLIENT_GONE for error in record.errors)


def _had_no_patience(record: ProvenanceRecord, deadline_ms: float | None) -> bool:
    """Whether nothing but a deadline of the client's own, far below the product's, kept it from an answer."""
    failures = [error.kind for error in record.errors if error.kind not in NOTES]
    hasty = deadline_ms is not None and record.timings.total_ms < LEAST_PATIENCE * deadline_ms
    return hasty and bool(failures) and all(kind == DEADLINE for kind in failures)


def _came_late(record: ProvenanceRecord, deadline_ms: float | None) -> bool:
    """Whether its answer took longer than a release has that another stands behind."""
    return deadline_ms is not None and record.timings.total_ms > SHARE_OF_DEADLINE * deadline_ms


def _was_unparsable(record: ProvenanceRecord, assigned: str | None) -> bool:
    """Whether the assigned release's text had no form; others may have been tried after it."""
    whose = f"release {assigned[:12]}:" if assigned else ""
    return any(error.kind == UNPARSABLE and error.message.startswith(whose) for error in record.errors)
