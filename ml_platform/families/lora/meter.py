"""How far training is and how fast it goes, told after every pack."""

import time
from dataclasses import dataclass, field

from ml_platform.contracts.progress import Progress, Reporter

STAGE = "train"
FORWARD_COST = 0.5
"""A token that is only read costs about half of one that is learnt."""


@dataclass
class Meter:
    """Counts the work done and reports it; `total` and `done` are in tokens that are learnt."""

    report: Reporter
    total: float
    done: float = 0.0
    loss: float | None = None
    _started: float = field(default_factory=time.monotonic)
    _at_start: float = 0.0

    def resume_at(self, done: float) -> None:
        """Counts work of an earlier process as done without taking it for speed."""
        self.done = self._at_start = done
        self._started = time.monotonic()

    def learnt(self, tokens: int) -> None:
        """A pack of that many tokens was learnt."""
        self._advance(tokens)

    def read(self, tokens: int) -> None:
        """A validation pack of that many tokens was read."""
        self._advance(tokens * FORWARD_COST)

    def tell(self, detail: str) -> None:
        """Reports in words what is being done, at the share that was reached."""
        self.report(Progress(STAGE, min(1.0, self.done / self.total), detail))

    def _advance(self, cost: float) -> None:
        self.done = min(self.total, self.done + cost)
        speed = (self.done - self._at_start) / max(1e-9, time.monotonic() - self._started)
        loss = "" if self.loss is None else f"loss {self.loss:.3f}, "
        left = (self.total - self.done) / speed if speed > 0 else None
        self.report(Progress(STAGE, self.done / self.total, f"{loss}{speed:.0f} tokens/s", left))
