"""What was known online: features and lookups of any moment of the year, published as time goes by, or back."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from ml_platform.errors import OperationError
from ml_platform.features.publication import CURRENT, shelf_of

if TYPE_CHECKING:
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.products import Product
    from ml_platform.lineage.artifacts import Artifact
    from ml_platform.serving.replay.travellers import GatewayClient

FOUND_WITHIN_SECONDS = 60.0


@dataclass(frozen=True)
class Online:
    """One snapshot of the whole time that is played, with the features of each definition that serves."""

    home: "Home"
    snapshot: "Artifact"
    products: "Sequence[tuple[Product, Artifact | None]]"

    async def publish(self, client: "GatewayClient", at: datetime) -> None:
        """Puts online what was known at a moment, earlier or later than now; returns when the gateway reads it.

        Raises OperationError when it does not.
        """
        from ml_platform.features.online import publish_online

        began, new = time.time(), False
        for product, features in self.products:
            snapshot = self.snapshot if product.serving.lookups else None
            put = partial(publish_online, product, features, self.home, at, snapshot=snapshot, going_back=True)
            published = await asyncio.to_thread(put)
            shelf = shelf_of(self.home, product.name, published.definitions_sha256, product.serving.lookups)
            new = new or (shelf / CURRENT).stat().st_mtime >= began
        name = self.products[0][0].name
        if new and not await client.finds_features(name, began, seconds=FOUND_WITHIN_SECONDS):
            raise OperationError(f"the gateway did not open the features of {at:%Y-%m-%d %H:%M}. Its log says why.")
