"""Triggers: why a run of continuous training started by itself; recorded in the release that came of it."""

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from ml_platform.contracts.base import Contract, Sha256


class TriggerKind(StrEnum):
    """What may start a run; a product's monitor policy says which of them do."""

    DRIFT = "drift"
    QUALITY = "quality"
    NEW_LABELS = "new_labels"
    CALENDAR = "calendar"
    DEPRECATION = "deprecation"

    @property
    def accumulates(self) -> bool:
        """Whether it grows by itself as time goes by: only its doubling is news after a candidate that failed."""
        return self not in (TriggerKind.DRIFT, TriggerKind.QUALITY)


class Trigger(Contract):
    """One start: `evidence_sha256` names what was found, `attempt` counts the runs that the same evidence started.

    `strength` is the finding in units of the policy's threshold, so 1 is just enough; `at` is the product's time.
    """

    kind: TriggerKind
    reason: Annotated[str, Field(min_length=1, max_length=1000)]
    evidence_sha256: Sha256
    strength: Annotated[float, Field(ge=1.0, allow_inf_nan=False)]
    attempt: Annotated[int, Field(ge=1)]
    at: AwareDatetime
