"""Feature definitions: features.yaml checked against the sources, its digest, and the same as Feast objects."""

import difflib
from datetime import timedelta
from pathlib import Path
from typing import Any

from ml_platform.contracts.canonical import digest, sources_sha256
from ml_platform.contracts.feature_spec import FeatureSpec, FeatureViewSpec
from ml_platform.contracts.products import Product
from ml_platform.contracts.source import ColumnType, SourceSpec
from ml_platform.errors import ContractError

EVENT_TIME = "event_timestamp"
CREATED_TIME = "created_timestamp"

NO_MEANING = frozenset({"lookups.py", "online.py", "opened.py", "publication.py", "reading.py", "skew.py"})
"""Modules of this package that give no feature its meaning; a new one does until it is named here."""

_ENTITY_TYPES = (ColumnType.STRING, ColumnType.INTEGER)
_NUMERIC_TYPES = (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.BOOLEAN)


def definitions_sha256(product: Product) -> str:
    """The digest of everything that gives a feature its meaning, whatever the order of keys.

    It covers features.yaml, the types and times of the columns it uses, and the code of this package that computes,
    joins and stores features; code that only publishes or reads what was computed may change under a release.
    Raises ContractError for a product without features.
    """
    spec = checked_features(product)
    here = Path(__file__).parent
    code = [path for path in here.rglob("*.py") if path.name not in NO_MEANING]
    sources = {
        name: {
            "columns": {column: str(kind) for column, kind in product.spec.sources[name].columns.items()},
            "known_at": known_column(product.spec.sources[name]),
            "event_time": product.spec.sources[name].event_time,
            "known_ahead": product.spec.sources[name].known_ahead,
        }
        for name in {view.source for view in spec.views.values()}
    }
    return digest({"spec": spec.model_dump(mode="json"), "sources": sources, "code_sha256": sources_sha256(code, here)})


def checked_features(product: Product) -> FeatureSpec:
    """The product's feature spec, whose every column exists in its source and has a fitting type.

    Raises ContractError that names the view, the feature and the nearest known column.
    """
    if product.features is None:
        raise ContractError(
            f"{product.folder / 'product.yaml'}: key 'files.features' is missing: {product.name} has no features. "
            "Add a features.yaml and name it there."
        )
    where = product.folder / (product.spec.files.features or "features.yaml")
    for name, view in product.features.views.items():
        _check_view(f"{where}: view '{name}'", view, product.spec.sources)
    types: dict[str, ColumnType] = {}
    for name, view in product.features.views.items():
        for column in view.entity:
            found = product.spec.sources[view.source].columns[column]
            if types.setdefault(column, found) is not found:
                raise ContractError(
                    f"{where}: view '{name}': entity column '{column}' is {found} in source '{view.source}' but "
                    f"{types[column]} in another view. Give it one type."
                )
    return product.features


def known_column(source: SourceSpec) -> str | None:
    """The column that tells when a row became known; None for rows that always were."""
    return source.known_at or (None if source.known_ahead else source.event_time)


def feature_type(product: Product, view: FeatureViewSpec, feature: str) -> ColumnType:
    """The type of a feature: counts are integers, other aggregates numbers, the rest as in the source."""
    if feature in view.aggregates:
        return ColumnType.INTEGER if view.aggregates[feature].function == "count" else ColumnType.NUMBER
    return product.spec.sources[view.source].columns[view.columns[feature]]


def entity_types(product: Product) -> dict[str, ColumnType]:
    """Every entity column, sorted, with its type, which is the same in every view."""
    spec = checked_features(product)
    found = {c: product.spec.sources[view.source].columns[c] for view in spec.views.values() for c in view.entity}
    return dict(sorted(found.items()))


def feast_objects(product: Product, folder: Path, *, published: bool = False) -> list[Any]:
    """Entities, sources, views and the service of a product; `folder` holds `<view>.parquet`.

    Names start with the product, so that all products fit one Feast project. `published` views also
    carry the exact time of their event as a feature, because Feast's SQLite store rounds times to
    seconds and moves those that fall into a change of daylight-saving time.
    """
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
    from feast import types as feast_types

    value_types = {ColumnType.STRING: ValueType.STRING, ColumnType.INTEGER: ValueType.INT64}
    field_types = {
        ColumnType.STRING: feast_types.String,
        ColumnType.INTEGER: feast_types.Int64,
        ColumnType.NUMBER: feast_types.Float64,
        ColumnType.BOOLEAN: feast_types.Bool,
    }
    spec, keys = checked_features(product), entity_types(product)
    entities = {
        column: Entity(
            name=feast_name(product.name, column),
            join_keys=[column],
            value_type=value_types[kind],
            owner=product.spec.owner,
        )
        for column, kind in keys.items()
    }
    views = [
        FeatureView(
            name=feast_name(product.name, name),
            entities=[entities[column] for column in view.entity],
            ttl=timedelta(hours=view.ttl_hours or 0),
            schema=[
                *(Field(name=c, dtype=field_types[keys[c]]) for c in view.entity),
                *(Field(name=f, dtype=field_types[feature_type(product, view, f)]) for f in view.feature_names),
                *([Field(name=event_feature(name), dtype=feast_types.Int64)] if published else []),
            ],
            source=FileSource(
                name=feast_name(product.name, name),
                path=str(folder / f"{name}.parquet"),
                timestamp_field=EVENT_TIME,
                created_timestamp_column=CREATED_TIME,
            ),
            description=_describe(view),
            owner=product.spec.owner,
        )
        for name, view in sorted(spec.views.items())
    ]
    service = FeatureService(
        name=feast_name(product.name, spec.service),
        features=views,
        description=f"What {product.spec.title} sees",
        tags={"product": product.name, "definitions_sha256": definitions_sha256(product)},
        owner=product.spec.owner,
    )
    return [*entities.values(), *(view.batch_source for view in views), *views, service]


def feast_name(product: str, name: str) -> str:
    """The name of an object of a product in Feast, where all products share one project."""
    return f"{product}__{name}"


def event_feature(view: str) -> str:
    """The name under which a published view carries the time of its event, in microseconds since the epoch."""
    return f"{view}__event_us"


def _describe(view: FeatureViewSpec) -> str:
    if view.columns:
        return f"Rows of {view.source} as they became known"
    return f"Trailing windows over {view.source}, every {view.every_hours:g} h"


def _check_view(where: str, view: FeatureViewSpec, sources: dict[str, SourceSpec]) -> None:
    if view.source not in sources:
        raise ContractError(f"{where}: unknown source '{view.source}': {nearest(view.source, list(sources))}")
    source = sources[view.source]
    for column in view.entity:
        _require(f"{where}: entity", column, source, _ENTITY_TYPES)
    for name, column in view.columns.items():
        _require(f"{where}: feature '{name}'", column, source, (ColumnType.STRING, *_NUMERIC_TYPES))
    for name, aggregate in view.aggregates.items():
        wanted = tuple(ColumnType) if aggregate.function == "count" else _NUMERIC_TYPES
        _require(f"{where}: feature '{name}'", aggregate.column, source, wanted)
    if view.aggregates and known_column(source) is None:
        raise ContractError(
            f"{where}: source '{view.source}' does not tell when its rows became known, so nothing can be "
            "aggregated over time. Give the source known_at or event_time in product.yaml."
        )


def _require(where: str, column: str, source: SourceSpec, wanted: tuple[ColumnType, ...]) -> None:
    if column not in source.columns:
        raise ContractError(f"{where}: unknown column '{column}': {nearest(column, list(source.columns))}")
    if source.columns[column] not in wanted:
        raise ContractError(
            f"{where}: column '{column}' is {source.columns[column]}, expected one of {', '.join(wanted)}. "
            "Choose another column or convert it in the source."
        )


def nearest(name: str, known: list[str]) -> str:
    """The end of a message about an unknown name: the known one that looks most like it, or all of them."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{found[0]}'?" if found else f"known: {', '.join(known)}."
