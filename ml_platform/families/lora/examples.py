"""Examples: rows of a snapshot become questions with facts and answers, by a hook or by templates."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

from ml_platform.contracts.example import Example
from ml_platform.contracts.products import Product
from ml_platform.errors import ContractError, MlPlatformError, SourceDataError
from ml_platform.lineage.artifacts import Artifact
from ml_platform.snapshots.extract import load_table, manifest_of
from ml_platform.snapshots.spelling import plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Drawn", "ExamplesContext", "Join", "draw_examples", "plain"]

Join = Callable[["pd.DataFrame"], "pd.DataFrame"]
"""Rows of entity columns and `event_timestamp` in, the same rows with the features known at that moment out."""


@dataclass(frozen=True)
class ExamplesContext:
    """What a product's examples are made of; the hook is called as `build(context) -> list[Example]`."""

    product: Product
    snapshot: Artifact
    max_examples: int
    seed: int
    join_features: Join | None
    aside: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def as_of(self) -> date:
        """The day of the snapshot."""
        return manifest_of(self.snapshot).as_of

    @property
    def cutoff(self) -> datetime:
        """The moment up to which the snapshot sees, UTC."""
        return manifest_of(self.snapshot).cutoff

    def table(self, name: str) -> "pd.DataFrame":
        """A table of the snapshot: only what was known at the cutoff."""
        return load_table(self.snapshot, name)

    def join(self, entities: "pd.DataFrame") -> "pd.DataFrame":
        """The rows of `entities` with every feature as known at their `event_timestamp`, in the same order.

        Raises ContractError when the product declares no features.
        """
        if self.join_features is None:
            raise ContractError(
                f"{self.product.name}: the examples ask for features, but product.yaml names none. "
                "Add files.features, or make the examples from tables alone."
            )
        return self.join_features(entities)

    def taught(self) -> list[Example]:
        """Questions that were really asked, with the answers that users and labellers said would have been right.

        Their slices are empty. A hook that wants them returns them beside its own; of what it leaves out, `set_aside`
        keeps the reason.
        """
        from ml_platform.families.lora.taught import taught_examples

        return taught_examples(self)

    def set_aside(self, said_id: str, reason: str) -> None:
        """Takes out what somebody said, or the example with that id, and keeps why."""
        self.aside[said_id] = reason

    def order(self, name: str) -> str:
        """Where a hash with the seed puts a name: a fair draw that no order of rows can change."""
        return hashlib.sha256(f"{self.seed}\n{name}".encode()).hexdigest()


BEYOND_MAXIMUM = "beyond max_examples"
"""Why most rows of a large source become no example: nothing is wrong with them."""


@dataclass(frozen=True)
class Drawn:
    """Examples, and how many rows gave none, by reason."""

    examples: list[Example]
    left_out: Counter[str]


def draw_examples(context: ExamplesContext) -> Drawn:
    """The product's examples by its hook or its templates, at most `max_examples` of them from templates.

    Raises ContractError for templates and facts that name no column, SourceDataError for a failing hook.
    """
    spec = context.product.spec.examples
    if spec.hook:
        return Drawn(_by_hook(context, spec.hook), Counter())
    from ml_platform.families.lora.declared import declared_examples

    drawn = declared_examples(context)
    return Drawn([*drawn.examples, *context.taught()], drawn.left_out)


def _by_hook(context: ExamplesContext, reference: str) -> list[Example]:
    try:
        made = list(context.product.hook(reference)(context))
    except MlPlatformError:
        raise
    except Exception as error:
        raise SourceDataError(
            f"hook {reference} of {context.product.name} raised {type(error).__name__}: {error}. "
            "Correct the hook or its input."
        ) from error
    strange = next((one for one in made if not isinstance(one, Example)), None)
    if strange is not None:
        raise SourceDataError(
            f"hook {reference} of {context.product.name} returned a {type(strange).__name__}, expected only Examples."
        )
    return made
