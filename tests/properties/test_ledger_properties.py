"""Random lives of a product: whatever happens in whatever order, nothing unproven ever serves."""

import shutil
import tempfile
from contextlib import nullcontext
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.events import (
    CanaryAborted,
    CanaryAdvanced,
    CanaryPaused,
    CanaryResumed,
    Payload,
    ReleaseEligible,
    ReleasePromoted,
    ReleaseRolledBack,
)
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import NotEligibleError, RefusedError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.statements import sign_evidence
from ml_platform.release.controller import Controller, Move
from ml_platform.release.verification import assess_evidence
from tests.samples.releases import (
    NOW,
    OPERATOR,
    PRODUCER,
    PRODUCT,
    inputs_of,
    make_evidence,
    make_policy,
    make_release,
    pin,
    trusting,
)

KEY, STRANGER = SigningKey.generate(), SigningKey.generate()
TRUSTED = trusting(KEY)
POLICY = make_policy()
GATES = st.sampled_from(POLICY.gate_names)
VERDICTS = st.sampled_from(list(Verdict))
BAD = st.just({}) | st.just({}) | st.dictionaries(GATES, VERDICTS, max_size=1)
# Numbers stand for releases, so that what Hypothesis prints can be read.
NUMBERS = st.integers(0, 3)
RELEASES = [make_release(date(2013, 3, 1) + timedelta(days=day), seed) for day in range(2) for seed in range(2)]


class Life(RuleBasedStateMachine):
    """Two controllers, a forger with the database but no key, and a clock that never goes back."""

    known = Bundle("known")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-"))
        self.url = f"sqlite:///{self.folder / 'ledger.sqlite'}"
        self.controllers = [Controller(Ledger(self.url), TRUSTED, PRODUCER, trusting(OPERATOR)) for _ in range(2)]
        self.now: datetime = NOW
        pin(self.controllers[0], POLICY)
        self.epoch = 0
        self.opened: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def controller(self, number: int) -> Controller:
        return self.controllers[number]

    @rule(hours=st.integers(0, 24 * 20))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(number=st.integers(0, 1))
    def a_controller_restarts(self, number: int) -> None:
        self.controllers[number] = Controller(Ledger(self.url), TRUSTED, PRODUCER, trusting(OPERATOR))

    @rule(target=known, which=NUMBERS, number=st.integers(0, 1))
    def register(self, which: int, number: int) -> int:
        release = RELEASES[which]
        self.controller(number).register_release(release, POLICY, self.now, "run")
        return which

    @rule(
        which=known,
        bad=BAD,
        number=st.integers(0, 1),
    )
    def judge(self, which: int, bad: dict[str, Verdict], number: int) -> None:
        release = RELEASES[which]
        results = [
            make_evidence(release, POLICY, gate, bad.get(gate, Verdict.PASS)).result for gate in POLICY.gate_names
        ]
        controller = self.controller(number)
        inputs = inputs_of(release, controller.state(PRODUCT).slots.get(SlotName.PRODUCTION, "base"))
        controller.record_verdicts(release, results, inputs, KEY, self.now, "run")

    @rule(which=st.just(0), gates=st.sets(GATES), other=NUMBERS)
    def forge_evidence(self, which: int, gates: set[str], other: int) -> None:
        """Evidence borrowed from another release, or a stranger's: written past the controller."""
        self.register(which, 0)
        release, claimed = RELEASES[which], RELEASES[other]
        key = STRANGER if which == other else KEY
        try:
            with Ledger(self.url).write(PRODUCT, self.now, "forger") as transaction:
                for gate in sorted(gates):
                    envelope = sign_evidence(make_evidence(claimed, POLICY, gate, at=self.now), key)
                    transaction.append_evidence(make_evidence(release, POLICY, gate, at=self.now), envelope)
        except RefusedError:
            pass

    @rule(which=known)
    def claim_eligibility(self, which: int) -> None:
        said = ReleaseEligible(
            release_id=RELEASES[which].release_id, policy_sha256=POLICY.sha256, expires_at=self.now + timedelta(days=9)
        )
        self._try(said)

    @rule(which=known, number=st.integers(0, 1), behind=st.sampled_from([0, 0, 0, 1]))
    def open_canary(self, which: int, number: int, behind: int) -> None:
        release = RELEASES[which]
        controller = self.controller(number)
        replay = controller.ledger.replay(PRODUCT)
        proven = assess_evidence(
            controller.ledger.envelopes(PRODUCT, release.release_id), TRUSTED, POLICY, release, self.now
        ).eligible
        try:
            done = controller.open_canary(PRODUCT, release.release_id, self.now, "run", replay.epoch - behind)
        except RefusedError:
            assert behind
            return
        if isinstance(done, Move) and done.changed:
            assert proven
            event("a canary opened")
            self.opened.add(release.release_id)
        assert not behind

    @rule(which=NUMBERS, number=st.integers(0, 1))
    def a_whole_run(self, which: int, number: int) -> None:
        self.register(which, number)
        self.judge(which, {}, number)
        self.open_canary(which, number, 0)

    @rule()
    def open_what_nobody_registered(self) -> None:
        try:
            self.controller(0).open_canary(PRODUCT, "f" * 64, self.now, "run")
        except NotEligibleError:
            return
        raise AssertionError

    @rule(which=known, move=st.sampled_from(["advance", "pause", "resume", "abort", "promote"]))
    def move_canary(self, which: int, move: str) -> None:
        name = RELEASES[which].release_id
        payloads: dict[str, Payload] = {
            "advance": CanaryAdvanced(release_id=name, step=2, exposure=0.2),
            "pause": CanaryPaused(release_id=name, reason="r"),
            "resume": CanaryResumed(release_id=name, reason="r"),
            "abort": CanaryAborted(release_id=name, reason="r"),
            "promote": ReleasePromoted(release_id=name),
        }
        self._try(payloads[move])

    @rule(which=known, to=known)
    def roll_back(self, which: int, to: int) -> None:
        name, earlier = RELEASES[which].release_id, RELEASES[to].release_id
        self._try(ReleaseRolledBack(release_id=name, to=earlier, reason="r"))

    @rule()
    def try_to_erase(self) -> None:
        ledger = self.controller(0).ledger
        before = ledger.events()
        with (
            pytest.raises(DBAPIError, match="append-only") if before else nullcontext(),
            ledger._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            connection.execute(text("DELETE FROM events"))
        assert ledger.events() == before

    @invariant()
    def nothing_unproven_serves(self) -> None:
        if not hasattr(self, "folder"):
            return
        state = self.controller(0).state(PRODUCT)
        assert set(state.slots.values()) <= self.opened
        served = {ReleaseState.CANARY, ReleaseState.PAUSED, ReleaseState.PRODUCTION}
        assert {name for name, of in state.releases.items() if of in served} == set(state.slots.values())
        assert (SlotName.CANARY in state.slots) == (state.exposure > 0) == (state.canary_step > 0)

    @invariant()
    def replay_equals_state_and_epochs_never_go_back(self) -> None:
        if not hasattr(self, "folder"):
            return
        states = [controller.state(PRODUCT) for controller in self.controllers]
        events = Ledger(self.url).events(PRODUCT)
        assert states[0] == states[1] == Replay(PRODUCT).add_all(events).state()
        assert states[0].epoch >= self.epoch
        assert states[0].epoch == sum(event.kind.moves for event in events)
        self.epoch = states[0].epoch

    def _try(self, payload: Payload) -> None:
        try:
            with self.controller(0).ledger.write(PRODUCT, self.now, "tester") as transaction:
                transaction.append(payload)
        except RefusedError:
            pass


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=10, stateful_step_count=30, deadline=None)


@pytest.mark.long
class TestLongLife(Life.TestCase):  # type: ignore[misc, name-defined]
    """The same, for ten thousand steps."""

    settings = settings(max_examples=350, stateful_step_count=30, deadline=None)
