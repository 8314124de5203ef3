"""Standing: whether a release that a slot holds was rightly let in, by the rules of the controller; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from ml_platform.contracts.events import Event
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


def why_no_standing(
    replay: Replay,
    envelopes: Iterable[bytes],
    pins: Sequence[tuple[Event, bytes]],
    trust: Trust,
    release_id: str,
    let_in: Event,
    now: datetime,
) -> dict[str, str]:
    """What speaks against a registered release that the event `let_in` put where it is, by name; empty for nothing.

    Its policy must have been the pinned one then, its evidence must have counted then, and nothing that was measured
    since may take that back; whoever fell serves out his quarantine. That evidence expires later counts for nothing.
    """
    release = replay.releases[release_id]
    policy = replay.policies[release.promotion_policy.content_sha256]
    quarantine = quarantine_in(replay, release_id)
    if quarantine.holds(now):
        return {QUARANTINE: quarantine.sentence}
    before = [(event, envelope) for event, envelope in pins if event.sequence < let_in.sequence]
    if reason := why_not_pinned(release.product, policy.sha256, counting_pin(before, trust.operators)):
        return {PINNED: f"When it was let in: {reason}"}
    return dict(assess_served(envelopes, trust.evidence, policy, release, let_in.recorded_at, now).reasons)


def proven_anew(
    replay: Replay,
    envelopes: Iterable[bytes],
    pins: Sequence[tuple[Event, bytes]],
    trust: Trust,
    release_id: str,
    now: datetime,
) -> bool:
    """Whether a registered release is proven as it would have to be to open now, whatever counted before.

    The way back for what serves, when a key that let it in was revoked: pin its policy and evaluate it again.
    """
    release = replay.releases[release_id]
    policy = replay.policies[release.promotion_policy.content_sha256]
    if quarantine_in(replay, release_id).holds(now):
        return False
    if why_not_pinned(release.product, policy.sha256, counting_pin(pins, trust.operators)):
        return False
    return assess_evidence(envelopes, trust.evidence, policy, release, now).eligible


def why_never_proven(
    replay: Replay,
    envelopes: Iterable[bytes],
    pins: Sequence[tuple[Event, bytes]],
    trust: Trust,
    release_id: str,
    let_in: Event,
) -> str:
    """Why a release was not rightly let in by an event; empty when it was, and so may be what others are measured by.

    Keys count that were revoked since, and what was found out since does not: a better release must be able to come
    after one that does harm. Nor do envelopes that do not verify, or whoever can append would stop every release.
    """
    release, trusts = replay.releases[release_id], (trust, trust.before_revocations)
    policy = replay.policies[release.promotion_policy.content_sha256]
    before = [(event, envelope) for event, envelope in pins if event.sequence < let_in.sequence]
    pinned = [why_not_pinned(release.product, policy.sha256, counting_pin(before, one.operators)) for one in trusts]
    if all(pinned):
        return pinned[0]
    recorded, at = tuple(envelopes), let_in.recorded_at
    found = [assess_as_of(recorded, one.evidence, policy, release, at).reasons for one in trusts]
    lacks = [{gate: reason for gate, reason in reasons.items() if gate != DAMAGED} for reasons in found]
    return " ".join(f"{gate}: {reason}" for gate, reason in lacks[0].items()) if all(lacks) else ""
