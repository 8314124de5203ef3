"""Rolling back: production goes to an earlier release, whole, and what served is quarantined."""

from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.slot_moves import ReleaseRolledBack
from ml_platform.errors import RefusedError
from ml_platform.release.door import Door
from ml_platform.release.moves import Held, Move


def roll_back(door: Door, reason: str, to: str | None) -> Move | Held:
    """Takes production back to `to`, or to the release that served last of those that may serve again."""
    replay = door.transaction.replay
    product, current = replay.product, replay.slots.get(SlotName.PRODUCTION)
    if current is None:
        raise RefusedError(f"nothing of {product} is in production: there is nothing to roll back.")
    reasons: dict[str, str] = {}
    for release_id in [to] if to else [one for one in reversed(replay.promoted) if one != current]:
        if reason_against := door.why_not_again(door.find(release_id)):
            reasons[release_id[:12]] = reason_against
            continue
        event = door.transaction.append(ReleaseRolledBack(release_id=current, to=release_id, reason=reason))
        did = f"rolled back from {current[:12]}"
        return Move(product, release_id, SlotName.PRODUCTION, 1.0, event.epoch, changed=True, did=did)
    found = " ".join(f"{name}: {why}" for name, why in reasons.items()) or "none was ever promoted."
    return Held(product, current, (), reasons, f"no earlier release may serve again: {found}")
