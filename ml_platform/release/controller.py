"""The controller: the only code that moves a slot, in one ledger transaction that checks the evidence again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.events import (
    CanaryOpened,
    CanaryReplaced,
    PolicyRecorded,
    ReleaseEligible,
    ReleaseHeld,
    ReleaseRegistered,
)
from ml_platform.contracts.evidence import Evidence, GateResult, Producer
from ml_platform.contracts.policy import PromotionPolicy, SlotName
from ml_platform.contracts.release import Release
from ml_platform.errors import EvidenceError, NotEligibleError, RefusedError
from ml_platform.lineage.keys import SigningKey, TrustedKeys
from ml_platform.lineage.ledger import Ledger, Transaction
from ml_platform.lineage.replay import UNSERVED
from ml_platform.lineage.statements import sign_evidence, verify_evidence
from ml_platform.release.verification import Eligibility, assess_evidence, outdated_comparisons


@dataclass(frozen=True)
class Move:
    """A slot holds the release; `changed` tells whether it was this call that moved it."""

    product: str
    release_id: str
    slot: SlotName
    exposure: float
    epoch: int
    changed: bool

    @property
    def sentence(self) -> str:
        """For people: `canary open at 5 %`."""
        if self.slot is SlotName.PRODUCTION:
            return "already in production"
        return f"canary {'open' if self.changed else 'was already open'} at {self.exposure:.0%}"


@dataclass(frozen=True)
class Held:
    """No slot was moved; `gates` are the gates that hold the release, `reasons` say why in sentences."""

    product: str
    release_id: str
    gates: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    because: str = ""

    @property
    def sentence(self) -> str:
        """For people: `held: json_valid, safe`, or `held: older than the canary of 2013-04-07`."""
        return f"held: {self.because or ', '.join(self.gates)}"


@dataclass(frozen=True)
class Controller:
    """Registers releases, records signed verdicts and moves slots, with nothing but the ledger to believe.

    `producer` is who decided the gates. Every method is one transaction and may be repeated: what is already
    recorded is not recorded again.
    """

    ledger: Ledger
    trusted: TrustedKeys
    producer: Producer

    def state(self, product: str) -> DeploymentState:
        """The product's slots and releases now."""
        return self.ledger.state(product)

    def register_release(self, release: Release, policy: PromotionPolicy, now: datetime, actor: str) -> bool:
        """Records a release and the policy it names; False when it was registered before.

        Raises RefusedError for a policy that is not the one that the release names.
        """
        named = release.promotion_policy.content_sha256
        if named != policy.sha256:
            raise RefusedError(
                f"release {release.release_id[:12]} names promotion policy {named[:12]}, given was "
                f"{policy.sha256[:12]}. Build the release again."
            )
        with self.ledger.write(release.product, now, actor) as transaction:
            if release.release_id in transaction.replay.releases:
                return False
            if policy.sha256 not in transaction.replay.policies:
                transaction.append(PolicyRecorded(policy=policy))
            transaction.append(ReleaseRegistered(release=release))
            return True

    def record_verdicts(
        self,
        release: Release,
        results: Sequence[GateResult],
        inputs: Mapping[str, str],
        key: SigningKey,
        now: datetime,
        actor: str,
    ) -> Eligibility:
        """Signs and records each verdict, then whether the release is held or eligible.

        Evidence that says the same and has not expired is reused, so that nothing new is recorded. Raises
        NotEligibleError for a release that is not registered, RefusedError for verdicts on another candidate or
        on gates that the policy does not have, EvidenceError for a key that is not trusted.
        """
        with self.ledger.write(release.product, now, actor) as transaction:
            policy = _policy_of(transaction, release)
            if inputs.get("candidate") != release.model.candidate_sha256:
                raise RefusedError(
                    f"these verdicts are about candidate {inputs.get('candidate', 'unknown')[:12]}, release "
                    f"{release.release_id[:12]} holds {release.model.candidate_sha256[:12]}. Evaluate this candidate."
                )
            known = assess_evidence(transaction.envelopes(release.release_id), self.trusted, policy, release, now)
            for result in results:
                evidence = self._evidence(release, policy, result, inputs, now)
                if not _says_the_same(known.evidence.get(result.gate), evidence, now):
                    self._record(transaction, evidence, key)
            found = assess_evidence(transaction.envelopes(release.release_id), self.trusted, policy, release, now)
            _record_eligibility(transaction, release, policy, found)
            return found

    def open_canary(
        self, product: str, release_id: str, now: datetime, actor: str, expected_epoch: int | None = None
    ) -> Move | Held:
        """Puts an eligible release into the canary slot at the first step of its policy's plan.

        Evidence, expiry and policy are checked again inside the transaction, and that the evidence compares with
        what is in production now. The canary of another release is replaced, unless this one is older: a backfill
        never moves a slot. An open canary stays as it is. Raises NotEligibleError for a release that is not
        registered, EpochConflictError when a slot was moved since `expected_epoch`.
        """
        with self.ledger.write(product, now, actor) as transaction:
            transaction.expect_epoch(expected_epoch)
            release = _registered(transaction, product, release_id)
            state = transaction.replay.states[release_id]
            if state not in UNSERVED:
                return _already(transaction, release_id, state)
            policy = _policy_of(transaction, release)
            found = assess_evidence(transaction.envelopes(release_id), self.trusted, policy, release, now)
            if held := _why_held(transaction, release, policy, found):
                return held
            _record_eligibility(transaction, release, policy, found)
            if canary := transaction.replay.slots.get(SlotName.CANARY):
                transaction.append(CanaryReplaced(release_id=canary, by=release_id))
            exposure = policy.canary.steps[0]
            event = transaction.append(CanaryOpened(release_id=release_id, step=1, exposure=exposure))
            return Move(product, release_id, SlotName.CANARY, exposure, event.epoch, changed=True)

    def _evidence(
        self, release: Release, policy: PromotionPolicy, result: GateResult, inputs: Mapping[str, str], now: datetime
    ) -> Evidence:
        if result.gate not in policy.gate_names:
            raise RefusedError(f"gate '{result.gate}' is not one of the policy's: {', '.join(policy.gate_names)}.")
        return Evidence(
            product=release.product,
            release_id=release.release_id,
            result=result,
            policy_sha256=policy.sha256,
            inputs=dict(inputs),
            producer=self.producer,
            measured_at=now,
            expires_at=now + timedelta(days=policy.evidence_valid_days),
        )

    def _record(self, transaction: Transaction, evidence: Evidence, key: SigningKey) -> None:
        """Evidence that would not count is not recorded, for it would hold the release for ever."""
        envelope = sign_evidence(evidence, key)
        if verify_evidence(envelope, self.trusted) != evidence:
            raise EvidenceError(f"the evidence of gate '{evidence.result.gate}' does not survive signing.")
        if not transaction.has_envelope(evidence.release_id, envelope):
            transaction.append_evidence(evidence, envelope)


def _says_the_same(known: Evidence | None, evidence: Evidence, now: datetime) -> bool:
    if known is None or known.expired(now) or known.measured_at > now:
        return False
    times = {"measured_at": evidence.measured_at, "expires_at": evidence.expires_at}
    return known.model_copy(update=times) == evidence


def _record_eligibility(
    transaction: Transaction, release: Release, policy: PromotionPolicy, found: Eligibility
) -> None:
    """Says held or eligible, where that is news and the release does not serve already."""
    if transaction.replay.states[release.release_id] not in UNSERVED:
        return
    said: ReleaseHeld | ReleaseEligible
    if found.expires_at is not None:
        said = ReleaseEligible(release_id=release.release_id, policy_sha256=policy.sha256, expires_at=found.expires_at)
    else:
        said = ReleaseHeld(release_id=release.release_id, policy_sha256=policy.sha256, gates=dict(found.reasons))
    if transaction.replay.judged.get(release.release_id) != said:
        transaction.append(said)


def _registered(transaction: Transaction, product: str, release_id: str) -> Release:
    release = transaction.replay.releases.get(release_id)
    if release is None:
        raise NotEligibleError(
            f"release {release_id[:12]} of {product} is not in the ledger. Materialize registered_release first."
        )
    return release


def _policy_of(transaction: Transaction, release: Release) -> PromotionPolicy:
    """The policy that the release names, as the ledger keeps it; a file in a working copy counts for nothing."""
    registered = _registered(transaction, release.product, release.release_id)
    return transaction.replay.policies[registered.promotion_policy.content_sha256]


def _already(transaction: Transaction, release_id: str, state: ReleaseState) -> Move | Held:
    """What there is to say of a release that has left the gates behind."""
    replay = transaction.replay
    for slot, serving in replay.slots.items():
        if serving == release_id:
            exposure = replay.exposure if slot is SlotName.CANARY else 1.0
            return Move(replay.product, release_id, slot, exposure, replay.epoch, changed=False)
    return Held(replay.product, release_id, because=f"this release was {state} before")


def _why_held(transaction: Transaction, release: Release, policy: PromotionPolicy, found: Eligibility) -> Held | None:
    if not found.eligible:
        return Held(release.product, release.release_id, tuple(found.reasons), found.reasons)
    if newer := _newer_than(transaction, release):
        return Held(release.product, release.release_id, because=newer)
    outdated = outdated_comparisons(found, policy, transaction.replay.slots.get(SlotName.PRODUCTION))
    return Held(release.product, release.release_id, tuple(outdated), outdated) if outdated else None


def _newer_than(transaction: Transaction, release: Release) -> str:
    """Which serving release is newer than this one, in words; empty when none is."""
    for slot in (SlotName.CANARY, SlotName.PRODUCTION):
        serving = transaction.replay.slots.get(slot)
        if serving and transaction.replay.releases[serving].data.as_of > release.data.as_of:
            as_of = transaction.replay.releases[serving].data.as_of
            return f"older than the release in {slot}, which is of {as_of}"
    return ""
