"""Quality: whether the release in production answers worse than in its first days, once labels are mature.

The days up to the one in question are compared with the release's own first days, metric by metric of the monitor
policy. The bounds of the difference are those of Newcombe (1998, method 10: MOVER) on Clopper-Pearson bounds of each
side, at an effective number of answers that respects who asked often; the level is split over the metrics. A fall
takes both: it is proven, and at least as large as the policy's margin.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import MonitorPolicy, RateMetric, Signal
from ml_platform.contracts.monitoring import Seen
from ml_platform.contracts.routing import Cohort
from ml_platform.contracts.windows import QualityChange, QualityPeriod, QualityReport
from ml_platform.monitoring.figures import Column, Figure, share_of
from ml_platform.monitoring.past import Past, Stretch
from ml_platform.monitoring.windows import DAY, day_of

QUALITY = frozenset(
    {
        Signal.INVALID,
        Signal.UNGROUNDED,
        Signal.REFUSED,
        Signal.BLOCKED,
        Signal.UNSAFE,
        Signal.DISLIKED,
        Signal.MISSED,
        Signal.FALSE_ALARM,
    }
)
"""What training again could mend; errors, latency and cost it could not."""


@dataclass
class Period:
    """One side of the comparison: the answers of one release in production, by signal."""

    users: dict[str, int] = field(default_factory=dict)
    columns: dict[Signal, Column] = field(default_factory=dict)
    mature: int = 0
    labelled: int = 0

    def add(self, seen: Seen) -> None:
        """One more answer."""
        user = self.users.setdefault(seen.user, len(self.users))
        for signal in QUALITY & seen.signals.keys():
            self.columns.setdefault(signal, Column()).add(user, seen.signals[signal])
        self.mature += seen.mature
        self.labelled += seen.labelled

    @property
    def coverage(self) -> float:
        """The share of mature answers with a label; 0 where none is mature."""
        return self.labelled / self.mature if self.mature else 0.0


def make_quality_report(
    past: Past, as_of: date, release_id: str | None, since: datetime | None, policy: MonitorPolicy
) -> QualityReport:
    """The report of one day; `since` is when the release first came to production, by our clock.

    Raises what the store and the ledger raise: a store that is down proves nothing.
    """
    begin, end = _window(as_of, policy)
    first_days = _first_days(past, begin, since, policy)
    day, now, before = past.stretches((end - DAY, end), (begin, end), first_days)
    known = day_of(as_of)[1]
    # A shadow's copy of a question brings no label that its answer to the user has not brought.
    labelled = sum(one.seen.labelled and one.seen.cohort is not Cohort.SHADOW for one in past.answers(day, known))
    facts = {
        "product": past.product,
        "as_of": as_of,
        "release_id": release_id,
        "window_from": begin,
        "window_until": end,
        "labelled": labelled,
        "monitor_policy_sha256": policy.sha256,
        "sampled": any(stretch.sampled for stretch in (day, now, before)),
    }
    if past.now < known:
        told = f"The day is not over: it is {past.now:%Y-%m-%d %H:%M} UTC for the product."
        return QualityReport(**facts, verdict=Verdict.INCONCLUSIVE, reason=told, effect=0.0)
    if release_id is None:
        told = "No release is in production."
        return QualityReport(**facts, verdict=Verdict.INCONCLUSIVE, reason=told, effect=0.0)
    was, is_now = (_period(past, stretch, release_id, known) for stretch in (before, now))
    changes = compare(was, is_now, policy)
    verdict, reason = judge_quality(changes)
    return QualityReport(
        **facts,
        verdict=verdict,
        reason=reason,
        effect=max((one.effect for one in changes if one.verdict in (verdict, Verdict.FAIL)), default=0.0),
        before_from=before.begin,
        before_until=before.end,
        metrics=changes,
    )


def compare(before: Period, now: Period, policy: MonitorPolicy) -> tuple[QualityChange, ...]:
    """Each metric of quality that the policy has, now against before; pure."""
    metrics = [one for one in policy.metrics if isinstance(one, RateMetric) and one.signal in QUALITY]
    confidence = 1.0 - policy.drift.alpha / max(len(metrics), 1)
    return tuple(_change(metric, before, now, policy, confidence) for metric in metrics)


def judge_quality(changes: Sequence[QualityChange]) -> tuple[Verdict, str]:
    """One verdict for all metrics: a fall of any is one, and no fall takes all of them; pure."""
    if not changes:
        return Verdict.INCONCLUSIVE, "The monitor policy has no rate of quality to compare."
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        found = sorted((one for one in changes if one.verdict is verdict), key=lambda one: -one.effect)
        if found:
            reasons = dict.fromkeys(one.reason for one in found)
            named = {why: ", ".join(one.metric for one in found if one.reason == why) for why in reasons}
            return verdict, " ".join(f"{names}: {why}" for why, names in named.items())
    return Verdict.PASS, f"No metric of {len(changes)} is worse by its margin than in the release's first days."


def _change(metric: RateMetric, before: Period, now: Period, policy: MonitorPolicy, confidence: float) -> QualityChange:
    was, is_now = (share_of(one.columns.get(metric.signal, Column()), confidence) for one in (before, now))
    change, low, high = _difference(was, is_now)
    effect = max(0.0, change / metric.margin) if change is not None else 0.0
    verdict, reason = _verdict(metric, before, now, policy, (was, is_now, change, low, high))
    if verdict is Verdict.FAIL:
        over = (is_now.low or 0.0) - metric.at_most
        effect = max(1.0, effect, 1.0 + over / metric.margin)
    return QualityChange(
        metric=metric.metric,
        signal=metric.signal,
        verdict=verdict,
        reason=reason,
        before=_shown(was, before, metric.signal),
        now=_shown(is_now, now, metric.signal),
        change=change,
        change_low=low,
        change_high=high,
        margin=metric.margin,
        at_most=metric.at_most,
        effect=effect,
    )


def _verdict(
    metric: RateMetric,
    before: Period,
    now: Period,
    policy: MonitorPolicy,
    found: tuple[Figure, Figure, float | None, float | None, float | None],
) -> tuple[Verdict, str]:
    was, is_now, change, low, high = found
    if is_now.value is None:
        return Verdict.INCONCLUSIVE, "no answer shows it."
    for period, name in ((now, "now"), (before, "in the first days")):
        if metric.signal.labelled and period.mature and period.coverage < policy.min_coverage:
            told = f"{period.labelled:,} of {period.mature:,} mature answers {name} have a label"
            return Verdict.INCONCLUSIVE, f"{told}; the policy needs {policy.min_coverage:.0%}."
    said = f"{is_now.value:.1%} of {is_now.answers:,} answers"
    if is_now.low is not None and is_now.low > metric.at_most:
        return Verdict.FAIL, f"{said}, which is proven to be above {metric.at_most:.0%}, the most that may be."
    if was.value is None or change is None or low is None or high is None:
        return Verdict.INCONCLUSIVE, f"{said}; there are no earlier days of this release to compare with."
    said = f"{said} after {was.value:.1%} of {was.answers:,} in the release's first days"
    if low > 0.0 and change >= metric.margin:
        return Verdict.FAIL, f"{said}: worse by {change:.1%} (at least {low:.1%}), where {metric.margin:.0%} matter."
    if high < metric.margin:
        return Verdict.PASS, f"{said}: worse by {high:.1%} at most."
    return Verdict.INCONCLUSIVE, f"{said}: it may be worse by up to {high:.1%}, too few answers to tell."


def _difference(was: Figure, is_now: Figure) -> tuple[float | None, float | None, float | None]:
    """Now minus then, with bounds: MOVER, which squares the distance of each side's bound from its value."""
    if was.value is None or is_now.value is None:
        return None, None, None
    change = is_now.value - was.value
    if None in (was.low, was.high, is_now.low, is_now.high):
        return change, None, None
    low = math.hypot(is_now.value - (is_now.low or 0.0), (was.high or 0.0) - was.value)
    high = math.hypot((is_now.high or 0.0) - is_now.value, was.value - (was.low or 0.0))
    return change, change - low, change + high


def _window(as_of: date, policy: MonitorPolicy) -> tuple[datetime, datetime]:
    """The answers whose labels matured in the days up to the end of this one."""
    end = day_of(as_of)[1] - timedelta(hours=policy.label_age_hours)
    return end - timedelta(days=policy.drift.window_days), end


def _first_days(
    past: Past, begin: datetime, since: datetime | None, policy: MonitorPolicy
) -> tuple[datetime, datetime]:
    """The release's first days that lie before the window, as many as the window has; an empty stretch for none."""
    first = None if since is None else past.time_at(since)
    if first is None or first >= begin:
        return begin, begin
    return first, min(begin, first + timedelta(days=policy.drift.window_days))


def _period(past: Past, stretch: Stretch, release_id: str, known: datetime) -> Period:
    period = Period()
    for seen in _in_production((one.seen for one in past.answers(stretch, known)), release_id):
        period.add(seen)
    return period


def _in_production(answers: Iterable[Seen], release_id: str) -> Iterable[Seen]:
    return (one for one in answers if one.cohort is Cohort.PRODUCTION and one.release_id == release_id)


def _shown(figure: Figure, period: Period, signal: Signal) -> QualityPeriod:
    return QualityPeriod(
        value=figure.value,
        low=figure.low,
        high=figure.high,
        answers=figure.answers,
        users=figure.users,
        coverage=period.coverage if signal.labelled and period.mature else None,
    )
