"""Freezing: while a product is frozen, nothing of it goes forward, and no training starts by itself."""

from ml_platform.contracts.decided import ProductFrozen, ProductUnfrozen
from ml_platform.release.door import Door


def freeze(door: Door, reason: str) -> bool:
    """Whether this call froze the product. Raises ContractError for a reason that is too long."""
    if door.transaction.replay.frozen:
        return False
    door.transaction.append(ProductFrozen.parse({"reason": reason}, where="the freeze"))
    return True


def unfreeze(door: Door, reason: str) -> bool:
    """Whether this call let the product go on. Raises ContractError like `freeze`."""
    if not door.transaction.replay.frozen:
        return False
    door.transaction.append(ProductUnfrozen.parse({"reason": reason}, where="the end of the freeze"))
    return True
