"""Freezing: while a product is frozen, nothing of it goes forward, and no training starts by itself."""

from ml_platform.contracts.decided import ProductFrozen, ProductUnfrozen
from ml_platform.release.door import Door


def freeze(door: Door, reason: str) -> bool:
    """Whether this call froze the product."""
    if door.transaction.replay.frozen:
        return False
    door.transaction.append(ProductFrozen(reason=reason))
    return True


def unfreeze(door: Door, reason: str) -> bool:
    """Whether this call let the product go on."""
    if not door.transaction.replay.frozen:
        return False
    door.transaction.append(ProductUnfrozen(reason=reason))
    return True
