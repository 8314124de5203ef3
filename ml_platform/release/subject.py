"""What is under watch: a rollout, or production since the last move, with its policies, its feed and its traffic."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ml_platform.contracts.events import Event
from ml_platform.contracts.policy import CanaryPlan, SlotName
from ml_platform.lineage.replay import Replay
from ml_platform.monitoring.labels import SKEW
from ml_platform.monitoring.observations import Feed
from ml_platform.release.monitor_policies import MonitorPolicies, Watched
from ml_platform.release.situation import Plan
from ml_platform.release.stretches import Stretches, counts_since, stretch_of
from ml_platform.release.traffic import Traffic

NOTHING = Watched(None, "Nothing serves.")

OpenFeed = Callable[[timedelta, datetime | None], Feed]
"""A feed of a product for a label age, of answers given since a time of ours."""


@dataclass
class Subject:
    """One rollout, or production since the last move; `name` tells it from every other."""

    name: tuple[int, str | None]
    plan: Plan
    traffic: Traffic
    feed: Feed
    again: Callable[[], Feed]
    """A feed of the same answers, from their beginning."""
    watched: tuple[Watched, Watched]
    """By which policies the canary and production are watched."""
    age: timedelta
    since: datetime | None
    """Answers given since about then are read, None for all."""

    def has_read(self, age: timedelta, since: datetime | None) -> bool:
        """Whether what was read here, with labels of that age, holds every answer since a time as it is read now."""
        if age != self.age or since is None or (self.since is not None and since < self.since):
            return False
        return self.traffic.holds_since(since - SKEW) and self.feed.is_in_time


def name_of(replay: Replay) -> tuple[int, str | None]:
    """What the subject is called that a replay asks for."""
    base = _base(replay)
    return (base.sequence if base else 0), replay.slots.get(SlotName.PRODUCTION)


def watched_in(replay: Replay, policies: MonitorPolicies) -> tuple[Watched, Watched]:
    """By which policies the canary and production are watched now. Raises what the store raises."""
    canary, production = (
        policies.of(replay.releases[replay.slots[slot]]) if slot in replay.slots else NOTHING
        for slot in (SlotName.CANARY, SlotName.PRODUCTION)
    )
    return canary, production


def subject_of(
    replay: Replay, policies: MonitorPolicies, open_feed: OpenFeed, before: Subject | None = None
) -> Subject:
    """What there is to watch now. Raises what the stores raise.

    What was watched `before` hands on its feed and the answers that it has read, where they reach back far enough: the
    minute around a move is not read again, while a release that has just got users waits to be looked at.
    """
    base = _base(replay)
    base_epoch = base.epoch if base else 0
    canary, production = watched_in(replay, policies)
    judging = canary if SlotName.CANARY in replay.slots else production
    policy = judging.policy or production.policy
    age = timedelta(hours=policy.label_age_hours if policy else 0.0)
    since, served, stretches = base.recorded_at if base else None, replay.served.epoch if replay.served else 0, None
    if since is not None and replay.opened is None:
        wall, stretch = datetime.now(UTC), stretch_of(age)
        since, stretches = max(since, counts_since(wall, stretch)), Stretches(max(served, base_epoch), stretch, wall)
    traffic = Traffic(base_epoch, canary.policy, production.policy, served, stretches)
    handed_on = before if before is not None and before.has_read(age, since) else None
    if handed_on is not None and since is not None:
        traffic.take_over(handed_on.traffic, since - SKEW)
    return Subject(
        name=name_of(replay),
        plan=Plan(_plan_of(replay), judging.policy, judging.why, production.policy),
        traffic=traffic,
        feed=open_feed(age, since) if handed_on is None else handed_on.feed,
        again=lambda: open_feed(age, since),
        watched=(canary, production),
        age=age,
        since=since,
    )


def _base(replay: Replay) -> Event | None:
    return replay.opened or replay.moved


def _plan_of(replay: Replay) -> CanaryPlan | None:
    canary = replay.slots.get(SlotName.CANARY)
    if canary is None:
        return None
    return replay.policies[replay.releases[canary].promotion_policy.content_sha256].canary
