"""Standing: whether a release that a slot holds was rightly let in, by the rules of the controller; pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from ml_platform.contracts.events import Event
from ml_platform.contracts.policy import PromotionPolicy
from ml_platform.contracts.release import Release
from ml_platform.lineage.key_values import TrustedKeys
from ml_platform.lineage.pins import counting_pin, why_not_pinned
from ml_platform.lineage.quarantine import quarantine_in
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.verification import DAMAGED, assess_as_of, assess_evidence, assess_served

PINNED = "policy_pinned"
"""The name under which a policy that is not the pinned one holds a release."""

QUARANTINE = "quarantine"
"""The name under which earlier aborts and rollbacks hold a release."""


@dataclass(frozen=True)
class Trust:
    """Whose signatures count: under evidence, and under pins of policies. Public keys only."""

    evidence: TrustedKeys
    operators: TrustedKeys

    @property
    def before_revocations(self) -> Self:
        """The same, as if no key had been revoked."""
        evidence, operators = (
            {name: key.model_copy(update={"revoked": False}) for name, key in role.items()}
            for role in (self.evidence, self.operators)
        )
        return replace(self, evidence=evidence, operators=operators)


@dataclass(frozen=True)
class Standing:
    """What is on record of a registered release, and whose word counts: by this its standing is judged.

    `envelopes` are the release's and `pins` the product's, both as recorded, their signatures not verified yet.
    """

    replay: Replay
    envelopes: Sequence[bytes]
    pins: Sequence[tuple[Event, bytes]]
    trust: Trust
    release_id: str

    def why_none(self, let_in: Event, now: datetime) -> dict[str, str]:
        """What speaks against a release that the event `let_in` put where it is, by name; empty for nothing.

        Its policy must have been the pinned one then, its evidence must have counted then, and nothing that was
        measured since may take that back; whoever fell serves out his quarantine. That evidence expires later counts
        for nothing.
        """
        quarantine = quarantine_in(self.replay, self.release_id)
        if quarantine.holds(now):
            return {QUARANTINE: quarantine.sentence}
        if reason := self._why_not_pinned(self._pins_before(let_in), self.trust):
            return {PINNED: f"When it was let in: {reason}"}
        evidence = self.trust.evidence
        served = assess_served(self.envelopes, evidence, self._policy, self._release, let_in.recorded_at, now)
        return dict(served.reasons)

    def is_proven_anew(self, now: datetime) -> bool:
        """Whether the release is proven as it would have to be to open now, whatever counted before.

        The way back for what serves, when a key that let it in was revoked: pin its policy and evaluate it again.
        """
        if quarantine_in(self.replay, self.release_id).holds(now) or self._why_not_pinned(self.pins, self.trust):
            return False
        return assess_evidence(self.envelopes, self.trust.evidence, self._policy, self._release, now).eligible

    def why_never_proven(self, let_in: Event) -> str:
        """Why the release was not rightly let in by an event; empty when it was, and others may be measured by it.

        Keys count that were revoked since, and what was found out since does not: a better release must be able to
        come after one that does harm. Nor do envelopes that do not verify, or whoever can append would stop every
        release.
        """
        trusts, before = (self.trust, self.trust.before_revocations), self._pins_before(let_in)
        pinned = [self._why_not_pinned(before, one) for one in trusts]
        if all(pinned):
            return pinned[0]
        at = let_in.recorded_at
        found = [assess_as_of(self.envelopes, one.evidence, self._policy, self._release, at).reasons for one in trusts]
        lacks = [{gate: reason for gate, reason in reasons.items() if gate != DAMAGED} for reasons in found]
        return " ".join(f"{gate}: {reason}" for gate, reason in lacks[0].items()) if all(lacks) else ""

    @property
    def _release(self) -> Release:
        return self.replay.releases[self.release_id]

    @property
    def _policy(self) -> PromotionPolicy:
        return self.replay.policies[self._release.promotion_policy.content_sha256]

    def _pins_before(self, let_in: Event) -> list[tuple[Event, bytes]]:
        return [(event, envelope) for event, envelope in self.pins if event.sequence < let_in.sequence]

    def _why_not_pinned(self, pins: Sequence[tuple[Event, bytes]], trust: Trust) -> str:
        return why_not_pinned(self._release.product, self._policy.sha256, counting_pin(pins, trust.operators))
