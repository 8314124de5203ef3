"""The door's questions: what holds a release back, asked inside the transaction that would move it."""

from dataclasses import dataclass
from datetime import datetime

from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.events import ReleaseEligible, ReleaseHeld
from ml_platform.contracts.mandatory import why_in_name_only
from ml_platform.contracts.policy import PromotionPolicy, SlotName
from ml_platform.contracts.release import Release
from ml_platform.contracts.slot_moves import (
    CanaryAborted,
    CanaryAdvanced,
    CanaryPaused,
    CanaryResumed,
    ReleasePromoted,
    ShadowClosed,
    ShadowOpened,
)
from ml_platform.errors import NotEligibleError
from ml_platform.lineage.keys import TrustedKeys
from ml_platform.lineage.ledger import Transaction
from ml_platform.lineage.pins import counting_pin, why_not_pinned
from ml_platform.lineage.quarantine import quarantine_in
from ml_platform.lineage.replay_rules import FALLEN
from ml_platform.lineage.standing import PINNED, QUARANTINE, Standing, Trust
from ml_platform.lineage.verification import Eligibility, assess_evidence, outdated_comparisons
from ml_platform.release.moves import Held, Move
from ml_platform.release.reference import why_no_reference

__all__ = ["PINNED", "QUARANTINE", "Door"]


Moving = CanaryAdvanced | CanaryPaused | CanaryResumed | CanaryAborted | ReleasePromoted | ShadowOpened | ShadowClosed


@dataclass(frozen=True)
class Door:
    """One transaction's questions: whose signatures count, and when it is."""

    transaction: Transaction
    trusted: TrustedKeys
    operators: TrustedKeys
    now: datetime

    def find(self, release_id: str) -> Release:
        """The registered release. Raises NotEligibleError for any other."""
        release = self.transaction.replay.releases.get(release_id)
        if release is None:
            raise NotEligibleError(
                f"release {release_id[:12]} of {self.transaction.replay.product} is not in the ledger. "
                "Materialize registered_release first."
            )
        return release

    def policy_of(self, release: Release) -> PromotionPolicy:
        """The policy that the release names, as the ledger keeps it; a file in a working copy counts for nothing."""
        registered = self.find(release.release_id)
        return self.transaction.replay.policies[registered.promotion_policy.content_sha256]

    def assess(self, release: Release) -> Eligibility:
        """What the recorded evidence says of a release now."""
        envelopes = self.transaction.envelopes(release.release_id)
        return assess_evidence(envelopes, self.trusted, self.policy_of(release), release, self.now)

    def why_unproven(self, release: Release, found: Eligibility) -> Held | None:
        """What holds a release off every slot: its policy's pin, its quarantine, its evidence; None for nothing."""
        policy, replay = self.policy_of(release), self.transaction.replay
        if frozen := replay.frozen:
            since = f"since {frozen.recorded_at:%Y-%m-%d %H:%M} UTC by {frozen.actor}"
            because = f"the product is frozen {since}: {frozen.payload['reason']} `mlp unfreeze` lets it go on"
            return Held(release.product, release.release_id, because=because)
        pin = counting_pin(self.transaction.pins(), self.operators)
        if reason := why_not_pinned(release.product, policy.sha256, pin):
            return _held(release, {PINNED: reason})
        if wrong := why_in_name_only(policy):
            command = f"`mlp policy pin {release.product} --reason …`"
            return _held(release, {PINNED: f"In the pinned policy {wrong}. Correct it, and pin it with {command}."})
        quarantine = quarantine_in(replay, release.release_id)
        if quarantine.holds(self.now):
            return _held(release, {QUARANTINE: quarantine.sentence})
        return None if found.eligible else _held(release, dict(found.reasons))

    def why_held(self, release: Release, found: Eligibility) -> Held | None:
        """What holds a release that would serve more users than now, None for nothing."""
        if held := self.why_unproven(release, found):
            return held
        if newer := self._newer_than(release):
            return Held(release.product, release.release_id, because=newer)
        if unproven := why_no_reference(self.transaction, Trust(self.trusted, self.operators), self.now):
            return Held(release.product, release.release_id, because=unproven)
        production = self.transaction.replay.slots.get(SlotName.PRODUCTION)
        outdated = outdated_comparisons(found, self.policy_of(release), production)
        return _held(release, outdated) if outdated else None

    def why_not_again(self, release: Release) -> str:
        """Why production cannot be rolled back to this release; empty when it can.

        It must have been promoted under the policy that was pinned then, with evidence that counted then.
        """
        replay, release_id = self.transaction.replay, release.release_id
        state, promoted = replay.states[release_id], replay.promoted.get(release_id)
        if state is not ReleaseState.SUPERSEDED or promoted is None:
            return f"It is {state}, expected {ReleaseState.SUPERSEDED}."
        trust = Trust(self.trusted, self.operators)
        recorded, pins = tuple(self.transaction.envelopes(release_id)), self.transaction.pins()
        reasons = Standing(replay, recorded, pins, trust, release_id).why_none(promoted, self.now)
        return " ".join(f"{name}: {reason}" for name, reason in reasons.items())

    def say(self, release: Release, found: Eligibility) -> None:
        """Records held or eligible, where that is news; what is held leaves the shadow slot before."""
        replay, release_id = self.transaction.replay, release.release_id
        policy_sha256 = self.policy_of(release).sha256
        said: ReleaseHeld | ReleaseEligible
        if found.expires_at is not None:
            said = ReleaseEligible(release_id=release_id, policy_sha256=policy_sha256, expires_at=found.expires_at)
        else:
            said = ReleaseHeld(release_id=release_id, policy_sha256=policy_sha256, gates=dict(found.reasons))
        if isinstance(said, ReleaseHeld) and replay.slots.get(SlotName.SHADOW) == release_id:
            reason = f"held: {', '.join(said.gates)}"
            self.transaction.append(ShadowClosed(release_id=release_id, reason=reason))
        if replay.states[release_id] in FALLEN or replay.judged.get(release_id) != said:
            self.transaction.append(said)

    def already(self, release_id: str) -> Move | Held:
        """What there is to say of a release that serves, or served before."""
        replay = self.transaction.replay
        if slot := self.slot_of(release_id):
            return Move(replay.product, release_id, slot, self._exposure(slot), replay.epoch, changed=False)
        return Held(replay.product, release_id, because=f"this release was {replay.states[release_id]} before")

    def slot_of(self, release_id: str) -> SlotName | None:
        """The slot that a release is in, None for none."""
        slots = self.transaction.replay.slots
        return next((slot for slot, serving in slots.items() if serving == release_id), None)

    def move(self, payload: Moving, did: str) -> Move:
        """Appends the event that moves a slot; tells where its release is afterwards. Raises RefusedError."""
        event, release_id = self.transaction.append(payload), payload.release_id
        slot = self.slot_of(release_id)
        return Move(self.transaction.replay.product, release_id, slot, self._exposure(slot), event.epoch, True, did)

    def _exposure(self, slot: SlotName | None) -> float:
        """The share of the users whose answers come from a slot."""
        shares = {SlotName.PRODUCTION: 1.0, SlotName.CANARY: self.transaction.replay.exposure}
        return shares.get(slot, 0.0) if slot else 0.0

    def _newer_than(self, release: Release) -> str:
        """Which serving release is newer than this one, in words; empty when none is."""
        replay = self.transaction.replay
        for slot in (SlotName.CANARY, SlotName.PRODUCTION):
            serving = replay.slots.get(slot)
            if serving and replay.releases[serving].data.as_of > release.data.as_of:
                return f"older than the release in {slot}, which is of {replay.releases[serving].data.as_of}"
        return ""


def _held(release: Release, reasons: dict[str, str]) -> Held:
    return Held(release.product, release.release_id, tuple(reasons), reasons)
