"""Progress of long work, as a value and as the one sentence that people and the CLI both read."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a stage is: `share` in [0, 1], `detail` in words, `seconds_left` when it can be told."""

    stage: str
    share: float
    detail: str = ""
    seconds_left: float | None = None

    def sentence(self) -> str:
        """For logs and the terminal: `train 42 % · loss 0.412, 640 tokens/s · 1:20 left`."""
        parts = [f"{self.stage} {math.floor(self.share * 100 + ROUNDING)} %"]
        if self.detail:
            parts.append(self.detail)
        if self.seconds_left is not None:
            minutes, seconds = divmod(max(0, round(self.seconds_left)), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        return " · ".join(parts)

    @classmethod
    def parse(cls, sentence: str) -> "Progress | None":
        """The progress that a sentence tells (share to a hundredth), or None for any other text."""
        match = _SENTENCE.match(sentence.strip())
        if match is None:
            return None
        told = match["minutes"] is not None
        left = int(match["minutes"]) * 60.0 + int(match["seconds"]) if told else None
        return cls(match["stage"], int(match["percent"]) / 100, match["detail"] or "", left)


_SENTENCE = re.compile(
    r"^(?P<stage>[A-Za-z][\w -]*?) (?P<percent>\d{1,3}) %"
    r"(?: · (?P<detail>(?!\d+:\d\d left$).+?))?"
    r"(?: · (?P<minutes>\d+):(?P<seconds>\d\d) left)?$"
)

ROUNDING = 1e-9
"""57 / 100 * 100 is a little less than 57."""

Reporter = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """A reporter for callers who want no progress."""
