"""The evaluation report: everything that the gates look at, as one value."""

from typing import Annotated

from pydantic import Field

from ml_platform.contracts.base import Contract, Name, Sha256
from ml_platform.contracts.evidence import CheckResult, Comparison, Measurement


class Decoding(Contract):
    """How answers are generated; greedy unless a temperature is given."""

    max_new_tokens: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(ge=0.0)] = 0.0


class EvaluationReport(Contract):
    """What was measured of one candidate against one reference, with the digests of all inputs.

    `reference` is `base` for the bare base model, otherwise the release id of production.
    `inputs` maps names (`snapshot`, `training_set`, `candidate`, `golden:<name>`) to digests.
    `notes` say in words what was left out or could not be measured, and why.
    """

    product: Name
    candidate_sha256: Sha256
    reference: str
    decoding: Decoding
    confidence: float
    inputs: dict[str, str]
    measurements: tuple[Measurement, ...]
    comparisons: tuple[Comparison, ...]
    checks: tuple[CheckResult, ...]
    notes: tuple[str, ...] = ()

    def measurement(self, metric: str) -> Measurement | None:
        """The measurement of a metric over all items, or None."""
        for found in self.measurements:
            if found.metric == metric and not found.slice:
                return found
        return None

    def check(self, name: str) -> CheckResult | None:
        """The result of a check of the chain, or None."""
        return next((check for check in self.checks if check.check == name), None)
