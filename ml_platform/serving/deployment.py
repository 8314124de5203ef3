"""What serves: admitted releases, a product at one epoch, and the one pointer a product that workers read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.contracts.policy import ActionPolicy
from ml_platform.contracts.product import GuardrailSpec, PromptSpec
from ml_platform.contracts.release import Release
from ml_platform.contracts.serving import ServingContent
from ml_platform.serving.routing import RoutingTable

if TYPE_CHECKING:
    from ml_platform.serving.loaded import LoadedRelease


@dataclass(frozen=True)
class AdmittedRelease:
    """A release whose evidence, policies and bytes verified, with every content that it names by digest.

    `adapter_path` holds the verified bytes, staged privately and read-only; `adapter_name` is what the engine calls
    them: product and digest, so that a name never means two things.
    """

    release: Release
    release_id: str
    serving: ServingContent
    prompt: PromptSpec
    guardrails: GuardrailSpec
    action_policy: ActionPolicy | None
    adapter_name: str
    adapter_path: Path


@dataclass(frozen=True)
class Deployment:
    """One product at one epoch, swapped as one pointer: whoever holds it sees nothing change under his hands.

    `releases` are those of the table that are loaded; one that is not cannot answer.
    """

    table: RoutingTable
    releases: Mapping[str, "LoadedRelease"] = field(default_factory=dict)

    @property
    def missing(self) -> frozenset[str]:
        """Releases that the table names and that are not loaded."""
        return frozenset(self.table.releases) - self.releases.keys()


class Deployments:
    """The deployments of all products; one writer swaps, readers never wait."""

    def __init__(self) -> None:
        self._current: dict[str, Deployment] = {}

    def of(self, product: str) -> Deployment | None:
        """The product's deployment, or None for a product that does not serve here."""
        return self._current.get(product)

    def products(self) -> tuple[str, ...]:
        """The products that serve here, sorted."""
        return tuple(sorted(self._current))

    def swap(self, deployment: Deployment) -> Deployment | None:
        """Puts a deployment in the place of the product's former one, which is returned.

        Raises ValueError for an epoch before the one that serves: whoever follows the ledger only goes forward.
        """
        table = deployment.table
        former = self._current.get(table.product)
        if former is not None and table.epoch < former.table.epoch:
            raise ValueError(
                f"'{table.product}' serves epoch {former.table.epoch} and {table.epoch} is older. Read the ledger anew."
            )
        # One assignment: a reader sees the one or the other.
        self._current = {**self._current, table.product: deployment}
        return former

    def remove(self, product: str) -> None:
        """Takes a product out; requests that hold its deployment finish with it."""
        self._current = {name: one for name, one in self._current.items() if name != product}
