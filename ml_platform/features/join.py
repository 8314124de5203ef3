"""The point-in-time join: for every row, the features as they were known at its moment."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product
from ml_platform.contracts.source import ColumnType
from ml_platform.errors import ContractError, InvalidInputError
from ml_platform.features.definitions import (
    EVENT_TIME,
    checked_features,
    definitions_sha256,
    entity_types,
    feast_name,
    feast_objects,
    feature_type,
)
from ml_platform.features.store import OFFLINE_STORE, open_store
from ml_platform.lineage.artifacts import Artifact

if TYPE_CHECKING:
    import pandas as pd

_PANDAS_TYPES = {
    ColumnType.STRING: "object",
    ColumnType.INTEGER: "Int64",
    ColumnType.NUMBER: "float64",
    ColumnType.BOOLEAN: "boolean",
}


def join_features(
    product: Product,
    features: Artifact,
    entities: "pd.DataFrame",
    home: Home,
    *,
    offline_store: str = OFFLINE_STORE,
) -> "pd.DataFrame":
    """`entities` (entity columns and `event_timestamp`) with all features of the service added, sorted by name.

    Same rows, same order, same index. A feature tells what was known at the row's `event_timestamp`:
    nothing that happened or became known later enters, and nothing older than its view's ttl. What was
    not known is missing: NaN in numbers (float64), NA in integers (Int64) and booleans, None in text.
    Raises InvalidInputError for missing columns, wrong types and times without zone, ContractError when
    the features were built by other definitions than the product has now.
    """
    spec = checked_features(product)
    require_same_definitions(product, features)
    asked = _asked(product, spec, entities)
    # Rows that ask for the same are joined once; both calls number them in the order of their first appearance.
    number = asked.groupby(list(asked.columns), sort=False, dropna=False).ngroup()
    unique = asked.drop_duplicates(ignore_index=True)
    home.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="join-", dir=home.work) as folder:
        store = open_store(Path(folder), offline_store)
        for name in spec.views:  # DuckDB reads by path: what it reads are the very bytes that are hashed here
            (Path(folder) / f"{name}.parquet").write_bytes(features.read(f"{name}.parquet"))
        store.apply(feast_objects(product, Path(folder)))
        service = store.get_feature_service(feast_name(product.name, spec.service))
        numbered = unique.assign(asked_row=range(len(unique)))
        job = store.get_historical_features(numbered, features=service, filter_by_created_timestamp=True)
        table = job.to_arrow().sort_by("asked_row") if len(unique) else None
    added = _typed(product, spec, table).take(number.to_numpy()).set_axis(entities.index)
    return entities.assign(**{name: added[name] for name in spec.feature_names})


def require_same_definitions(product: Product, features: Artifact) -> None:
    """Raises ContractError unless the artifact is this product's features by its present definitions."""
    if features.kind != "features" or features.facts["product"] != product.name:
        raise ContractError(
            f"{features.kind} {features.sha256[:12]} does not hold the features of {product.name}. "
            "Pass what build_features returned for this product."
        )
    now, then = definitions_sha256(product), features.facts["definitions_sha256"]
    if now != then:
        raise ContractError(
            f"features {features.sha256[:12]} were built by definitions {then[:12]}, the product has {now[:12]} now. "
            "Build the features again."
        )


def _asked(product: Product, spec: FeatureSpec, entities: "pd.DataFrame") -> "pd.DataFrame":
    """The entity columns and times alone, checked."""
    import pandas as pd

    needed = [*spec.entity_columns, EVENT_TIME]
    missing = [name for name in needed if name not in entities.columns]
    if missing:
        raise InvalidInputError(
            f"rows to join have no column {', '.join(missing)}; found {', '.join(map(str, entities.columns))}. "
            f"{product.name} needs {', '.join(needed)}."
        )
    taken = [name for name in spec.feature_names if name in entities.columns]
    if taken:
        raise InvalidInputError(
            f"rows to join already have the features {', '.join(taken)}. Drop these columns; the join adds them."
        )
    asked = entities[needed].reset_index(drop=True)
    times = asked[EVENT_TIME]
    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        raise InvalidInputError(
            f"column '{EVENT_TIME}' is {times.dtype}, expected times with a zone. "
            "Convert it with pd.to_datetime(…, utc=True)."
        )
    if times.isna().any():
        raise InvalidInputError(
            f"column '{EVENT_TIME}' is empty in row {int(times.isna().to_numpy().argmax())} (counted from 0). "
            "Every row needs a time."
        )
    asked[EVENT_TIME] = times.dt.tz_convert("UTC").dt.as_unit("us")
    for name, kind in entity_types(product).items():
        asked[name] = _entity_values(asked[name], kind)
    return asked


def _entity_values(column: "pd.Series", kind: ColumnType) -> "pd.Series":
    """Values of the entity's own type: a join of 7 with "7" would quietly find nothing."""
    import pandas as pd

    filled = column.dropna()
    if kind is ColumnType.INTEGER:
        fits = pd.api.types.is_integer_dtype(filled) or filled.map(lambda v: type(v) is int).all()
    else:
        fits = filled.map(lambda v: isinstance(v, str)).all()
    if not fits:
        raise InvalidInputError(
            f"entity column '{column.name}' is {column.dtype}, first value {filled.iloc[0]!r}; expected {kind}. "
            "Convert it to the type that the column has in the source."
        )
    return column.astype("Int64") if kind is ColumnType.INTEGER else column.astype("object").where(column.notna(), None)


def _typed(product: Product, spec: FeatureSpec, table: Any) -> "pd.DataFrame":
    """The joined features in pandas, with types that do not depend on which values happen to be missing."""
    import pandas as pd
    import pyarrow as pa

    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    kinds = {name: feature_type(product, view, name) for view in spec.views.values() for name in view.feature_names}
    return pd.DataFrame(
        {
            name: table[name].to_pandas(types_mapper=nullable.get).astype(_PANDAS_TYPES[kinds[name]])
            if table is not None
            else pd.Series([], dtype=_PANDAS_TYPES[kinds[name]])
            for name in spec.feature_names
        }
    )
