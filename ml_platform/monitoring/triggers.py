"""When a run of continuous training starts by itself; pure.

A *cause* is a finding that the policy accepts as a reason to train. It starts a run unless something stands against
it: a frozen product, a run or a rollout under way, evidence that was tried already, or the bar. After every failure in
a row the next start waits twice as long. After a candidate that its gates or its users refused, the same evidence never
starts a run again, and the next has to show more: drift and quality more than what was tried in vain, what grows by
itself (labels, days) twice as much for each. After `max_failed` failures in a row a person has to look.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from ml_platform.contracts.monitor_policy import RetrainPolicy
from ml_platform.contracts.triggers import Trigger, TriggerKind

LONGEST_WAIT_HOURS = 876_000.0
"""No calendar holds every power of two."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A finding that may start a run: its strength in units of the policy's threshold, and what proves it."""

    kind: TriggerKind
    strength: float
    evidence_sha256: str
    reason: str


class Outcome(StrEnum):
    """What came of an automatic start."""

    CRASHED = "crashed"
    """The run ended without a judged candidate: tried again with the same evidence."""
    REFUSED = "refused"
    """Its gates held the candidate, or it was aborted or rolled back: this evidence leads nowhere."""
    ACCEPTED = "accepted"
    """It serves, or served."""


@dataclass(frozen=True, slots=True)
class PastStart:
    """An automatic start, and what came of it; `seen_at` is the clock's time of its candidate, or of its run."""

    trigger: Trigger
    outcome: Outcome
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands when it is asked whether to start: sentences, or None for nothing.

    `blocked` is a run or a rollout under way, or that there is nothing to learn from yet. `starts` are the automatic
    starts that ended, the oldest first; those seen before `since` count as no failures: a person has trained since.
    """

    frozen: str | None
    blocked: str | None
    starts: tuple[PastStart, ...] = ()
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """A run is to start, and why."""

    trigger: Trigger


@dataclass(frozen=True, slots=True)
class Wait:
    """No run starts, and why not."""

    reason: str


def should_retrain(causes: Sequence[Cause], standing: Standing, policy: RetrainPolicy, now: datetime) -> Start | Wait:
    """Whether a run starts now, in the product's time, and by which cause: the strongest above its bar."""
    if standing.frozen is not None:
        return Wait(f"Frozen: {standing.frozen}")
    if not causes:
        return Wait("Nothing that the policy would train for.")
    if standing.blocked is not None:
        return Wait(f"{_named(causes)}, but {standing.blocked}")
    row = failures_in_a_row(standing)
    if len(row) >= policy.max_failed:
        return Wait(
            f"{_named(causes)}, but {len(row)} automatic starts in a row came to nothing: after that the policy wants "
            "a person. Find out why, then train with `mlp run`: a candidate of yours lets automatic starts go on."
        )
    if row and now < (until := _waits_until(row, policy)):
        return Wait(
            f"{_named(causes)}, but the last {len(row)} automatic start(s) came to nothing: the next is at "
            f"{until:%Y-%m-%d %H:%M} UTC of the product's time."
        )
    refused = [_why_not(cause, standing, row) for cause in causes]
    able = [cause for cause, reason in zip(causes, refused, strict=True) if reason is None]
    if not able:
        return Wait(" ".join(reason for reason in refused if reason))
    return Start(_trigger(max(able, key=lambda cause: cause.strength), standing, now))


def failures_in_a_row(standing: Standing) -> tuple[PastStart, ...]:
    """The automatic starts since the last that came to something, or that a person trained after."""
    row: list[PastStart] = []
    for start in standing.starts:
        if start.outcome is Outcome.ACCEPTED:
            row.clear()
        elif standing.since is None or start.seen_at >= standing.since:
            row.append(start)
    return tuple(row)


def bar_of(kind: TriggerKind, row: Iterable[PastStart]) -> float:
    """What a cause of this kind has to exceed after these failures; 0 before any candidate was refused.

    A run that crashed says nothing about the evidence, so it does not raise the bar.
    """
    refused = [start.trigger for start in row if start.outcome is Outcome.REFUSED]
    if kind.accumulates:
        return float(2 ** len(refused)) if refused else 0.0
    return max((trigger.strength for trigger in refused if trigger.kind is kind), default=0.0)


def _why_not(cause: Cause, standing: Standing, row: tuple[PastStart, ...]) -> str | None:
    tried = [start for start in standing.starts if start.trigger.evidence_sha256 == cause.evidence_sha256]
    if any(start.outcome is not Outcome.CRASHED for start in tried):
        return f"{_sentence(cause)} This evidence has started a run already: {tried[-1].outcome}."
    bar = bar_of(cause.kind, row)
    if cause.strength < bar or (cause.strength == bar and not cause.kind.accumulates):
        return (
            f"{_sentence(cause)} A candidate that was trained for less was refused: it takes "
            f"{'at least' if cause.kind.accumulates else 'more than'} {bar:.2f} times the threshold, "
            f"and this is {cause.strength:.2f}."
        )
    return None


def _trigger(cause: Cause, standing: Standing, now: datetime) -> Trigger:
    tried = [start for start in standing.starts if start.trigger.evidence_sha256 == cause.evidence_sha256]
    return Trigger(
        kind=cause.kind,
        reason=cause.reason,
        evidence_sha256=cause.evidence_sha256,
        strength=cause.strength,
        attempt=1 + max((start.trigger.attempt for start in tried), default=0),
        at=now,
    )


def _waits_until(row: Sequence[PastStart], policy: RetrainPolicy) -> datetime:
    hours = policy.back_off_hours * 2.0 ** min(len(row) - 1, 64)
    return row[-1].trigger.at + timedelta(hours=min(hours, LONGEST_WAIT_HOURS))


def _named(causes: Sequence[Cause]) -> str:
    return " ".join(_sentence(cause) for cause in causes).rstrip(".")


def _sentence(cause: Cause) -> str:
    return f"{cause.kind}: {cause.reason.rstrip('.')}."
