"""The life of a product under automatic decisions: each goes through the same door, with its word before its move."""

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from ml_platform.contracts.decided import DecisionRecorded, SignOff
from ml_platform.contracts.monitoring import Action, Decision
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import EpochConflictError, EvidenceError, RefusedError
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.sign_offs import counting_sign_off
from ml_platform.lineage.statements import sign_promotion
from ml_platform.release.moves import Held, Move
from tests.properties.life_frame import OPERATORS
from tests.properties.life_oracle import BY_ID, RELEASES, key
from tests.properties.life_work import BEHIND, CANARY, EITHER, WorkingLife
from tests.samples.releases import PRODUCT

STRANGER = key(22)
MOVES = {
    Action.OPEN: "open",
    Action.STEP_UP: "advance",
    Action.PROMOTE: "promote",
    Action.PAUSE: "pause",
    Action.ABORT: "abort",
}
ACTIONS = st.sampled_from([*MOVES, Action.STEP_UP, Action.PROMOTE, Action.ROLL_BACK])

WAYS = (
    (Action.STEP_UP, Action.STEP_UP, Action.PROMOTE),
    (Action.STEP_UP, Action.PROMOTE, Action.ROLL_BACK),
    (Action.STEP_UP, Action.ABORT),
    (Action.PAUSE,),
)


class DecidingLife(WorkingLife):
    """What a decision does is what the oracle expects of its move; what it does not do leaves no word."""

    @rule(action=ACTIONS, number=EITHER, behind=BEHIND, minutes=st.sampled_from([0, 0, 29, 31, 60]))
    def a_controller_decides(self, action: Action, number: int, behind: int, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        which = self.chosen(CANARY, MOVES.get(action, ""))
        decision = self._decision(action, which, self.state.epoch - behind)
        if decision is None:
            return
        before, expected = self.state, self._expected(action, which) and not behind
        recorded = self.observer.events(PRODUCT)
        try:
            done = self.controllers[number].apply(decision, None, self.now, "controller")
        except (EpochConflictError, RefusedError):
            done = None
        moved = isinstance(done, Move)
        if action is Action.ROLL_BACK:
            expected = moved
            assert not moved or not behind
        self.note(MOVES.get(action, "roll back"), expected, which)
        if action is Action.STEP_UP and moved:
            self.oracle.stepped_at = self.now
        said = [event.kind.value for event in self.observer.events(PRODUCT)[len(recorded) :]]
        if moved:
            assert said[0] == "decision_recorded"
            assert self.state.epoch > before.epoch
        else:
            assert isinstance(done, Held) or done is None
            assert said == []
        self.done[f"decided {action}" if moved else "decided not"] += 1

    @rule(which=st.integers(1, 3), number=EITHER, then=st.sampled_from(WAYS))
    def a_controller_goes_all_the_way(self, which: int, number: int, then: tuple[Action, ...]) -> None:
        """From a canary up its steps into production, and perhaps back."""
        if SlotName.PRODUCTION not in self.state.slots:
            self.a_whole_run(0, number, "promote")
        self.a_whole_run(which, number, "")
        for action in then:
            self.a_controller_decides(action, 1 - number, 0, 31)
        if then == (Action.PAUSE,):
            self.move(which, "resume", number, 0)

    def _decision(self, action: Action, which: int, epoch: int) -> Decision | None:
        release_id = RELEASES[which].release_id
        if action is Action.ROLL_BACK:
            release_id = self.state.slots.get(SlotName.PRODUCTION, "")
        if release_id not in self.state.releases or epoch < 0:
            return None
        return Decision(
            product=PRODUCT,
            action=action,
            release_id=release_id,
            reason="seen",
            epoch=epoch,
            at=self.now,
            incident=None,
        )

    def _expected(self, action: Action, which: int) -> bool:
        """A decision answers for the time of its first step; from then on the ledger knows when it went up."""
        if action is Action.ROLL_BACK:
            return True
        if action is Action.OPEN and self._is_past(which):
            return False
        oracle, stepped = self.oracle, self.oracle.stepped
        if action is Action.STEP_UP:
            oracle.stepped = oracle.stepped_at
        try:
            return oracle.expects(MOVES[action], RELEASES[which], self.state, self.now)
        finally:
            oracle.stepped = stepped

    def _is_past(self, which: int) -> bool:
        """Only people may ask for another day than the newest."""
        as_of = RELEASES[which].data.as_of
        return any(BY_ID[release_id].data.as_of > as_of for release_id in self.state.releases)

    @rule(number=EITHER, then=st.sampled_from(["open", "advance", "promote", "abort", ""]), thaws=st.integers(0, 4))
    def the_product_is_frozen(self, number: int, then: str, thaws: int) -> None:
        """Nothing goes forward; most often it goes on again soon."""
        if PRODUCT not in self.observer.products():
            return
        assert self.controllers[number].freeze(PRODUCT, "reason", self.now, "operator") != self.oracle.frozen
        self.oracle.frozen = True
        self.done["frozen"] += 1
        self.look()
        if then:
            self.move(CANARY, then, 1 - number, 0)
        if thaws:
            assert self.controllers[1 - number].unfreeze(PRODUCT, "reason", self.now, "operator")
            self.oracle.frozen = False
            self.look()

    @rule(epochs=st.sampled_from([-1, 1]))
    def somebody_records_a_decision_of_another_epoch(self, epochs: int) -> None:
        decision = self._decision(Action.HOLD, 0, self.state.epoch + epochs)
        if decision is None:
            return
        with Ledger(self.url).write(PRODUCT, self.now, "forger") as transaction, pytest.raises(RefusedError):
            transaction.append(DecisionRecorded(decision=decision, kept_sha256=None))

    @rule(by=EITHER, number=EITHER)
    def an_operator_signs(self, by: int, number: int) -> None:
        """It counts for this canary in this rollout, as long as the key does."""
        canary, revoked = self.state.slots.get(SlotName.CANARY), OPERATORS[by].key_id in self.oracle.revoked
        release_id = canary or RELEASES[0].release_id
        try:
            self.controllers[number].sign_off(PRODUCT, release_id, OPERATORS[by], "fine", self.now, "operator")
        except EvidenceError:
            assert revoked
        except RefusedError:
            assert canary is None
        else:
            assert canary
            assert self._signed(canary)
            self.done["signed"] += 1

    @rule(copied=st.booleans())
    def somebody_signs_off_without_an_operators_key(self, copied: bool) -> None:
        """With a key of their own, or an operator's word from elsewhere in the chain: it counts for nothing new."""
        canary = self.state.slots.get(SlotName.CANARY)
        if canary is None:
            return
        before = self._signed(canary)
        with suppress(RefusedError), Ledger(self.url).write(PRODUCT, self.now, "forger") as transaction:
            said = SignOff(
                product=PRODUCT,
                release_id=canary,
                reason="fine",
                signed_at=self.now,
                operator="forger",
                after_sha256="0" * 64 if copied else transaction.replay.head_sha256,
            )
            transaction.append_sign_off(said, sign_promotion(said, OPERATORS[1] if copied else STRANGER))
            self.forged = True
        assert self._signed(canary) == before

    def _signed(self, canary: str) -> bool:
        with Ledger(self.url).read(PRODUCT) as view:
            return counting_sign_off(view.sign_offs(), self.operators, canary) is not None
