"""The post-mortem of an incident, written by itself: what changed, which signal, how long it took; pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ml_platform.contracts.decided import DecisionRecorded
from ml_platform.contracts.events import Event
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import ArmReading, Decision, MetricReading, Seen
from ml_platform.contracts.release import Release
from ml_platform.release.traffic import MOST_SEEN

OPEN = "- Time to recovery: not over yet."
"""The line of a post-mortem that is still to be completed."""


@dataclass(frozen=True)
class Incident:
    """One incident: the event that recorded it, the release that it is about and the one that stayed.

    `began` is when the release got these users, `seen` are the answers that were kept with the decision; `over` is when
    the last answer of the release came, or what ailed it ended; None before. Times are ours.
    """

    event: Event
    release: Release | None
    stays: Release | None
    began: datetime | None
    seen: Sequence[Seen]
    over: datetime | None

    @property
    def decision(self) -> Decision:
        """What was decided."""
        return DecisionRecorded.model_validate(self.event.payload).decision

    @property
    def partial(self) -> bool:
        """Whether older answers may have been left out of what was kept: what stops keeps the newest."""
        return len(self.seen) >= MOST_SEEN

    @property
    def first_bad_at(self) -> datetime | None:
        """When the first of the bad answers came that the decision was made on."""
        decision, decided = self.decision, self.event.recorded_at
        counted = _counted(decision)
        mine = (one for one in self.seen if decision.release_id in (None, one.release_id))
        return min((one.answered_at for one in mine if _is_bad(one, decided, counted)), default=None)


def _counted(decision: Decision) -> dict[Signal, float]:
    """The signals that spoke for it, and within how many seconds: a metric counts all answers, a limit its window."""
    mine = (one for one in decision.breaches if decision.release_id in (None, one.release_id))
    limits = sorted((one.window_seconds, one.signal) for one in mine)
    failed = (one.signal for one in decision.readings if one.verdict is Verdict.FAIL and one.signal.bad_event)
    return {signal: seconds for seconds, signal in limits} | dict.fromkeys(failed, math.inf)


def _is_bad(seen: Seen, decided: datetime, counted: Mapping[Signal, float]) -> bool:
    before = abs(decided - seen.answered_at).total_seconds()  # a clock may run ahead
    return any(seen.signals.get(signal, 0.0) > 0.0 and before <= seconds for signal, seconds in counted.items())


def tell_incident(incident: Incident) -> str:
    """The post-mortem as Markdown; the same for the same incident, whoever writes it."""
    decision, event = incident.decision, incident.event
    kept = event.payload["kept_sha256"]
    lines = [
        f"# {decision.product}: {decision.incident}",
        "",
        f"Decided: **{decision.action.replace('_', ' ')}** at {_moment(event.recorded_at)} by {event.actor}.",
        f"Event {event.sequence}, epoch {decision.epoch}; the product's time was {_moment(decision.at)}.",
        "",
        decision.reason,
        "",
        "## What changed",
        "",
        *_changes(incident),
        "",
        "## Which signal",
        "",
        *_signals(decision),
        "",
        "## How long it took",
        "",
        *_times(incident),
        "",
        "## Proof",
        "",
        f"{_which(incident)} that the decision used: artifact `decision/{kept}`."
        if kept
        else "Its answers were not kept.",
        f"The numbers are in the ledger: `mlp ledger log {decision.product}`.",
    ]
    return "\n".join(lines) + "\n"


def _which(incident: Incident) -> str:
    return f"The newest {len(incident.seen):,} answers" if incident.partial else "Every answer"


def _changes(incident: Incident) -> Iterator[str]:
    release, stays = incident.release, incident.stays
    if release is None:
        yield "Nothing that the ledger knows of."
        return
    if stays is None or stays == release:
        yield f"It is about release `{release.release_id[:12]}`, beside which nothing else serves."
        return
    yield f"Release `{release.release_id[:12]}` against `{stays.release_id[:12]}`, which stays:"
    yield ""
    before, after = stays.model_dump(mode="json"), release.model_dump(mode="json")
    for part in sorted({*before, *after}):
        if before.get(part) != after.get(part):
            yield f"- {part.replace('_', ' ')}: {_short(before.get(part))} → {_short(after.get(part))}"


def _short(part: object) -> str:
    """A part of a release in a few words: its version, its day, or the beginning of its digest."""
    if not isinstance(part, dict):
        return str(part)
    named = [f"{name} {str(value)[:12]}" for name, value in part.items() if isinstance(value, str | int | None)]
    return ", ".join(named[:4]) or "other"


def _signals(decision: Decision) -> Iterator[str]:
    for breach in decision.breaches:
        at_most = f"at most {breach.at_most:.0%} are allowed"
        yield f"- hard limit of release `{breach.release_id[:12]}`: {breach.sentence}, {at_most}"
    if not decision.breaches and not decision.readings:
        yield "None: nothing was measured."
    if not decision.readings:
        return
    yield from (
        "",
        "| metric | verdict | production | canary | effect | evidence of harm |",
        "|---|---|---|---|---|---|",
    )
    for one in decision.readings:
        cells = (one.metric, one.verdict, _arm(one.production), _arm(one.canary), _effect(one), _evidence(one))
        yield f"| {' | '.join(str(cell) for cell in cells)} |"


def _arm(arm: ArmReading | None) -> str:
    if arm is None:
        return ""
    value = "?" if arm.value is None else f"{arm.value:.4g}"
    return f"{value} of {arm.users} users"


def _effect(reading: MetricReading) -> str:
    bounds = (reading.effect_lower, reading.effect, reading.effect_upper)
    lower, effect, upper = ("?" if bound is None else f"{bound:.3g}" for bound in bounds)
    return f"{effect} [{lower}, {upper}], limit {reading.limit:.3g}"


def _evidence(reading: MetricReading) -> str:
    if reading.e_value is None or reading.e_threshold is None:
        return ""
    return f"{reading.e_value:.3g} of {reading.e_threshold:.3g}"


def _times(incident: Incident) -> Iterator[str]:
    decided, bad = incident.event.recorded_at, incident.first_bad_at
    if incident.began:
        yield f"- With these users since {_moment(incident.began)}, {_for(decided - incident.began)} before."
    if bad:
        which = "first bad one of the answers that were kept" if incident.partial else "first bad answer that counted"
        yield f"- Time to detection: {_for(decided - bad)} after the {which}, {_moment(bad)}."
    else:
        yield "- Time to detection: no single answer was bad, or none was kept."
    yield tell_recovery(incident)


def tell_recovery(incident: Incident) -> str:
    """The line that completes a post-mortem, OPEN before it is over."""
    if incident.over is None:
        return OPEN
    after = _for(incident.over - incident.event.recorded_at)
    return f"- Time to recovery: {after} after the decision, {_moment(incident.over)}."


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _for(span: timedelta) -> str:
    seconds = max(0.0, span.total_seconds())
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
