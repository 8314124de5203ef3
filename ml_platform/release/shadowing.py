"""Shadowing: a proven release gets copies of users' questions; nobody sees what it answers."""

from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.slot_moves import ShadowClosed, ShadowOpened
from ml_platform.errors import RefusedError
from ml_platform.lineage.replay_rules import UNSERVED
from ml_platform.release.door import Door
from ml_platform.release.moves import Held, Move


def open_shadow(door: Door, release_id: str, reason: str) -> Move | Held:
    """Puts a release into the shadow slot, in the place of what was there.

    It must be proven as a canary must be, for it reads what users ask and costs what they cost. It may be older than
    what serves, and compared with what is in production no more: that is what a shadow is there to find out.
    """
    replay, release, slot = door.transaction.replay, door.find(release_id), door.slot_of(release_id)
    if slot is SlotName.SHADOW:
        return door.already(release_id)
    if slot is not None:
        return Held(replay.product, release_id, because=f"it is in the slot {slot}, where users see its answers")
    if replay.states[release_id] not in UNSERVED:
        return door.already(release_id)
    if SlotName.PRODUCTION not in replay.slots:
        raise RefusedError(
            f"nothing of {replay.product} is in production, whose serving.yaml says how many questions a shadow gets "
            "copies of. Promote a canary first."
        )
    found = door.assess(release)
    if held := door.why_unproven(release, found):
        return held
    door.say(release, found)
    if shadow := replay.slots.get(SlotName.SHADOW):
        door.transaction.append(ShadowClosed(release_id=shadow, reason=f"makes room for release {release_id[:12]}"))
    return door.move(ShadowOpened(release_id=release_id, reason=reason), "became the shadow")


def close_shadow(door: Door, release_id: str, reason: str) -> Move:
    """Takes the release out of the shadow slot; it stays eligible. Raises RefusedError for one that is not there."""
    door.find(release_id)
    return door.move(ShadowClosed(release_id=release_id, reason=reason), "is the shadow no more")
