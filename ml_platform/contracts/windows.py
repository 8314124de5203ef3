"""Windows: a stretch of live traffic with its measurements, and whether quality fell since a release began to serve."""

from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from ml_platform.contracts.base import Contract, Finite, Name, Sha256, Share
from ml_platform.contracts.canonical import digest
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.routing import Cohort
from ml_platform.contracts.serving import ServingTime

Count = Annotated[int, Field(ge=0)]
Effect = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Group(StrEnum):
    """What a measurement is about."""

    INFRASTRUCTURE = "infrastructure"
    QUALITY = "quality"
    BUSINESS = "business"
    COST = "cost"
    INPUTS = "inputs"


class WindowMeasure(Contract):
    """One measurement of one arm: of `answers` by `users`, with one-sided 95 % bounds that respect who asked often.

    `value` is None where no answer counts.
    """

    group: Group
    name: Name
    unit: Literal["share", "ms", "USD", "tokens", "characters"]
    value: Finite | None
    low: Finite | None = None
    high: Finite | None = None
    answers: Count
    users: Count


class LabelCounts(Contract):
    """What became of the answers' labels by the time that the report knows.

    `mature` have reached the label age, `labelled` of them have a label that counts; the others wait or never got one.
    `flaws` counts outcomes of mature answers that are no label, by the reason.
    """

    mature: Count
    labelled: Count
    waiting: Count
    flaws: dict[Name, Count] = {}

    @property
    def coverage(self) -> float | None:
        """The share of mature answers with a label, None where none is mature."""
        return self.labelled / self.mature if self.mature else None


class ArmWindow(Contract):
    """One arm of one release within a window: everybody who was assigned to it.

    `said` has the values of the answers' label fields with their shares, `errors` the kinds that were recorded,
    `feedback` what people said, by its kind.
    """

    cohort: Cohort
    release_id: Sha256 | None
    users: Count
    answers: Count
    first_at: AwareDatetime
    last_at: AwareDatetime
    least_exposure: Share
    most_exposure: Share
    measures: tuple[WindowMeasure, ...]
    said: dict[str, dict[str, Share]] = {}
    errors: dict[Name, Count] = {}
    feedback: dict[Name, Count] = {}
    labels: LabelCounts

    def measure(self, name: str) -> WindowMeasure | None:
        """The measurement of that name."""
        return next((one for one in self.measures if one.name == name), None)


class WindowReport(Contract):
    """The answers given on the day `as_of` of the product's time, arm by arm, as known at `known_until`.

    `arms` is empty where nobody asked. `longest_gap_seconds` is the longest time of ours without an answer, None for
    fewer than two. `skewed` are records that a clock must have been wrong for, `damaged` those that the store could
    not give; `sampled` says that there were more answers than are measured here, `conflicts` counts what the store
    refused of this product so far.
    """

    product: Name
    as_of: date
    time: ServingTime
    window_from: AwareDatetime
    window_until: AwareDatetime
    known_until: AwareDatetime
    answers: Count
    arms: tuple[ArmWindow, ...]
    longest_gap_seconds: Finite | None = None
    skewed: Count = 0
    damaged: Count = 0
    conflicts: Count = 0
    sampled: bool = False
    notes: tuple[str, ...] = ()


class QualityPeriod(Contract):
    """One side of a comparison: the share of bad answers, with one-sided bounds, and how far labels cover answers."""

    value: Share | None
    low: Share | None = None
    high: Share | None = None
    answers: Count
    users: Count
    coverage: Share | None = None


class QualityChange(Contract):
    """One metric now against the release's first days.

    FAIL is a proven fall of at least the margin, or a share that is proven to be above `at_most`; PASS that there is
    none as large as the margin. `change` is now minus then, with bounds; `effect` counts margins, and is at least 1
    for a FAIL.
    """

    metric: Name
    signal: Signal
    verdict: Verdict
    reason: str
    before: QualityPeriod
    now: QualityPeriod
    change: Finite | None = None
    change_low: Finite | None = None
    change_high: Finite | None = None
    margin: Finite
    at_most: Share
    effect: Effect = 0.0


class QualityReport(Contract):
    """Whether the quality of the release in production fell, on answers whose labels were mature at the end of `as_of`.

    FAIL is a proven fall, PASS that there is none, by any metric; INCONCLUSIVE and ERROR prove neither. The window is
    of answers given from `window_from` until before `window_until`, the newest that can be mature; before them the
    release's first days are what it is compared with. `labelled` counts the labels that matured on that very day.
    There is no clock reading in it: the same records give the same bytes.
    """

    product: Name
    as_of: date
    verdict: Verdict
    reason: str
    effect: Effect
    release_id: Sha256 | None
    window_from: AwareDatetime
    window_until: AwareDatetime
    before_from: AwareDatetime | None = None
    before_until: AwareDatetime | None = None
    metrics: tuple[QualityChange, ...] = ()
    labelled: Count
    monitor_policy_sha256: Sha256
    sampled: bool = False

    @property
    def fallen(self) -> tuple[str, ...]:
        """The metrics by which quality fell, the farthest first."""
        found = [one for one in self.metrics if one.verdict is Verdict.FAIL]
        return tuple(one.metric for one in sorted(found, key=lambda one: (-one.effect, one.metric)))

    @property
    def evidence_sha256(self) -> str:
        """The digest of what a trigger acts on: equal reports about the same release and day have the same."""
        return digest(
            {
                "product": self.product,
                "as_of": self.as_of.isoformat(),
                "release_id": self.release_id,
                "verdict": self.verdict.value,
                "fallen": list(self.fallen),
            }
        )
