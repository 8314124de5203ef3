"""Every product's features as Feast objects, for Feast's command line and UI (Feast imports each .py here).

The views read the newest feature tables below ML_PLATFORM_HOME; before a product's first run they name files that
do not exist yet, which is enough to look at the definitions.
"""

import os
from pathlib import Path

from ml_platform.contracts.home import Home
from ml_platform.contracts.products import load_product, product_folders
from ml_platform.features.definitions import feast_objects
from ml_platform.features.tables import newest_features

ROOT = Path(__file__).resolve().parent.parent
HOME = Home.from_environment() if os.environ.get("ML_PLATFORM_HOME") else Home(ROOT / ".ml_platform")

for folder in product_folders(ROOT / "products").values():
    product = load_product(folder)
    if product.features is None:
        continue
    for number, found in enumerate(feast_objects(product, newest_features(product, HOME))):
        # Feast collects the module's attributes; their names mean nothing to it.
        globals()[f"{product.name}_{number}"] = found
