"""The controller: the only code that moves a slot, in one ledger transaction that checks the evidence again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.evidence import GateResult, Producer
from ml_platform.contracts.monitoring import Decision
from ml_platform.contracts.pin import PolicyPin
from ml_platform.contracts.policy import PromotionPolicy
from ml_platform.contracts.release import Release
from ml_platform.lineage.keys import SigningKey, TrustedKeys
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.pins import counting_pin
from ml_platform.lineage.replay_rules import UNSERVED
from ml_platform.lineage.standing import Trust
from ml_platform.lineage.verification import Eligibility
from ml_platform.release import moving
from ml_platform.release.applying import HeldBackError, apply_decision
from ml_platform.release.door import Door
from ml_platform.release.freezing import freeze, unfreeze
from ml_platform.release.moves import Held, Move
from ml_platform.release.recording import record_pin, record_release, record_results, record_sign_off
from ml_platform.release.rollback import roll_back
from ml_platform.release.shadowing import close_shadow, open_shadow

__all__ = ["Controller", "Held", "Move"]


@dataclass(frozen=True)
class Controller:
    """Registers releases, records signed verdicts and moves slots, with nothing but the ledger to believe.

    `producer` is who decided the gates, `trusted` whose evidence counts, `operators` whose policy pins count: without
    any, no release ever serves. Every method is one transaction. A move needs the release to be registered
    (NotEligibleError), that nobody moved a slot since `expected_epoch` (EpochConflictError), and the state that it
    starts from (RefusedError). What would serve more users is checked again: pinned policy, quarantine, evidence,
    expiry, and that the evidence compares with what is in production now; it is Held otherwise.
    """

    ledger: Ledger
    trusted: TrustedKeys
    producer: Producer
    operators: TrustedKeys = field(default_factory=dict)

    def believing(self, trust: Trust) -> "Controller":
        """The same controller, for which other signatures count."""
        return replace(self, trusted=trust.evidence, operators=trust.operators)

    def state(self, product: str) -> DeploymentState:
        """The product's slots and releases now."""
        return self.ledger.state(product)

    def pinned(self, product: str) -> PolicyPin | None:
        """The pin that counts for a product, None where no trusted operator signed one."""
        return counting_pin(self.ledger.pins(product), self.operators)

    def pin_policy(
        self,
        product: str,
        policy: PromotionPolicy,
        key: SigningKey,
        reason: str,
        now: datetime,
        actor: str,
        *,
        only_first: bool = False,
    ) -> PolicyPin | None:
        """From here on releases of the product need this policy; None where there was nothing to do.

        `only_first` does nothing for a product that ever had a pin, whoever signed it. Raises EvidenceError for a key
        that is no trusted operator's, RefusedError without a reason.
        """
        with self._door(product, now, actor, None) as door:
            return record_pin(door, policy, key, reason, actor, only_first=only_first)

    def register_release(self, release: Release, policy: PromotionPolicy, now: datetime, actor: str) -> bool:
        """Records a release and the policy it names; False when it was registered before.

        Raises RefusedError for a policy that is not the one that the release names.
        """
        with self._door(release.product, now, actor, None) as door:
            return record_release(door, release, policy)

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
        with self._door(release.product, now, actor, None) as door:
            record_results(door, release, results, inputs, self.producer, key)
            found = door.assess(release)
            if door.transaction.replay.states[release.release_id] in UNSERVED:
                door.say(release, found)
            return found

    def open_canary(
        self,
        product: str,
        release_id: str,
        now: datetime,
        actor: str,
        expected_epoch: int | None = None,
        backfilled_to: date | None = None,
    ) -> Move | Held:
        """Puts an eligible release into the canary slot at the first step of its policy's plan.

        The canary of another release is replaced, unless this one is older. An open canary stays as it is. After its
        quarantine a release that was aborted or rolled back may be opened again. `backfilled_to` is the last day of
        the backfill that made it, None for a run of its own: no past day of a backfill moves a slot.
        """
        with self._door(product, now, actor, expected_epoch) as door:
            return moving.open_canary(door, release_id, backfilled_to)

    def advance_canary(
        self, product: str, release_id: str, now: datetime, actor: str, expected_epoch: int | None = None
    ) -> Move | Held:
        """Takes the canary to the next step of its policy's plan; RefusedError behind the last one.

        Held before the present step has lasted as long as the plan says.
        """
        with self._door(product, now, actor, expected_epoch) as door:
            return moving.advance_canary(door, release_id)

    def pause_canary(
        self, product: str, release_id: str, reason: str, now: datetime, actor: str, expected_epoch: int | None = None
    ) -> Move:
        """Lets the canary keep its users and go no further; no evidence is needed for that."""
        with self._door(product, now, actor, expected_epoch) as door:
            return moving.pause_canary(door, release_id, reason)

    def resume_canary(
        self, product: str, release_id: str, reason: str, now: datetime, actor: str, expected_epoch: int | None = None
    ) -> Move | Held:
        """Lets a paused canary go on."""
        with self._door(product, now, actor, expected_epoch) as door:
            return moving.resume_canary(door, release_id, reason)

    def abort_canary(
        self, product: str, release_id: str, reason: str, now: datetime, actor: str, expected_epoch: int | None = None
    ) -> Move:
        """Takes the canary out of its slot and quarantines it; no evidence is needed for that."""
        with self._door(product, now, actor, expected_epoch) as door:
            return moving.abort_canary(door, release_id, reason)

    def promote(
        self,
        product: str,
        release_id: str,
        now: datetime,
        actor: str,
        expected_epoch: int | None = None,
        reason: str | None = None,
    ) -> Move | Held:
        """Puts the canary into production; what served before is superseded. A person who decides it says why."""
        with self._door(product, now, actor, expected_epoch) as door:
            return moving.promote(door, release_id, reason)

    def roll_back(
        self,
        product: str,
        reason: str,
        now: datetime,
        actor: str,
        to: str | None = None,
        expected_epoch: int | None = None,
    ) -> Move | Held:
        """Takes production back to `to`, or to the release that served last of those that may, and quarantines it.

        An earlier release may serve again if its evidence and its policy's pin counted when it was promoted: that
        evidence expired since blocks no emergency. A failed or quarantined one never does.
        """
        with self._door(product, now, actor, expected_epoch) as door:
            return roll_back(door, reason, to)

    def open_shadow(
        self, product: str, release_id: str, reason: str, now: datetime, actor: str, expected_epoch: int | None = None
    ) -> Move | Held:
        """Lets a proven release answer copies of users' questions, in the place of an earlier shadow.

        Nobody sees its answers. What is in another slot, was aborted or was in production before is Held.
        """
        with self._door(product, now, actor, expected_epoch) as door:
            return open_shadow(door, release_id, reason)

    def close_shadow(
        self, product: str, release_id: str, reason: str, now: datetime, actor: str, expected_epoch: int | None = None
    ) -> Move:
        """Takes the shadow out of its slot; no evidence is needed for that."""
        with self._door(product, now, actor, expected_epoch) as door:
            return close_shadow(door, release_id, reason)

    def apply(self, decision: Decision, kept_sha256: str | None, now: datetime, actor: str) -> Move | Held | None:
        """Records a decision with its numbers and does what it says, in one transaction; None where no slot moves.

        EpochConflictError where a slot was moved since it was decided. What is Held is not recorded either.
        """
        try:
            with self._door(decision.product, now, actor, decision.epoch) as door:
                return apply_decision(door, decision, kept_sha256)
        except HeldBackError as back:
            return back.held

    def sign_off(self, product: str, release_id: str, key: SigningKey, reason: str, now: datetime, actor: str) -> None:
        """Records an operator's word that the canary may be promoted; it counts for this rollout of it.

        Raises EvidenceError for a key that is no trusted operator's, RefusedError for a release that is no canary.
        """
        with self._door(product, now, actor, None) as door:
            record_sign_off(door, release_id, key, reason, actor)

    def freeze(self, product: str, reason: str, now: datetime, actor: str) -> bool:
        """From here on nothing goes forward, by anybody; what stops still stops. False when it was frozen before."""
        with self._door(product, now, actor, None) as door:
            return freeze(door, reason)

    def unfreeze(self, product: str, reason: str, now: datetime, actor: str) -> bool:
        """Lets the product go on; False when it was not frozen."""
        with self._door(product, now, actor, None) as door:
            return unfreeze(door, reason)

    @contextmanager
    def _door(self, product: str, now: datetime, actor: str, expected_epoch: int | None) -> Iterator[Door]:
        with self.ledger.write(product, now, actor) as transaction:
            transaction.expect_epoch(expected_epoch)
            yield Door(transaction, self.trusted, self.operators, now)
