"""Windows: the answers of a day of the product's time, measured arm by arm."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

from ml_platform.contracts.evaluation_spec import LabelField
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.routing import Cohort, RouteReason
from ml_platform.contracts.windows import ArmWindow, Group, LabelCounts, WindowMeasure, WindowReport
from ml_platform.evaluation.answers import parse_answer
from ml_platform.monitoring.assigned import Releases
from ml_platform.monitoring.figures import Column, Figure, mean_of, quantile_of, share_of
from ml_platform.monitoring.labels import SKEW, Flaw
from ml_platform.monitoring.past import Observed, Past

DAY = timedelta(days=1)
MOST_VALUES = 20
RATES = {
    Signal.ERROR: (Group.INFRASTRUCTURE, "error_rate"),
    Signal.INVALID: (Group.QUALITY, "invalid_rate"),
    Signal.UNGROUNDED: (Group.QUALITY, "ungrounded_rate"),
    Signal.REFUSED: (Group.QUALITY, "refusal_rate"),
    Signal.BLOCKED: (Group.QUALITY, "blocked_rate"),
    Signal.UNSAFE: (Group.QUALITY, "unsafe_rate"),
    Signal.DISLIKED: (Group.QUALITY, "dislike_rate"),
    Signal.MISSED: (Group.BUSINESS, "missed_rate"),
    Signal.FALSE_ALARM: (Group.BUSINESS, "false_alarm_rate"),
}
QUANTILES = {
    Signal.LATENCY_MS: ("latency", (0.5, 0.95, 0.99)),
    Signal.FIRST_TOKEN_MS: ("first_token", (0.5, 0.95)),
    Signal.QUEUE_MS: ("queue", (0.5, 0.95)),
}
CAME_TRUE, FELL_BACK, CORRECT_COST, LENGTH = "warnings_that_came_true", "fell_back_rate", "cost_per_correct", "length"


def day_of(as_of: date) -> tuple[datetime, datetime]:
    """From when until before when a day is."""
    begin = datetime.combine(as_of, time(), UTC)
    return begin, begin + DAY


def make_window_report(past: Past, as_of: date) -> WindowReport:
    """The window of one day as it is known now; all of its arms, that nobody sees (shadow) as well.

    Raises what the store and the ledger raise: a store that is down is no day without traffic.
    """
    begin, end = day_of(as_of)
    (stretch,) = past.stretches((begin, end))
    tally = WindowTally(past.releases)
    for observed in past.answers(stretch, past.now):
        tally.add(observed)
    refused = sum(conflict.product == past.product for conflict in past.store.conflicts())
    notes = [] if past.now >= end else [f"The day is not over: it is {past.now:%Y-%m-%d %H:%M} UTC for the product."]
    if tally.answers == 0:
        notes.append("Nobody asked.")
    if stretch.sampled:
        notes.append(f"There were more than {tally.answers:,} answers; these are drawn by the hash of their names.")
    return WindowReport(
        product=past.product,
        as_of=as_of,
        time=past.time,
        window_from=begin,
        window_until=end,
        known_until=past.now,
        answers=tally.answers,
        arms=tally.arms(),
        longest_gap_seconds=tally.longest_gap_seconds(),
        skewed=tally.skewed,
        damaged=len(past.damaged),
        conflicts=refused,
        sampled=stretch.sampled,
        notes=tuple(notes),
    )


@dataclass
class _Arm:
    users: dict[str, int] = field(default_factory=dict)
    answers: int = 0
    at: list[datetime] = field(default_factory=list)
    exposures: set[float] = field(default_factory=set)
    columns: defaultdict[str, Column] = field(default_factory=lambda: defaultdict(Column))
    said: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    errors: Counter[str] = field(default_factory=Counter)
    feedback: Counter[str] = field(default_factory=Counter)
    flaws: Counter[Flaw] = field(default_factory=Counter)
    mature: int = 0
    labelled: int = 0


class WindowTally:
    """Answers of one window, folded in one after the other."""

    def __init__(self, releases: Releases) -> None:
        self._releases = releases
        self._arms: defaultdict[tuple[Cohort, str | None], _Arm] = defaultdict(_Arm)
        self._answered: list[datetime] = []
        self.answers = self.skewed = 0

    def add(self, observed: Observed) -> None:
        """One more answer."""
        seen, record = observed.seen, observed.record
        arm = self._arms[seen.cohort, seen.release_id]
        user = arm.users.setdefault(seen.user, len(arm.users))
        self.answers += 1
        arm.answers += 1
        arm.at = [min([*arm.at, seen.at]), max([*arm.at, seen.at])]
        arm.exposures.add(seen.exposure)
        for signal, value in seen.signals.items():
            arm.columns[signal].add(user, value)
        self._add_further(arm, user, observed)
        arm.errors.update(error.kind for error in record.errors)
        arm.feedback.update(one.kind.value for one in observed.answered.feedback if one.response_id is not None)
        arm.flaws.update(observed.label.flaws)
        arm.mature += seen.mature
        arm.labelled += seen.labelled
        self.skewed += any(
            one.given_at is not None and one.given_at > one.received_at + SKEW for one in observed.answered.feedback
        )
        if seen.cohort is not Cohort.SHADOW:
            self._answered.append(record.answered_at)

    def longest_gap_seconds(self) -> float | None:
        """The longest time of ours between two answers."""
        times = sorted(self._answered)
        gaps = [(after - before).total_seconds() for before, after in pairwise(times)]
        return max(gaps, default=None)

    def arms(self) -> tuple[ArmWindow, ...]:
        """What the arms show, by cohort and release."""
        order = sorted(self._arms, key=lambda key: ([*Cohort].index(key[0]), key[1] or ""))
        return tuple(_arm_window(cohort, release_id, self._arms[cohort, release_id]) for cohort, release_id in order)

    def _add_further(self, arm: _Arm, user: int, observed: Observed) -> None:
        record, signals = observed.record, observed.seen.signals
        own = record.route_reason in (RouteReason.ASSIGNED, RouteReason.OVERRIDE)
        arm.columns[FELL_BACK].add(user, float(not own))
        arm.columns[LENGTH].add(user, float(len(record.utterance)))
        missed, alarm = signals.get(Signal.MISSED), signals.get(Signal.FALSE_ALARM)
        if missed == 0.0 or alarm == 1.0:
            arm.columns[CAME_TRUE].add(user, float(missed == 0.0))
        if observed.seen.labelled:
            arm.columns[CORRECT_COST].add(user, record.cost_usd)
            arm.columns["correct"].add(user, float(not missed and not alarm))
        evaluation = self._releases.evaluation(observed.seen.release_id)
        if evaluation is None or not own or record.adapter is None or signals.get(Signal.BLOCKED):
            return
        for name, value in (parse_answer(record.answer, evaluation).fields or {}).items():
            if isinstance(evaluation.fields.get(name), LabelField):
                arm.said[name][str(value)] += 1


def _arm_window(cohort: Cohort, release_id: str | None, arm: _Arm) -> ArmWindow:
    labels = LabelCounts(
        mature=arm.mature,
        labelled=arm.labelled,
        waiting=arm.answers - arm.mature,
        flaws={flaw.value: arm.flaws[flaw] for flaw in Flaw if arm.flaws[flaw]},
    )
    return ArmWindow(
        cohort=cohort,
        release_id=release_id,
        users=len(arm.users),
        answers=arm.answers,
        first_at=arm.at[0],
        last_at=arm.at[1],
        least_exposure=min(arm.exposures),
        most_exposure=max(arm.exposures),
        measures=tuple(_measures(arm)),
        said={name: _shares(counts) for name, counts in sorted(arm.said.items())},
        errors=dict(sorted(arm.errors.items())),
        feedback=dict(sorted(arm.feedback.items())),
        labels=labels,
    )


def _measures(arm: _Arm) -> Iterable[WindowMeasure]:
    columns = arm.columns
    for signal, (group, name) in RATES.items():
        yield _measure(group, name, "share", share_of(columns[signal]))
    yield _measure(Group.INFRASTRUCTURE, FELL_BACK, "share", share_of(columns[FELL_BACK]))
    for signal, (name, quantiles) in QUANTILES.items():
        for q in quantiles:
            yield _measure(Group.INFRASTRUCTURE, f"{name}_p{q * 100:.0f}", "ms", quantile_of(columns[signal], q))
    yield _measure(Group.BUSINESS, CAME_TRUE, "share", share_of(columns[CAME_TRUE]))
    yield _measure(Group.COST, "cost_per_answer", "USD", mean_of(columns[Signal.COST_USD]))
    yield _measure(Group.COST, CORRECT_COST, "USD", _cost_per_correct(columns[CORRECT_COST], columns["correct"]))
    yield _measure(Group.COST, "output_tokens", "tokens", mean_of(columns[Signal.OUTPUT_TOKENS]))
    yield _measure(Group.INPUTS, "input_tokens", "tokens", mean_of(columns[Signal.INPUT_TOKENS]))
    for q in (0.5, 0.95):
        yield _measure(Group.INPUTS, f"{LENGTH}_p{q * 100:.0f}", "characters", quantile_of(columns[LENGTH], q))


def _cost_per_correct(costs: Column, correct: Column) -> Figure:
    """What all labelled answers cost, over those of them that neither missed nor alarmed in vain."""
    right = sum(correct.values)
    value = sum(costs.values) / right if right else None
    return Figure(value, None, None, len(costs.values), len(set(costs.users)))


def _measure(group: Group, name: str, unit: str, figure: Figure) -> WindowMeasure:
    return WindowMeasure.model_validate(
        {
            "group": group,
            "name": name,
            "unit": unit,
            "value": figure.value,
            "low": figure.low,
            "high": figure.high,
            "answers": figure.answers,
            "users": figure.users,
        }
    )


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = counts.total()
    return {name: count / total for name, count in sorted(counts.most_common(MOST_VALUES))}
