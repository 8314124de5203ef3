"""What this worker of the gateway itself serves, told beside what the ledger says should."""

from collections.abc import Mapping
from dataclasses import dataclass

from ml_platform.serving.deployment import Deployments


@dataclass(frozen=True)
class Stance:
    """One product at this worker: the epoch that it serves, with which releases, and those that it lacks.

    `problems` is what keeps the worker from following the ledger, or from its engine, in sentences.
    """

    epoch: int | None
    production: str | None
    canary: str | None
    shadow: str | None
    exposure: float
    missing: tuple[str, ...]
    problems: tuple[str, ...]


def stance_of(product: str, deployments: Deployments, problems: Mapping[str, str]) -> Stance:
    """The stance now; no I/O."""
    said = tuple(problems.values())
    found = deployments.of(product)
    if found is None:
        return Stance(None, None, None, None, 0.0, (), said)
    table = found.table
    return Stance(
        epoch=table.epoch,
        production=table.production,
        canary=table.canary,
        shadow=table.shadow,
        exposure=table.exposure,
        missing=tuple(sorted(found.missing)),
        problems=said,
    )
