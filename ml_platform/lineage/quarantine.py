"""Quarantine: how long a release that was aborted or rolled back stays out of every slot; pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.events import Event
from ml_platform.contracts.policy import QuarantineRule
from ml_platform.lineage.replay import Replay


@dataclass(frozen=True)
class Quarantine:
    """The falls of a release and what follows; `until` is None for good, and without any fall.

    `fell_as` is the release that fell last where that was another one that does the same.
    """

    falls: int
    until: datetime | None
    fell_as: str | None = None

    @property
    def for_good(self) -> bool:
        """Whether the release never serves again."""
        return self.falls > 0 and self.until is None

    def holds(self, now: datetime) -> bool:
        """Whether the release is quarantined at `now`."""
        return self.for_good or (self.until is not None and now < self.until)

    @property
    def sentence(self) -> str:
        """For people: how often it fell, and until when it stays out."""
        times = "once" if self.falls == 1 else f"{self.falls} times"
        other = f", as release {self.fell_as[:12]} with another trigger or commit," if self.fell_as else ""
        until = f"until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else "for good. Train a new candidate"
        return f"It was aborted or rolled back {times}{other} and is quarantined {until}."


def quarantine_of(falls: Sequence[datetime], rule: QuarantineRule) -> Quarantine:
    """The quarantine of a release that was aborted or rolled back at these times."""
    hours = rule.hours(len(falls))
    until = max(falls) + timedelta(hours=hours) if falls and hours is not None else None
    return Quarantine(len(falls), until)


def quarantine_in(replay: Replay, release_id: str) -> Quarantine:
    """The quarantine of a registered release: its falls are those of all that do the same under another id.

    Whoever runs a day again, or from another commit, has the same bytes under the same rules: they are no better.
    """
    policy = replay.policies[replay.releases[release_id].promotion_policy.content_sha256]
    falls = falls_of(replay, release_id)
    found = quarantine_of([event.recorded_at for event in falls], policy.quarantine)
    fell = falls[-1].payload["release_id"] if falls else release_id
    return found if fell == release_id else replace(found, fell_as=fell)


def falls_of(replay: Replay, release_id: str) -> list[Event]:
    """The aborts and rollbacks that count for a registered release, in the order of the chain.

    What is in production answers for those from before it came there: a canary that does the same and is aborted
    says nothing against it that the controller would not have seen of production itself.
    """
    falls = replay.falls.get(replay.releases[release_id].behaviour_sha256, []) if replay.falls else []
    if replay.states[release_id] is not ReleaseState.PRODUCTION or replay.served is None:
        return list(falls)
    return [event for event in falls if event.sequence < replay.served.sequence]
