"""Recording releases, verdicts and pins: signed where it counts, and only what is news."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from ml_platform.contracts.decided import SignOff
from ml_platform.contracts.events import PolicyRecorded, ReleaseRegistered
from ml_platform.contracts.evidence import Evidence, GateResult, Producer
from ml_platform.contracts.mandatory import why_in_name_only
from ml_platform.contracts.pin import PolicyPin
from ml_platform.contracts.policy import PromotionPolicy
from ml_platform.contracts.release import Release
from ml_platform.errors import EvidenceError, RefusedError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.pins import counting_pin
from ml_platform.lineage.statements import (
    sign_evidence,
    sign_pin,
    sign_promotion,
    verify_evidence,
    verify_pin,
    verify_sign_off,
)
from ml_platform.release.door import Door


def record_release(door: Door, release: Release, policy: PromotionPolicy) -> bool:
    """Appends a release and the policy it names; False when it was registered before. Raises RefusedError."""
    named, transaction = release.promotion_policy.content_sha256, door.transaction
    if named != policy.sha256:
        raise RefusedError(
            f"release {release.release_id[:12]} names promotion policy {named[:12]}, given was "
            f"{policy.sha256[:12]}. Build the release again."
        )
    if release.release_id in transaction.replay.releases:
        return False
    if policy.sha256 not in transaction.replay.policies:
        transaction.append(PolicyRecorded(policy=policy))
    transaction.append(ReleaseRegistered(release=release))
    return True


def record_results(
    door: Door,
    release: Release,
    results: Sequence[GateResult],
    inputs: Mapping[str, str],
    producer: Producer,
    key: SigningKey,
) -> None:
    """Signs each verdict and appends the envelope, unless unexpired evidence says the same.

    Raises RefusedError for verdicts on another candidate or on gates that the policy does not have, EvidenceError
    for a key that is not trusted: evidence that would not count would hold the release for ever.
    """
    policy = door.policy_of(release)
    _require_about(release, policy, results, inputs)
    known = door.assess(release).evidence
    for result in results:
        moment = _moment(known.get(result.gate), door.now)
        evidence = Evidence(
            product=release.product,
            release_id=release.release_id,
            result=result,
            policy_sha256=policy.sha256,
            inputs=dict(inputs),
            producer=producer,
            measured_at=moment,
            expires_at=moment + timedelta(days=policy.evidence_valid_days),
        )
        if _says_the_same(known.get(result.gate), evidence, door.now):
            continue
        envelope = sign_evidence(evidence, key)
        if verify_evidence(envelope, door.trusted) != evidence:
            raise EvidenceError(f"the evidence of gate '{result.gate}' does not survive signing.")
        if not door.transaction.has_envelope(release.release_id, envelope):
            door.transaction.append_evidence(evidence, envelope)


def record_pin(
    door: Door, policy: PromotionPolicy, key: SigningKey, reason: str, operator: str, *, only_first: bool
) -> PolicyPin | None:
    """Signs and appends the pin of a policy, the policy itself before it where it is new; None for nothing to do.

    Raises RefusedError without a reason or for mandatory gates in name only, EvidenceError for a key that is no trusted
    operator's.
    """
    transaction, replay, product = door.transaction, door.transaction.replay, door.transaction.replay.product
    if not reason.strip():
        raise RefusedError(f"a policy of {product} is pinned with a reason only. Say why, for those who ask later.")
    counts = counting_pin(transaction.pins(), door.operators)
    if (only_first and replay.pins) or (counts and counts.policy_sha256 == policy.sha256):
        return None
    if wrong := why_in_name_only(policy):
        raise RefusedError(f"policy {policy.version} of {product} cannot be pinned: {wrong}. Correct them.")
    if policy.sha256 not in replay.policies:
        transaction.append(PolicyRecorded(policy=policy))
    pin = PolicyPin(
        product=product,
        policy_sha256=policy.sha256,
        version=policy.version,
        reason=reason,
        pinned_at=door.now,
        operator=operator,
        after_sha256=replay.head_sha256,
    )
    envelope = sign_pin(pin, key)
    if verify_pin(envelope, door.operators) != pin:
        raise EvidenceError(f"the pin of policy {policy.sha256[:12]} does not survive signing.")
    transaction.append_pin(pin, envelope)
    return pin


def record_sign_off(door: Door, release_id: str, key: SigningKey, reason: str, operator: str) -> SignOff:
    """Signs and appends an operator's word that the canary may be promoted.

    Raises RefusedError, EvidenceError, and ContractError for a reason that is too long.
    """
    replay = door.transaction.replay
    if not reason.strip():
        raise RefusedError("a sign-off needs a reason: it stands in the ledger for ever.")
    word = {"release_id": release_id, "reason": reason, "signed_at": door.now, "operator": operator}
    place = {"product": replay.product, "after_sha256": replay.head_sha256}
    said = SignOff.parse(word | place, where="the sign-off")
    envelope = sign_promotion(said, key)
    if verify_sign_off(envelope, door.operators) != said:
        raise EvidenceError(f"the sign-off of release {release_id[:12]} does not survive signing.")
    door.transaction.append_sign_off(said, envelope)
    return said


def _require_about(
    release: Release, policy: PromotionPolicy, results: Sequence[GateResult], inputs: Mapping[str, str]
) -> None:
    if inputs.get("candidate") != release.model.candidate_sha256:
        raise RefusedError(
            f"these verdicts are about candidate {inputs.get('candidate', 'unknown')[:12]}, release "
            f"{release.release_id[:12]} holds {release.model.candidate_sha256[:12]}. Evaluate this candidate."
        )
    for result in results:
        if result.gate not in policy.gate_names:
            raise RefusedError(f"gate '{result.gate}' is not one of the policy's: {', '.join(policy.gate_names)}.")


def _moment(known: Evidence | None, now: datetime) -> datetime:
    """When evidence counts as measured: now, but never before what it follows in the chain.

    The newest verdict counts, so a FAIL from a machine whose clock is behind would lose against the PASS before it;
    of two at the same moment the worse one counts.
    """
    return now if known is None else max(now, known.measured_at)


def _says_the_same(known: Evidence | None, evidence: Evidence, now: datetime) -> bool:
    if known is None or known.expired(now) or known.measured_at > now:
        return False
    times = {"measured_at": evidence.measured_at, "expires_at": evidence.expires_at}
    return known.model_copy(update=times) == evidence
