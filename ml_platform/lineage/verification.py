"""Eligibility: whether the evidence that is there lets a release through; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ml_platform.contracts.evidence import Evidence, Verdict
from ml_platform.contracts.policy import PairedGate, PromotionPolicy
from ml_platform.contracts.release import Release
from ml_platform.errors import EvidenceError
from ml_platform.lineage.keys import TrustedKeys
from ml_platform.lineage.statements import signed_by, verify_evidence

DAMAGED = "evidence"
"""The name under which envelopes that do not verify hold a release."""

BASE = "base"
"""What evidence names as its reference where nothing was in production."""

_SEVERITY = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.ERROR)


@dataclass(frozen=True)
class Eligibility:
    """Whether a release may serve; `reasons` says of each gate that holds it why, `evidence` is what counted.

    `expires_at` is when the first of the evidence stops counting, None unless the release is eligible.
    """

    eligible: bool
    reasons: Mapping[str, str]
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    expires_at: datetime | None = None

    @property
    def sentence(self) -> str:
        """`eligible`, or `held: <gates>`."""
        return "eligible" if self.eligible else f"held: {', '.join(self.reasons)}"


def assess_evidence(
    envelopes: Iterable[bytes], trusted: TrustedKeys, policy: PromotionPolicy, release: Release, now: datetime
) -> Eligibility:
    """Eligible only if every gate of the policy has correctly signed, unexpired PASS evidence for this very release
    under this very policy.

    The newest evidence of a gate counts, the worst verdict among equally new; an envelope that does not verify
    holds the release, unless a revoked key signed it: otherwise damaging a FAIL would bring an older PASS back.
    """
    release_id, policy_sha256 = release.release_id, policy.sha256
    if release.promotion_policy.content_sha256 != policy_sha256:
        reason = f"The release names policy {release.promotion_policy.content_sha256[:12]}, not {policy_sha256[:12]}."
        return Eligibility(False, dict.fromkeys(policy.gate_names, reason))
    newest: dict[str, Evidence] = {}
    reasons: dict[str, str] = {}
    foreign: dict[str, str] = {}
    for envelope in envelopes:
        try:
            evidence = verify_evidence(envelope, trusted)
        except EvidenceError as error:
            if not _revoked(envelope, trusted):
                reasons[DAMAGED] = f"{str(error)[:1].upper()}{str(error)[1:]}"
            continue
        gate = evidence.result.gate
        if other := _belongs_elsewhere(evidence, release.product, release_id, policy_sha256):
            foreign[gate] = other
        elif gate not in newest or _outranks(evidence, newest[gate]):
            newest[gate] = evidence
    for gate in policy.gate_names:
        missing = f"There is no evidence.{foreign.get(gate, '')}"
        if reason := why_not(newest[gate], now) if gate in newest else missing:
            reasons[gate] = reason
    counted = {gate: newest[gate] for gate in policy.gate_names if gate in newest}
    expires_at = min((found.expires_at for found in counted.values()), default=None)
    eligible = not reasons and bool(counted)
    return Eligibility(eligible, reasons, counted, expires_at if eligible else None)


def assess_served(
    envelopes: Iterable[bytes],
    trusted: TrustedKeys,
    policy: PromotionPolicy,
    release: Release,
    promoted_at: datetime,
    now: datetime,
) -> Eligibility:
    """Whether a release that served may serve again: what was known at its promotion let it through, and nothing that
    was measured since took that back. That evidence expires counts for nothing here: an emergency has no calendar.
    """
    recorded = tuple(envelopes)
    then = assess_as_of(recorded, trusted, policy, release, promoted_at)
    latest = assess_evidence(recorded, trusted, policy, release, now).evidence
    since = {
        gate: f"{evidence.result.verdict}: {evidence.result.reason}"
        for gate, evidence in latest.items()
        if evidence.result.verdict is not Verdict.PASS
    }
    reasons = {**then.reasons, **since}
    return Eligibility(then.eligible and not reasons, reasons, latest)


def assess_as_of(
    envelopes: Iterable[bytes], trusted: TrustedKeys, policy: PromotionPolicy, release: Release, moment: datetime
) -> Eligibility:
    """What the evidence that had been measured by a moment said then; what does not verify counts as that old."""
    early = [envelope for envelope in envelopes if not _measured_after(envelope, trusted, moment)]
    return assess_evidence(early, trusted, policy, release, moment)


def outdated_comparisons(found: Eligibility, policy: PromotionPolicy, production: str | None) -> dict[str, str]:
    """The paired gates whose evidence compares with something else than what is in production, with the reason.

    `found` must be eligible; `production` is a release id, or None where nothing is in production and the bare base
    model stands in for it.
    """
    expected = production or BASE
    reasons = {}
    for gate in (gate.gate for gate in policy.gates if isinstance(gate, PairedGate)):
        reference = found.evidence[gate].inputs.get("reference", "nothing")
        if reference != expected:
            reasons[gate] = (
                f"It compares with {reference[:12]}, what counts now is {expected[:12]}. Evaluate the release again."
            )
    return reasons


def why_not(evidence: Evidence, now: datetime) -> str:
    """Why this evidence does not let its gate pass at `now`; empty when it does."""
    if evidence.measured_at > now:
        return f"It was measured at {evidence.measured_at:%Y-%m-%d %H:%M} UTC, which is still to come."
    if evidence.expired(now):
        return f"Its evidence expired at {evidence.expires_at:%Y-%m-%d %H:%M} UTC. Evaluate the release again."
    if evidence.result.verdict is not Verdict.PASS:
        return f"{evidence.result.verdict}: {evidence.result.reason}"
    return ""


def _belongs_elsewhere(evidence: Evidence, product: str, release_id: str, policy_sha256: str) -> str:
    if evidence.product != product:
        return f" There is some of product {evidence.product}."
    if evidence.release_id != release_id:
        return f" There is some of release {evidence.release_id[:12]}."
    if evidence.policy_sha256 != policy_sha256:
        return f" There is some under policy {evidence.policy_sha256[:12]}."
    return ""


def _outranks(one: Evidence, other: Evidence) -> bool:
    def rank(evidence: Evidence) -> tuple[datetime, int]:
        return evidence.measured_at, _SEVERITY.index(evidence.result.verdict)

    return rank(one) > rank(other)


def _measured_after(envelope: bytes, trusted: TrustedKeys, moment: datetime) -> bool:
    try:
        return verify_evidence(envelope, trusted).measured_at > moment
    except EvidenceError:
        return False


def _revoked(envelope: bytes, trusted: TrustedKeys) -> bool:
    try:
        key = trusted.get(signed_by(envelope))
    except EvidenceError:
        return False
    return key is not None and key.revoked
