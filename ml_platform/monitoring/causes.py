"""Causes: what of the reports, the calendar and the announcements of makers is a reason to train; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from ml_platform.contracts.canonical import digest
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Deprecation, RetrainPolicy
from ml_platform.contracts.triggers import TriggerKind
from ml_platform.monitoring.triggers import Cause

LONGEST_REASON = 1000
"""Characters of a trigger's reason; the report has all of them."""
SHORTEST_LEFT = timedelta(hours=1)
"""What is left, at least, until something ends: a date that has passed is no stronger than this."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a report says of one day: FAIL is what it looks for. `effect` is in units of the policy's threshold.

    `release_id` is what it was measured against, None where nothing served.
    """

    kind: TriggerKind
    day: date
    verdict: Verdict
    reason: str
    effect: float
    release_id: str | None
    evidence_sha256: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a product when it is asked for causes.

    `day` is the one that a run would learn from; `newest` that of the newest candidate, and `newest_id` its release;
    `labels` are the mature labels since then, None where nobody counted. `models` are the base models and judges that
    are in use, `configured` those that the product's folder names.
    """

    day: date
    newest: date
    newest_id: str
    production: str | None
    findings: tuple[Finding, ...] = ()
    labels: int | None = None
    models: frozenset[str] = frozenset()
    configured: tuple[str, ...] = ()


@dataclass
class Causes:
    """The causes that were found, and for each trigger without one why there is none."""

    found: list[Cause] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def causes_of(known: Known, policy: RetrainPolicy, now: datetime) -> Causes:
    """Every cause that the policy accepts; `now` is the product's time."""
    causes = Causes()
    wanted: Mapping[TriggerKind, bool] = {TriggerKind.DRIFT: policy.on_drift, TriggerKind.QUALITY: policy.on_quality}
    for kind, on in wanted.items():
        if on:
            _report_cause(kind, known, causes)
    _labels_cause(known, policy, causes)
    _calendar_cause(known, policy, causes)
    _deprecation_causes(known, policy, now, causes)
    return causes


def _report_cause(kind: TriggerKind, known: Known, causes: Causes) -> None:
    finding = max((one for one in known.findings if one.kind is kind), key=lambda one: one.day, default=None)
    if finding is None:
        causes.notes.append(f"{kind}: no report yet.")
    elif finding.verdict is not Verdict.FAIL:
        causes.notes.append(f"{kind}: {finding.verdict} on {finding.day}: {finding.reason}")
    elif finding.day <= known.newest:
        causes.notes.append(f"{kind}: found on {finding.day}, a candidate of {known.newest} has learned since.")
    elif finding.release_id != known.production:
        causes.notes.append(f"{kind}: the report of {finding.day} is about a release that serves no longer.")
    else:
        reason = _shortened(f"on {finding.day}: {finding.reason}")
        causes.found.append(Cause(kind, max(finding.effect, 1.0), finding.evidence_sha256, reason))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def _labels_cause(known: Known, policy: RetrainPolicy, causes: Causes) -> None:
    if policy.new_labels is None:
        return
    count = known.labels or 0
    said = f"{count:,} new mature labels since the newest candidate's day, {known.newest}"
    _accumulated(TriggerKind.NEW_LABELS, count, policy.new_labels, said, known, causes)


def _calendar_cause(known: Known, policy: RetrainPolicy, causes: Causes) -> None:
    if policy.every_days is None:
        return
    days = (known.day - known.newest).days
    said = f"{days} days since the newest candidate's day, {known.newest}"
    _accumulated(TriggerKind.CALENDAR, days, policy.every_days, said, known, causes)


def _accumulated(kind: TriggerKind, count: int, needed: int, said: str, known: Known, causes: Causes) -> None:
    """A cause once enough has come since the newest candidate, which is its evidence, however much comes on top."""
    said = f"{said}; the policy trains at {needed:,}"
    if count < needed:
        causes.notes.append(f"{kind}: {said}.")
        return
    evidence = digest({"kind": kind, "since": known.newest_id, "needed": needed})
    causes.found.append(Cause(kind, count / needed, evidence, said))


def _deprecation_causes(known: Known, policy: RetrainPolicy, now: datetime, causes: Causes) -> None:
    if policy.days_before_deprecation is None:
        return
    before = timedelta(days=policy.days_before_deprecation)
    for ending in policy.deprecations:
        if ending.name not in known.models:
            causes.notes.append(f"{TriggerKind.DEPRECATION}: {ending.name} is not in use.")
        elif now + before < ending.ends_at:
            causes.notes.append(f"{TriggerKind.DEPRECATION}: {ending.name} ends at {ending.ends_at:%Y-%m-%d}.")
        else:
            # What the folder names now is part of the evidence: once people have changed it, there is reason to train.
            evidence = digest({"ending": ending.sha256, "configured": known.configured})
            strength = before / max(ending.ends_at - now, SHORTEST_LEFT)
            causes.found.append(
                Cause(TriggerKind.DEPRECATION, strength, evidence, _ending_said(ending, known.configured))
            )


def _ending_said(ending: Deprecation, configured: Iterable[str]) -> str:
    advice = f"; look at {ending.replacement}" if ending.replacement else ""
    named = " and is what the product's folder still names" if ending.name in configured else ""
    return f"{ending.name} ends at {ending.ends_at:%Y-%m-%d}{named}{advice}"
