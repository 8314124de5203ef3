"""Our own clock as a controller reads it, which a test lets run ahead."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from ml_platform.release import watching


@dataclass
class Wall:
    """The time on the wall, and a little more."""

    ahead: timedelta = timedelta(0)

    @classmethod
    def of(cls, monkeypatch: Any) -> "Wall":
        """The clock that controllers look at from here on."""
        wall = cls()
        monkeypatch.setattr(watching, "datetime", wall)
        return wall

    def now(self, zone: tzinfo = UTC) -> datetime:
        """The time now."""
        return datetime.now(zone) + self.ahead
