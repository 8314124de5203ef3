"""What came of a replay so far, by release and cohort."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ml_platform.contracts.evaluation_spec import CostSpec
from ml_platform.serving.replay.travellers import Answer

NOBODY = "none"
STATUSES = ("answered", "blocked", "fallback")


@dataclass
class Arm:
    """The answers of one release to one cohort."""

    statuses: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0

    def add(self, answer: Answer) -> None:
        """One more answer."""
        self.statuses[answer.status or NOBODY] += 1
        self.latencies_ms.append(answer.latency_ms)
        self.input_tokens += answer.input_tokens
        self.output_tokens += answer.output_tokens

    def cost_usd(self, cost: CostSpec) -> float:
        """What its tokens cost."""
        read, written = self.input_tokens * cost.input_usd_per_million, self.output_tokens * cost.output_usd_per_million
        return (read + written) / 1e6


@dataclass
class Tally:
    """How far a replay is; `event_time` is the time of the past that it has come to."""

    product: str
    event_time: datetime
    questions: int
    outcomes: int
    cost: CostSpec
    asked: int = 0
    arms: dict[tuple[str, str], Arm] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    outcomes_sent: int = 0
    publications: int = 0

    def add(self, answer: Answer) -> None:
        """One more question came to an end."""
        if answer.code == 200:
            self.arms.setdefault((answer.release_id or NOBODY, answer.cohort or NOBODY), Arm()).add(answer)
        elif answer.failed:
            self.failed[answer.error or str(answer.code)] += 1
        else:
            self.refused[answer.error or str(answer.code)] += 1

    def count(self, status: str) -> int:
        """The answers that came as answered, blocked or fallback."""
        return sum(arm.statuses[status] for arm in self.arms.values())

    @property
    def replies(self) -> int:
        """All questions that got a reply, whatever its status."""
        return sum(len(arm.latencies_ms) for arm in self.arms.values())

    @property
    def cost_usd(self) -> float:
        """What all answers cost."""
        return sum(arm.cost_usd(self.cost) for arm in self.arms.values())

    def latency_ms(self, share: float) -> float | None:
        """A quantile over all replies, None before the first."""
        return quantile([took for arm in self.arms.values() for took in arm.latencies_ms], share)

    def json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "product": self.product,
            "event_time": self.event_time.isoformat(),
            "questions": self.questions,
            "asked": self.asked,
            "replies": self.replies,
            **{status: self.count(status) for status in STATUSES},
            "refused": dict(self.refused),
            "failed": dict(self.failed),
            "latency_ms": {"p50": self.latency_ms(0.5), "p95": self.latency_ms(0.95)},
            "cost_usd": self.cost_usd,
            "outcomes": self.outcomes,
            "outcomes_sent": self.outcomes_sent,
            "publications": self.publications,
            "arms": [
                {
                    "release_id": None if release == NOBODY else release,
                    "cohort": cohort,
                    **{status: arm.statuses[status] for status in STATUSES},
                    "p50_ms": quantile(arm.latencies_ms, 0.5),
                    "p95_ms": quantile(arm.latencies_ms, 0.95),
                    "input_tokens": arm.input_tokens,
                    "output_tokens": arm.output_tokens,
                    "cost_usd": arm.cost_usd(self.cost),
                }
                for (release, cohort), arm in sorted(self.arms.items())
            ],
        }


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value below which that share of them lies, None for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
