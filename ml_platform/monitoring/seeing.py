"""Seeing: an answer as decisions see it, made of its record and of what was said of it; and its label, once mature."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import Seen
from ml_platform.contracts.provenance import Feedback, Outcome, ProvenanceRecord
from ml_platform.contracts.serving import ServingTime
from ml_platform.lineage.provenance.store import Answered
from ml_platform.monitoring.assigned import Releases
from ml_platform.monitoring.labels import Label, Told, label_of, told
from ml_platform.monitoring.signals import is_disliked, judged_signals, signals_of


def see(answered: Answered, at: datetime, releases: Releases) -> Seen:
    """An answer given at `at`, in the product's time; nothing is said of its label."""
    record = answered.record
    assigned = releases.assigned(record)
    evaluation, deadline_ms = releases.evaluation(assigned), releases.deadline_ms(assigned)
    seen = Seen(
        response_id=record.response_id,
        release_id=assigned,
        cohort=record.cohort,
        epoch=record.epoch,
        exposure=record.exposure,
        at=at,
        answered_at=record.answered_at,
        user=record.user_sha256 or record.response_id,
        signals=signals_of(record, assigned, evaluation, deadline_ms),
        mature=False,
        labelled=False,
    )
    return dislike(seen, answered.feedback)


def dislike(seen: Seen, feedback: Iterable[Feedback]) -> Seen:
    """The answer with what was thought of it; the very same where that is no news."""
    if seen.signals.get(Signal.DISLIKED) == 1.0 or not is_disliked(feedback):
        return seen
    return replace(seen, signals=seen.signals | {Signal.DISLIKED: 1.0})


def read_by(record: ProvenanceRecord, assigned: str | None, releases: Releases) -> EvaluationSpec | None:
    """How what the user was told is read: as the release was judged that said it."""
    return releases.evaluation(record.release_id or assigned)


def tell(outcomes: Iterable[Outcome], evaluation: EvaluationSpec | None, time: ServingTime) -> dict[str, Told]:
    """Outcomes by their keys, as labels need them."""
    return {one.idempotency_key: told(one, evaluation, time) for one in outcomes}


def judge(
    seen: Seen,
    said: tuple[bool, ...],
    outcomes: Iterable[Told],
    evaluation: EvaluationSpec | None,
    age: timedelta,
    time: ServingTime,
) -> tuple[Seen, Label]:
    """An answer of a mature age with its label, if there is one."""
    asked = evaluation is not None and bool(evaluation.recall)
    label = label_of(seen.at, age, outcomes, time, asked=asked)
    # Who did not wait was told nothing, and not for any release's fault.
    waited = Signal.ERROR in seen.signals
    signals = seen.signals | (judged_signals(said, label.happened or ()) if waited else {})
    return replace(seen, signals=signals, mature=True, labelled=label.happened is not None), label
