"""What there is to play: questions that travellers ask and outcomes that follow, made by the product's hook."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ml_platform.contracts.products import Product
from ml_platform.contracts.provenance import Entity, Scalar, entity_key
from ml_platform.errors import ContractError, InvalidInputError, MlPlatformError, SourceDataError
from ml_platform.lineage.artifacts import Artifact
from ml_platform.snapshots.extract import load_table, manifest_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that somebody asks at a moment; `name` tells it from all others of the product."""

    at: datetime
    name: str
    user: str
    utterance: str
    metadata: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Happened:
    """What happened to an entity and was known at a moment; `name` is its idempotency key."""

    at: datetime
    name: str
    entity: Entity
    values: Mapping[str, Scalar | None]


@dataclass(frozen=True)
class TrafficContext:
    """What a hook makes traffic of; it is called as `traffic(context) -> Iterable[Asked | Happened]`.

    Questions belong to moments from `first` until before `until`; the snapshot sees further, so that outcomes which
    came later are there. Who asks, what and when is to be drawn by `draw`, so that the same days are always the same.
    """

    product: Product
    snapshot: Artifact
    first: datetime
    until: datetime
    users: int
    seed: int = 0

    def table(self, name: str) -> "pd.DataFrame":
        """A table of the snapshot."""
        return load_table(self.snapshot, name)

    def draw(self, name: str) -> float:
        """A number in [0, 1) that belongs to a name: a fair draw, the same on every machine."""
        found = hashlib.sha256(f"{self.seed}\n{name}".encode()).digest()
        return int.from_bytes(found[:6], "big") / (1 << 48)

    def user(self, name: str) -> str:
        """The traveller to whom a name belongs; a few of them ask often, most of them seldom."""
        place = self.users * self.draw(f"user of {name}") ** 1.3
        return f"traveller-{int(place):05d}"


@dataclass(frozen=True)
class Traffic:
    """Questions and outcomes, each in the order of time, and how many questions the limit left out."""

    product: str
    first: datetime
    until: datetime
    questions: Sequence[Asked]
    outcomes: Sequence[Happened]
    left_out: int


def make_traffic(context: TrafficContext, limit: int | None = None) -> Traffic:
    """The traffic of the days, at most `limit` questions of it, drawn evenly, with the outcomes that concern them.

    Raises InvalidInputError for a product that says nothing of its traffic and for a snapshot that ends too early,
    SourceDataError for a hook that fails or makes no question.
    """
    product, reference = context.product, context.product.serving.replay
    if reference is None:
        raise InvalidInputError(
            f"{product.folder / (product.spec.files.serving or 'serving.yaml')}: {product.name} names no traffic to "
            "replay. Add `replay: replay.py:traffic` and write that function."
        )
    if manifest_of(context.snapshot).cutoff < context.until:
        raise InvalidInputError(f"the snapshot ends before {context.until:%Y-%m-%d %H:%M}. Take a later one.")
    made = _call(context, reference)
    asked = [one for one in made if isinstance(one, Asked) and context.first <= one.at < context.until]
    if not asked:
        raise SourceDataError(
            f"hook {reference} of {product.name} made no question from {context.first:%Y-%m-%d} until before "
            f"{context.until:%Y-%m-%d}. Choose days that the sources cover."
        )
    chosen = sorted(asked, key=lambda one: context.draw(f"limit {one.name}"))[:limit]
    keys = product.serving.entity
    entities = {entity_key(_entity(one.metadata, keys)) for one in chosen}
    happened = [one for one in made if isinstance(one, Happened) and entity_key(one.entity) in entities]
    return Traffic(
        product=product.name,
        first=context.first,
        until=context.until,
        questions=sorted(chosen, key=lambda one: (one.at, one.name)),
        outcomes=sorted(happened, key=lambda one: (one.at, one.name)),
        left_out=len(asked) - len(chosen),
    )


def _call(context: TrafficContext, reference: str) -> list[Asked | Happened]:
    product = context.product
    try:
        made: Iterable[Asked | Happened] = product.hook(reference)(context)
        found = list(made)
    except MlPlatformError:
        raise
    except Exception as error:
        raise SourceDataError(
            f"hook {reference} of {product.name} raised {type(error).__name__}: {error}. Correct the hook."
        ) from error
    for one in found:
        if not isinstance(one, Asked | Happened):
            raise ContractError(f"hook {reference} of {product.name} made a {type(one).__name__}: Asked or Happened.")
        if one.at.tzinfo is None:
            raise ContractError(f"hook {reference} of {product.name}: '{one.name}' has a time without a zone.")
    return found


def _entity(metadata: Mapping[str, Scalar], keys: Iterable[str]) -> Entity:
    return {key: value for key in keys if isinstance(value := metadata.get(key), int | str)}
