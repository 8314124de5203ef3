"""Reach: whether what a product's requests bring leads to every row, feature and fact that its answers need."""

from collections.abc import Iterator, Mapping

from ml_platform.contracts.explain import nearest_name
from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.serving import LookupSpec, ServingSpec
from ml_platform.contracts.source import ColumnType, SourceSpec

KEY_TYPES = (ColumnType.STRING, ColumnType.INTEGER)


def unreached(
    serving: ServingSpec,
    sources: Mapping[str, SourceSpec],
    features: FeatureSpec | None,
    facts: tuple[str, ...],
) -> Iterator[str]:
    """Every lookup that names nothing, and every key or fact that no request would lead to, a sentence each.

    `facts` are those that a question was judged with, where no hook makes them: one that nothing brings would be None
    in every live answer.
    """
    row = {*serving.entity, *serving.given}
    for name, lookup in serving.lookups.items():
        here = f"lookup '{name}'"
        yield from unfit_lookup(here, lookup, sources)
        for key in lookup.key:
            if key not in row:
                yield f"{here}: nothing brings its key '{key}'. Add it to entity or given, or look it up before."
        row |= {*lookup.columns}
    for key in features.entity_columns if features else ():
        if key not in row:
            yield f"nothing brings '{key}', by which features are kept. Add it to given or to a lookup."
    known = {*row, *(features.feature_names if features else ())}
    if serving.facts is None:
        for fact in facts:
            if fact not in known:
                yield (
                    f"nothing brings the fact '{fact}', with which every question was judged. "
                    "Add it to given or to a lookup."
                )


def unfit_lookup(where: str, lookup: LookupSpec, sources: Mapping[str, SourceSpec]) -> Iterator[str]:
    """What a lookup names that its source does not have, or cannot be found by."""
    source = sources.get(lookup.source)
    if source is None:
        yield f"{where}: unknown source '{lookup.source}': {nearest_name(lookup.source, [*sources])}"
        return
    for column in dict.fromkeys((*lookup.key, *lookup.columns)):
        if column not in source.columns:
            yield f"{where}: unknown column '{column}': {nearest_name(column, [*source.columns])}"
    for column in lookup.key:
        if source.columns.get(column, ColumnType.STRING) not in KEY_TYPES:
            yield (
                f"{where}: key '{column}' is {source.columns[column]}, expected one of {', '.join(KEY_TYPES)}. "
                "Choose another column or convert it in the source."
            )
    read = {*lookup.key, *lookup.columns, *source.key, source.event_time, source.known_at}
    for column in (one for one in source.columns if one in read):
        twin = next((one for one in source.columns if one != column and one.lower() == column.lower()), None)
        if twin is not None:
            yield (
                f"{where}: source '{lookup.source}' has '{column}' and '{twin}': their case alone cannot tell them "
                "apart. Rename one where the source is made, or leave it out."
            )
    if lookup.keep_hours is not None and source.event_time is None and source.known_column is None:
        yield (
            f"{where}: keep_hours needs a time, but source '{lookup.source}' has neither event_time nor known_at. "
            "Leave keep_hours out, or declare the times in product.yaml."
        )
