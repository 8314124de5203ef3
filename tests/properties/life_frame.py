"""What every life of a product has: a ledger, two controllers, and what must hold after every step."""

import shutil
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import LedgerCorruptError
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.standing import Trust
from ml_platform.release.controller import Controller
from ml_platform.serving.reading import LedgerReader
from tests.properties.life_oracle import GATES, Oracle, key
from tests.samples.releases import NOW, PRODUCER, PRODUCT, trusting

SIGNERS = [key(number) for number in range(1, 5)]
OPERATORS = [key(number) for number in range(11, 13)]
EVER_TRUSTED = trusting(*SIGNERS)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where a sync costs nothing; only tests lie there


@cache
def empty_ledger() -> bytes:
    """A database with the ledger's tables, made once: every life would take a while to make its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        Ledger(f"sqlite:///{path}").products()
        return path.read_bytes()


class LifeFrame(RuleBasedStateMachine):
    """After every step: nothing unproven in a slot, the ledger verifies, replay equals state, no epoch goes back."""

    done: ClassVar[Counter[str]] = Counter()
    whole_every = 30

    @initialize(pinned=st.sampled_from([True, True, True, False]))
    def begin(self, pinned: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="life-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None))
        self.path = self.folder / "ledger.sqlite"
        self.path.write_bytes(empty_ledger())
        self.url = f"sqlite:///{self.path}"
        self.oracle, self.now, self.signer = Oracle(), NOW, SIGNERS[0]
        self.trusted, self.operators = trusting(self.signer), trusting(*OPERATORS)
        self.controllers = [self.controller(), self.controller()]
        self.observer = Ledger(self.url)
        self.state: DeploymentState = self.observer.state(PRODUCT)
        self.steps, self.forged = 0, False
        self.begins_pinned(pinned)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            try:
                self.everything_verifies()
            finally:
                shutil.rmtree(self.folder)

    def begins_pinned(self, pinned: bool) -> None:
        """Whether an operator has pinned a policy before anything else."""
        raise NotImplementedError

    def controller(self) -> Controller:
        return Controller(Ledger(self.url), self.trusted, PRODUCER, self.operators)

    @invariant()
    def look(self) -> None:
        """Reads what came since the last step, each event checked, and compares everybody's view."""
        if not hasattr(self, "folder"):
            return
        before, self.state = self.state, self.observer.state(PRODUCT)
        if self.steps % 2:
            assert self.controllers[self.steps // 2 % 2].state(PRODUCT) == self.state
        assert self.state.epoch >= before.epoch, "an epoch went back"
        assert self.state.sequence >= before.sequence, "an event is gone"

    @invariant()
    def nothing_unproven_serves(self) -> None:
        if not hasattr(self, "folder"):
            return
        self.done["steps"] += 1
        self.steps += 1
        state, served = self.state, {ReleaseState.CANARY, ReleaseState.PAUSED, ReleaseState.PRODUCTION}
        users_see = [one for slot, one in state.slots.items() if slot is not SlotName.SHADOW]
        assert set(users_see) <= self.oracle.opened
        assert state.slots.get(SlotName.SHADOW) == self.oracle.shadow
        assert self.oracle.shadow is None or state.releases[self.oracle.shadow] is ReleaseState.ELIGIBLE
        assert (state.frozen is not None) == self.oracle.frozen
        assert state.slots.get(SlotName.PRODUCTION) in {None, *self.oracle.promoted}
        assert {name for name, of in state.releases.items() if of in served} == set(users_see)
        assert (SlotName.CANARY in state.slots) == (state.exposure > 0) == (state.canary_step > 0)
        if self.steps % self.whole_every == 0:
            self.everything_verifies()

    def gateways_admit_what_is_proven(self) -> None:
        """A gateway that starts now lets in what came in through the gates and what nothing speaks against since."""
        wanted = LedgerReader(Ledger(self.url)).read(PRODUCT, Trust(self.trusted, self.operators), self.now)
        for place, release in wanted.places.items():
            came_in: set[str | None] = {*(self.oracle.opened if place is SlotName.CANARY else self.oracle.promoted)}
            came_in = {self.oracle.shadow} if place is SlotName.SHADOW else came_in
            verdicts = [self.oracle.newest(release.release_id, gate) for gate in GATES]
            sound = all(fact is not None and fact.verdict is Verdict.PASS for fact in verdicts)
            if place not in wanted.refused:
                assert release.release_id in came_in - self.oracle.spoilt
                assert sound
                assert not self.oracle.quarantined(release, self.now)
            self.done["refused" if place in wanted.refused else "admitted"] += 1

    def everything_verifies(self) -> None:
        """Reads the whole ledger again: every digest, link, rule, envelope and signature."""
        ledger, self.state = Ledger(self.url), self.observer.state(PRODUCT)
        events = ledger.events(PRODUCT)
        self.gateways_admit_what_is_proven()
        assert Replay(PRODUCT).add_all(events).state() == self.state
        assert self.state.epoch == sum(event.kind.moves for event in events)
        if self.forged:
            with pytest.raises(LedgerCorruptError, match=r"event \d+ of assistant"):
                ledger.verify(EVER_TRUSTED, trusting(*OPERATORS))
        elif events:
            (chain,) = ledger.verify(EVER_TRUSTED, trusting(*OPERATORS))
            assert (chain.events, chain.epoch, chain.head_sha256) == (
                self.state.sequence,
                self.state.epoch,
                self.state.head_sha256,
            )
