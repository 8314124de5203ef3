"""The drift report: how far a window of days is from what production's release learnt from, and what moved."""

from datetime import date
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from ml_platform.contracts.base import Column, Contract, Name, Sha256, Share
from ml_platform.contracts.canonical import digest
from ml_platform.contracts.evidence import Verdict

Rows = Annotated[int, Field(ge=0)]
Distance = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class DriftPart(StrEnum):
    """What is compared: features and source tables of the days, and what people asked and were answered in them."""

    FEATURES = "features"
    TABLES = "tables"
    PROMPTS = "prompts"
    OUTPUTS = "outputs"


class Moved(StrEnum):
    """What a comparison shows. UNCLEAR looks moved, and so few independent rows cannot prove it."""

    DRIFTED = "drifted"
    STEADY = "steady"
    UNCLEAR = "unclear"
    NOT_TESTED = "not_tested"


class Distances(Contract):
    """How far apart two distributions are, whatever the number of rows; None for what does not fit the column.

    `psi` in nats, over categories or, for the share of empty cells, in `missing`; `ks` is the greatest difference of
    the distribution functions; `wasserstein` counts standard deviations of the reference; `embedding` is the share of
    the embeddings' variance that lies between the two sides, `novelty` that of prompts which resemble nothing learnt.
    """

    psi: Distance | None = None
    ks: Distance | None = None
    wasserstein: Distance | None = None
    missing: Distance | None = None
    embedding: Distance | None = None
    novelty: Distance | None = None


class ColumnDrift(Contract):
    """One column of a table (or view), over all rows or over one slice of them, against the reference.

    `method` is the distance that decides, with its `effect`, `threshold` and `p_value`, which is corrected for all
    columns that the part tested. `new_values` are categories that the reference does not have, `new_share` their rows.
    """

    part: DriftPart
    table: Name
    column: Column
    slice: dict[str, str] = {}
    moved: Moved
    reason: str
    method: str | None = None
    effect: Distance | None = None
    threshold: Distance | None = None
    p_value: Share | None = None
    distances: Distances = Distances()
    reference_rows: Rows
    current_rows: Rows
    reference_value: str = ""
    current_value: str = ""
    new_values: tuple[str, ...] = ()
    new_share: Share = 0.0

    @property
    def name(self) -> str:
        """For people: `weather.temperature_f` or `weather.temperature_f where origin is EWR`."""
        where = " and ".join(f"{name} is {value}" for name, value in self.slice.items())
        return f"{self.table}.{self.column}" + (f" where {where}" if where else "")

    @property
    def times_threshold(self) -> float:
        """The effect in units of its threshold, 0 for a column that was not tested."""
        return (self.effect or 0.0) / self.threshold if self.threshold else 0.0


class PartDrift(Contract):
    """One part's verdict: FAIL for drift, PASS for none, INCONCLUSIVE where too little is there to tell.

    `effect` is how far it moved in units of the policy's threshold: drift begins at 1.
    """

    part: DriftPart
    verdict: Verdict
    reason: str
    effect: Distance = 0.0
    tested: Rows = 0
    drifted: Rows = 0
    unclear: Rows = 0


class GoldenHealth(Contract):
    """One golden set: how old its newest question is, and how much of what people ask it resembles.

    `coverage` is the share of sampled live prompts that have a golden one close by, None without live prompts.
    """

    golden_set: Name
    version: str
    examples: Rows
    newest: date | None
    age_days: Annotated[int, Field(ge=0)] | None
    coverage: Share | None
    warning: str | None


class DriftReport(Contract):
    """What moved in the days from `window_from` until before `window_until`, as known at the end of day `as_of`.

    The reference is what release `release_id` learnt from, which was in production when the report was made; compare
    it with what is there now. FAIL is drift; INCONCLUSIVE, and ERROR, prove neither drift nor that there is none.
    `effect` is the largest of the parts, in units of the policy's thresholds: at 1 and above it is drift, if proven.
    `columns` holds everything that was compared, `slices` only those that moved. There is no clock reading in it: the
    same data gives the same bytes.
    """

    product: Name
    as_of: date
    window_from: AwareDatetime
    window_until: AwareDatetime
    verdict: Verdict
    reason: str
    effect: Distance
    release_id: Sha256 | None
    reference_as_of: date | None
    reference_snapshot_sha256: Sha256 | None
    current_snapshot_sha256: Sha256
    monitor_policy_sha256: Sha256
    parts: tuple[PartDrift, ...]
    columns: tuple[ColumnDrift, ...] = ()
    slices: tuple[ColumnDrift, ...] = ()
    golden: tuple[GoldenHealth, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether drift is proven."""
        return self.verdict is Verdict.FAIL

    @property
    def moved(self) -> tuple[str, ...]:
        """The names of the columns that drifted, the farthest beyond its threshold first."""
        found = [one for one in self.columns if one.moved is Moved.DRIFTED]
        found.sort(key=lambda one: (-one.times_threshold, one.name))
        return tuple(one.name for one in found)

    @property
    def evidence_sha256(self) -> str:
        """The digest of what a trigger acts on: equal reports about the same release and day have the same."""
        return digest(
            {
                "product": self.product,
                "as_of": self.as_of.isoformat(),
                "release_id": self.release_id,
                "verdict": self.verdict.value,
                "moved": list(self.moved),
            }
        )
