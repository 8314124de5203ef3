"""Evidence: what one gate measured of one release, and the verdict it reached."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from ml_platform.contracts.base import Contract, Finite, Name, Sha256


class Verdict(StrEnum):
    """Only PASS lets anything through."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"


class Measurement(Contract):
    """One number with its uncertainty; `slice` is empty for all items together.

    `low` and `high` are one-sided confidence bounds at the policy's confidence, None where none applies.
    A value that could not be computed is None, never NaN.
    """

    metric: Name
    value: Finite | None
    n: Annotated[int, Field(ge=0)]
    low: Finite | None = None
    high: Finite | None = None
    unit: str = ""
    slice: dict[str, str] = {}


class Comparison(Contract):
    """A paired difference, candidate minus reference, over the same items.

    `low` is the one-sided lower bound; `detectable` the smallest loss that this test would have
    seen with 80 % power; `p_value` is exact McNemar for binary metrics, None for others.
    """

    metric: Name
    candidate: Finite | None
    reference: Finite | None
    difference: Finite | None
    low: Finite | None
    high: Finite | None
    detectable: Finite | None
    p_value: Finite | None = None
    n: Annotated[int, Field(ge=0)]
    slice: dict[str, str] = {}


class CheckResult(Contract):
    """What a check of the chain found; `problems` are sentences, empty when all is well."""

    check: Name
    passed: bool
    examined: Annotated[int, Field(ge=0)]
    problems: tuple[str, ...] = ()


class GateResult(Contract):
    """One gate's verdict with its reason and the numbers it rests on."""

    gate: Name
    claim: str
    verdict: Verdict
    reason: str
    measurements: tuple[Measurement, ...] = ()
    comparisons: tuple[Comparison, ...] = ()


class Producer(Contract):
    """Who measured: the component, its version and the digest of its sources."""

    component: str
    version: str
    source_sha256: Sha256


class Evidence(Contract):
    """The predicate of the in-toto statement whose subject is the release id."""

    product: Name
    release_id: Sha256
    result: GateResult
    policy_sha256: Sha256
    inputs: dict[str, str]
    producer: Producer
    measured_at: AwareDatetime
    expires_at: AwareDatetime

    def expired(self, now: datetime) -> bool:
        """Whether the evidence no longer counts at `now`."""
        return now >= self.expires_at


class Made(Contract):
    """The predicate of the in-toto statement that a machine signs of what it made; its subject is the artifact.

    Bytes that fit their digest tell nothing of who put them there: this does.
    """

    kind: Name
    recipe_sha256: Sha256
    artifact_sha256: Sha256
