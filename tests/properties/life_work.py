"""The working life of one product: runs, moves, pins and keys, by two controllers and two operators."""

import threading
from dataclasses import replace
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ml_platform.contracts.evidence import GateResult, Verdict
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import EpochConflictError, RefusedError
from ml_platform.lineage.keys import SigningKey, TrustedKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.standing import Trust
from ml_platform.release.controller import Controller, Held, Move
from ml_platform.serving.reading import LedgerReader
from tests.properties.life_frame import OPERATORS, SIGNERS, LifeFrame
from tests.properties.life_oracle import GATES, POLICIES, RELEASES, STEP
from tests.samples.releases import PRODUCT, inputs_of, trusting

VERDICTS: st.SearchStrategy[dict[str, Verdict]] = st.just({}) | st.dictionaries(
    st.sampled_from(GATES), st.sampled_from(list(Verdict)), max_size=1
)
# Numbers stand for releases, so that what Hypothesis prints can be read.
NUMBERS = st.integers(0, len(RELEASES) - 1)
CANARY = -1
CHOICES = st.sampled_from([CANARY, CANARY, CANARY, *range(len(RELEASES))])
EITHER = st.integers(0, 1)
THEN = st.sampled_from(
    ["", "promote", "advance promote", "advance advance advance", "pause promote", "pause resume", "abort"]
)
BEHIND_THE_SHADOW = st.sampled_from(["hold", "open", "open promote", "close_shadow", "hold", "close_shadow", ""])
BEHIND = st.sampled_from([0, 0, 0, 0, 1])
SHADOWING = ("open_shadow", "close_shadow")
MOVES = st.sampled_from(["open", "advance", "pause", "resume", "abort", "promote", "promote", *SHADOWING])


class WorkingLife(LifeFrame):
    """Every move is compared with what the oracle expects of it."""

    def begins_pinned(self, pinned: bool) -> None:
        """See LifeFrame."""
        if pinned:
            self.pin(0, 1, 0)

    @rule(hours=st.integers(0, 24 * 12))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(number=EITHER)
    def a_controller_restarts(self, number: int) -> None:
        self.controllers[number] = self.controller()

    @rule(which=NUMBERS, number=EITHER)
    def register(self, which: int, number: int) -> None:
        policy = POLICIES[which == len(RELEASES) - 1]
        self.controllers[number].register_release(RELEASES[which], policy, self.now, "run")

    @rule(which=NUMBERS, verdicts=VERDICTS, number=EITHER)
    def judge(self, which: int, verdicts: dict[str, Verdict], number: int) -> None:
        if RELEASES[which].release_id not in self.state.releases:
            self.register(which, number)
        reference, shadow = self.judge_with(self.controllers[number], which, verdicts), self.oracle.shadow
        self.oracle.judged(RELEASES[which], verdicts, reference, self.signer.key_id, self.now)
        self.done["shadow held"] += self.oracle.shadow != shadow

    def judge_with(self, controller: Controller, which: int, verdicts: dict[str, Verdict]) -> str:
        """Records verdicts and tells what they compare with."""
        release, reference = RELEASES[which], self.state.slots.get(SlotName.PRODUCTION, "base")
        results = [
            GateResult(gate=gate, claim="c", verdict=verdicts.get(gate, Verdict.PASS), reason=f"{gate} was looked at.")
            for gate in GATES
        ]
        controller.record_verdicts(release, results, inputs_of(release, reference), self.signer, self.now, "run")
        return reference

    @rule(which=NUMBERS, number=EITHER, then=THEN)
    def a_whole_run(self, which: int, number: int, then: str) -> None:
        """From candidate to canary, on a laptop with the first pin too, and then perhaps on."""
        self.judge(which, {}, number)
        if not self.oracle.pins:
            policy, controller = POLICIES[0], self.controllers[number]
            if controller.pin_policy(PRODUCT, policy, OPERATORS[1], "first use", self.now, "run", only_first=True):
                self.oracle.pins.append((policy.sha256, OPERATORS[1].key_id))
        self.look()
        for move in ["open", *then.split()]:
            self.now += STEP if move == "advance" else timedelta(0)
            self.move(which, move, number, 0)

    @rule(which=NUMBERS, number=EITHER, back=st.booleans())
    def a_successor(self, which: int, number: int, back: bool) -> None:
        """Comes into production, and perhaps makes room again for what was there before."""
        self.a_whole_run(which, number, "promote")
        if back:
            self.roll_back(number, None, 0)

    @rule(first=st.just(0), second=st.integers(1, 3), number=EITHER, then=BEHIND_THE_SHADOW)
    def a_shadow(self, first: int, second: int, number: int, then: str) -> None:
        """Beside what is in production; afterwards it is perhaps the canary, held or gone."""
        if SlotName.PRODUCTION not in self.state.slots:
            self.a_whole_run(first, number, "promote")
        for what in ["judge", "open_shadow", *then.split()]:
            if what in ("judge", "hold"):
                self.judge(second, {GATES[0]: Verdict.FAIL} if what == "hold" else {}, number)
                self.look()
            else:
                self.move(second, what, number, 0)

    @rule(which=CHOICES, move=MOVES, number=EITHER, behind=BEHIND)
    def move(self, which: int, move: str, number: int, behind: int) -> None:
        which = self.chosen(which, move)
        expected = self.oracle.expects(move, RELEASES[which], self.state, self.now)
        try:
            found = self.call(self.controllers[number], move, which, self.state.epoch - behind)
        except EpochConflictError:
            assert behind
            expected = False
        except RefusedError:
            assert not expected
        else:
            assert isinstance(found, Held) or found.changed == expected
            assert isinstance(found, Move) or (not expected and found.sentence.startswith("held: "))
        self.note(move, expected, which)

    def chosen(self, which: int, move: str) -> int:
        """The number of the canary or of the shadow that a move is about, of the first release where there is none."""
        serving = self.state.slots.get(SlotName.SHADOW if move == "close_shadow" else SlotName.CANARY)
        numbers = [number for number, one in enumerate(RELEASES) if one.release_id == serving]
        return which if which != CANARY else next(iter(numbers), 0)

    def call(self, controller: Controller, move: str, which: int, epoch: int) -> Move | Held:
        """One of the controller's moves."""
        release_id = RELEASES[which].release_id
        why = ("reason",) if move in ("pause", "resume", "abort", *SHADOWING) else ()
        name = move if move in ("promote", *SHADOWING) else f"{move}_canary"
        done: Move | Held = getattr(controller, name)(PRODUCT, release_id, *why, self.now, "run", expected_epoch=epoch)
        return done

    def note(self, move: str, expected: bool, which: int = 0) -> None:
        """The slots moved if, and only if, they were expected to."""
        after = self.observer.state(PRODUCT)
        if expected and move in SHADOWING:
            self.oracle.shadow = RELEASES[which].release_id if move == "open_shadow" else None
        assert (after.epoch > self.state.epoch) == expected, f"{move}: expected {expected}"
        shadow = self.oracle.shadow
        self.oracle.moved(self.state, after, self.now)
        self.done["shadow to canary"] += self.oracle.shadow != shadow
        self.state = after
        self.done[move if expected else f"{move} refused"] += 1

    @rule(number=EITHER, to=st.none() | NUMBERS, behind=BEHIND)
    def roll_back(self, number: int, to: int | None, behind: int) -> None:
        wanted = None if to is None else RELEASES[to].release_id
        gateway = LedgerReader(Ledger(self.url)).read(PRODUCT, Trust(self.trusted, self.operators), self.now)
        may = {one.release_id for one in RELEASES if self.oracle.may_serve_again(one, self.now)}
        try:
            done = self.controllers[number].roll_back(
                PRODUCT, "reason", self.now, "run", to=wanted, expected_epoch=self.state.epoch - behind
            )
        except RefusedError:
            done = None
        moved = isinstance(done, Move)
        if isinstance(done, Move):
            assert not behind
            assert done.release_id in may
            last_good = gateway.places[None].release_id
            assert None not in gateway.refused
            assert to is not None or done.release_id == last_good, "a gateway keeps another release ready"
        self.note("roll back", moved)

    @rule(which=st.sampled_from([0, 0, 0, 1]), by=EITHER, number=EITHER)
    def pin(self, which: int, by: int, number: int) -> None:
        if OPERATORS[by].key_id in self.oracle.revoked:
            return
        policy = POLICIES[which]
        self.controllers[number].pin_policy(PRODUCT, policy, OPERATORS[by], "reason", self.now, "operator")
        if self.oracle.pinned() != policy.sha256:
            self.oracle.pins.append((policy.sha256, OPERATORS[by].key_id))
        pinned = self.controllers[1 - number].pinned(PRODUCT)
        assert pinned is not None
        assert pinned.policy_sha256 == policy.sha256

    @rule(revoke=st.booleans())
    def the_signing_key_is_rotated(self, revoke: bool) -> None:
        """With an overlap, or because somebody got hold of the old one."""
        left = SIGNERS[SIGNERS.index(self.signer) + 1 :]
        if not left:
            return
        if revoke:
            self.trusted = {**self.trusted, self.signer.key_id: _revoked(self.signer)}
            self.oracle.revoked.add(self.signer.key_id)
        self.signer = left[0]
        self.trusted = {**self.trusted, **trusting(self.signer)}
        self.controllers = [replace(one, trusted=self.trusted) for one in self.controllers]

    @rule()
    def the_first_operator_leaves(self) -> None:
        self.operators = {**self.operators, OPERATORS[0].key_id: _revoked(OPERATORS[0])}
        self.oracle.revoked.add(OPERATORS[0].key_id)
        self.controllers = [replace(one, operators=self.operators) for one in self.controllers]

    @rule(first=NUMBERS, second=NUMBERS)
    def two_controllers_open_at_once(self, first: int, second: int) -> None:
        for which in {first, second}:
            if not self.oracle.expects("open", RELEASES[which], self.state, self.now):
                self.judge(which, {}, which % 2)
        self.look()
        before, barrier = self.state, threading.Barrier(2)
        won: list[int] = []

        def race(number: int, which: int) -> None:
            barrier.wait()
            try:
                found = self.call(self.controllers[number], "open", which, before.epoch)
            except RefusedError:
                return
            won.extend([which] if isinstance(found, Move) and found.changed else [])

        racers = [threading.Thread(target=race, args=pair) for pair in ((0, first), (1, second))]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        allowed = {one for one in (first, second) if self.oracle.expects("open", RELEASES[one], before, self.now)}
        assert len(won) == bool(allowed)
        assert set(won) <= allowed
        self.note("race", bool(won))


def _revoked(key: SigningKey) -> TrustedKey:
    return key.public.model_copy(update={"revoked": True})
