"""A product whose folder cannot be read: it shows its error and takes no other product down."""

import re
from pathlib import Path

from dagster import AssetsDefinition, asset

from ml_platform.contracts.products import load_product
from ml_platform.errors import MlPlatformError
from resources.reporting import readable_failures


def broken_product_asset(folder: Path, error: Exception) -> AssetsDefinition:
    """`<folder>/cannot_be_read`, whose description is the error; materialized, it tells whether it still holds."""
    said = error if isinstance(error, MlPlatformError) else f"{type(error).__name__}: {error}"
    name = re.sub(r"\W+", "_", folder.name, flags=re.ASCII)

    @asset(
        key=[name, "cannot_be_read"],
        group_name=name,
        kinds={"yaml"},
        tags={"ml_platform/broken": "true"},
        description=f"**This product has no chain, for its folder cannot be read.**\n\n```\n{said}\n```\n\n"
        "Correct the file and reload the code location; `mlp doctor` shows the same message.",
    )
    def cannot_be_read() -> None:
        with readable_failures():
            load_product(folder)

    return cannot_be_read
