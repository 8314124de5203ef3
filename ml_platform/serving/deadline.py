"""Deadlines: when an answer is of no more use, decided once at the door and carried through every step, never reset.

A moment on a clock that does not go back, not a duration: what one step spent in a queue is gone for the next one.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Self

from ml_platform.errors import InvalidInputError

HEADER = "x-deadline-ms"
"""The header in which a client says how many milliseconds it will wait."""


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """The moment `at`, in seconds, after which nobody waits any more."""

    at: float

    @classmethod
    def after(cls, seconds: float, now: float) -> Self:
        """The deadline so many seconds from now."""
        return cls(now + seconds)

    def remaining(self, now: float) -> float:
        """The seconds that are left, never below 0."""
        return max(0.0, self.at - now)

    def passed(self, now: float) -> bool:
        """Whether it is too late to begin anything."""
        return now >= self.at

    def within(self, seconds: float, now: float) -> "Deadline":
        """The deadline of one step that may take so long: the step's own or this one, whichever is sooner."""
        return min(self, Deadline.after(seconds, now))


def asked_deadline(header: str | None, now: float, *, default_seconds: float, most_seconds: float) -> Deadline:
    """The deadline that a client asks for, at most `most_seconds` away; without the header, the default.

    Raises InvalidInputError for anything but a positive number of milliseconds.
    """
    if header is None:
        return Deadline.after(min(default_seconds, most_seconds), now)
    try:
        asked = float(header) / 1000.0
    except ValueError:
        asked = float("nan")
    if not isfinite(asked) or asked <= 0.0:
        raise InvalidInputError(
            f"the header {HEADER} is {header[:40]!r}, expected milliseconds, e.g. 2000. Correct it, or leave it out."
        )
    return Deadline.after(min(asked, most_seconds), now)
