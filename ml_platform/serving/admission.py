"""Admission: whether a release may serve in the slot that the ledger gives it; pure, with public keys only.

The ledger says what shall serve, and whoever can write to it can say anything. So a gateway asks again what the
controller asked when it moved the slot: is the release registered, did an operator pin its policy, did the evidence
count at that moment, has nothing since taken it back. The chain itself was verified by whoever read the replay.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from ml_platform.contracts.events import Event
from ml_platform.contracts.policy import SlotName
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.standing import Standing, Trust

CLOCK_SKEW = timedelta(minutes=1)
"""How far the clocks of the controller and of a gateway may be apart."""


def assess_admission(
    replay: Replay,
    envelopes: Iterable[bytes],
    pins: Sequence[tuple[Event, bytes]],
    trust: Trust,
    release_id: str,
    slot: SlotName | None,
    now: datetime,
) -> dict[str, str]:
    """What speaks against a release serving in a slot, by name; empty when it may.

    What is in production stands again, too, once it is proven anew; only there, where the alternative is no answer.
    `slot` is None for the release that production would be taken back to. `envelopes` are the release's, `pins` the
    product's, both as recorded, with signatures that nobody verified yet.
    """
    release = replay.releases.get(release_id)
    if release is None:
        return {"registered": f"Release {release_id[:12]} of {replay.product} is not in the ledger."}
    let_in = let_in_by(replay, release_id, slot)
    if let_in is None:
        return {"let_in": f"No event of the ledger let release {release_id[:12]} into {slot or 'production'}."}
    if let_in.recorded_at > now + CLOCK_SKEW:
        moment = f"{let_in.recorded_at:%Y-%m-%d %H:%M:%S} UTC"
        return {"let_in": f"It was let in at {moment}, which is still to come. Correct the clock of whoever moved it."}
    standing = Standing(replay, tuple(envelopes), pins, trust, release_id)
    reasons = standing.why_none(let_in, now)
    if reasons and slot is SlotName.PRODUCTION and standing.is_proven_anew(now):
        reasons = {}
    return reasons | why_off_plan(replay, slot)


def why_off_plan(replay: Replay, slot: SlotName | None) -> dict[str, str]:
    """What speaks against the canary's exposure: it must be the one of its step in its policy's plan."""
    if slot is not SlotName.CANARY:
        return {}
    release = replay.releases[replay.slots[slot]]
    steps = replay.policies[release.promotion_policy.content_sha256].canary.steps
    planned = dict(enumerate(steps, start=1)).get(replay.canary_step)
    if planned == replay.exposure:
        return {}
    plan = "has no such step" if planned is None else f"says {planned:.0%}"
    return {"exposure": f"Step {replay.canary_step} gives it {replay.exposure:.0%}; the plan {plan}."}


def let_in_by(replay: Replay, release_id: str, slot: SlotName | None) -> Event | None:
    """The event that let a release into its slot: the opening of the canary or the shadow, or the promotion."""
    if slot in (SlotName.CANARY, SlotName.SHADOW):
        opened = replay.opened if slot is SlotName.CANARY else replay.shadowed
        return opened if opened is not None and opened.payload["release_id"] == release_id else None
    return replay.promoted.get(release_id)
