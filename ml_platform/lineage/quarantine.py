"""Quarantine: how long a release that was aborted or rolled back stays out of every slot; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ml_platform.contracts.policy import QuarantineRule


@dataclass(frozen=True)
class Quarantine:
    """The falls of a release and what follows; `until` is None for good, and without any fall."""

    falls: int
    until: datetime | None

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
        until = f"until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else "for good. Train a new candidate"
        return f"It was aborted or rolled back {times} and is quarantined {until}."


def quarantine_of(falls: Sequence[datetime], rule: QuarantineRule) -> Quarantine:
    """The quarantine of a release that was aborted or rolled back at these times, as `Replay.falls` has them."""
    hours = rule.hours(len(falls))
    until = max(falls) + timedelta(hours=hours) if falls and hours is not None else None
    return Quarantine(len(falls), until)
