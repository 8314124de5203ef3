"""Features of a product as features.yaml declares them: what trails what, and by which keys."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ml_platform.contracts.base import Contract, Name

RESERVED_FEATURE_NAMES = frozenset(
    {"event_timestamp", "created_timestamp", "event_expire_timestamp", "entity_row_id", "entity_row", "rn"}
)
"""Columns that the point-in-time join itself makes."""


class AggregateSpec(Contract):
    """One trailing feature: a function of a column over a window that ends when the feature is known.

    Empty cells count for nothing: `count` counts the filled cells, the others are over filled cells.
    """

    function: Literal["mean", "count", "sum", "min", "max"]
    column: str
    window_hours: Annotated[float, Field(gt=0.0, le=876_000.0)]


class FeatureViewSpec(Contract):
    """A table of features for one entity.

    With `aggregates`, rows stand at every `every_hours` of a fixed grid and look back; with
    `columns`, rows of the source pass through as they became known. `ttl_hours` is how old a
    value may be and still be used; null: any age.
    """

    source: Name
    entity: Annotated[tuple[str, ...], Field(min_length=1)]
    every_hours: Annotated[float, Field(ge=1 / 60, le=876_000.0)] | None = None
    aggregates: dict[Name, AggregateSpec] = {}
    columns: dict[Name, str] = {}
    ttl_hours: Annotated[float, Field(gt=0.0, le=876_000.0)] | None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.aggregates) == bool(self.columns):
            raise ValueError("a feature view has either aggregates or columns")
        if bool(self.aggregates) != (self.every_hours is not None):
            raise ValueError("every_hours belongs to aggregates, which need it")
        if self.every_hours and self.ttl_hours and self.ttl_hours < self.every_hours:
            raise ValueError("ttl_hours is shorter than every_hours: between two rows no value would be valid")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of its features, sorted."""
        return tuple(sorted({**self.aggregates, **self.columns}))


class FeatureSpec(Contract):
    """features.yaml: the feature views and the service that names what the model sees."""

    service: Name
    views: Annotated[dict[Name, FeatureViewSpec], Field(min_length=1)]

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [name for view in self.views.values() for name in view.feature_names]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"feature names must be unique in a product, repeated: {', '.join(repeated)}")
        # Feast's join marks columns that it drops by a final _y, and joins names with a double underscore.
        refused = sorted(n for n in names if n in RESERVED_FEATURE_NAMES or n.endswith("_y") or "__" in n)
        if refused:
            raise ValueError(
                f"feature names that the join needs for itself: {', '.join(refused)}. Rename them: no final '_y', "
                f"no '__', none of {', '.join(sorted(RESERVED_FEATURE_NAMES))}"
            )
        # DuckDB, which joins, takes Origin and origin for one.
        taken = {name.casefold() for name in (*names, *RESERVED_FEATURE_NAMES)}
        if clash := sorted(column for column in self.entity_columns if column.casefold() in taken):
            raise ValueError(
                "these are both an entity column and a feature or reserved name, whatever their case: "
                f"{', '.join(clash)}. Rename the features"
            )
        folded = [column.casefold() for column in self.entity_columns]
        if alike := [column for column in self.entity_columns if folded.count(column.casefold()) > 1]:
            raise ValueError(f"entity columns that differ in their case only: {', '.join(alike)}. Rename all but one")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Every feature of the service, sorted: the columns that a join adds."""
        return tuple(sorted(name for view in self.views.values() for name in view.feature_names))

    @property
    def entity_columns(self) -> tuple[str, ...]:
        """Every column that a row needs to be joined, sorted."""
        return tuple(sorted({column for view in self.views.values() for column in view.entity}))
