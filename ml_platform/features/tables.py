"""Feature tables as they lie on disk: the newest that were built, and the newest row of each entity."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.contracts.feature_spec import FeatureViewSpec
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product
from ml_platform.errors import ArtifactCorruptError
from ml_platform.features.definitions import CREATED_TIME, EVENT_TIME, definitions_sha256
from ml_platform.features.store import sql_name
from ml_platform.lineage.artifact_files import MANIFEST, read_manifest

if TYPE_CHECKING:
    import pandas as pd


def latest_known(view: FeatureViewSpec, file: Path, at: datetime) -> "pd.DataFrame":
    """For each entity the newest row whose event and creation both lie at or before `at`, unless its ttl has passed."""
    import duckdb
    import pandas as pd
    import pyarrow as pa

    keys = ", ".join(map(sql_name, view.entity))
    fresh = "true"
    if view.ttl_hours is not None:
        fresh = f"{EVENT_TIME} >= $at - to_microseconds({round(view.ttl_hours * 3_600_000_000)})"
    connection = duckdb.connect()
    try:
        # Intervals and times must not depend on the zone of the machine.
        connection.execute("SET TimeZone = 'UTC'")
        table = connection.sql(
            f"""
            SELECT * FROM read_parquet($file)
            WHERE {EVENT_TIME} <= $at AND {CREATED_TIME} <= $at AND {fresh}
            QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {EVENT_TIME} DESC, {CREATED_TIME} DESC) = 1
            ORDER BY {keys}
            """,  # noqa: S608 - the names are quoted
            params={"file": str(file), "at": at},
        ).to_arrow_table()
    finally:
        connection.close()
    found: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get)
    return found


def newest_features(product: Product, home: Home) -> Path:
    """The folder of the product's features with the latest cutoff and the present definitions.

    Before the first are built, a folder that does not exist yet. For people who look around; what a
    run uses is always handed to it.
    """
    root, definitions = home.artifacts / "features", definitions_sha256(product)
    found: list[tuple[str, str]] = []
    for path in sorted(root.glob(f"*/{MANIFEST}")):
        try:
            facts = read_manifest(path, "features", path.parent.name).facts
        except ArtifactCorruptError:
            continue
        if (facts["product"], facts["definitions_sha256"]) == (product.name, definitions):
            found.append((facts["cutoff"], path.parent.name))
    return root / (max(found)[1] if found else "not_built_yet")
