"""The life of a product among attackers: forgers, people with the database, processes that die at any moment."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ml_platform.contracts.events import AdmissionRefused, EvidenceRecorded, ReleaseEligible
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.pin import PolicyPin
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import LedgerCorruptError, NotEligibleError, RefusedError
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.statements import sign_evidence, sign_pin
from tests.properties.life_attacks import (
    TAMPERING,
    DiedError,
    cut_the_end,
    dying_after,
    in_a_child,
    kill_oneself,
    raise_death,
    read,
    restored,
)
from tests.properties.life_decisions import DecidingLife
from tests.properties.life_frame import OPERATORS
from tests.properties.life_oracle import GATES, POLICIES, RELEASES, key
from tests.properties.life_work import CHOICES, EITHER, MOVES, NUMBERS, VERDICTS
from tests.samples.releases import NOW, PRODUCT, make_evidence

STRANGER = key(21)
PLACES = st.integers(0, 1000)
DEATHS = st.sampled_from([*["died"] * 9, "killed"])


class Life(DecidingLife):
    """Whatever is done to the ledger from outside, it is named, and moves nothing."""

    @rule(which=NUMBERS, of=NUMBERS, gates=st.sets(st.sampled_from(GATES), min_size=1))
    def somebody_copies_evidence_of_another_release(self, which: int, of: int, gates: set[str]) -> None:
        """Correctly signed, but about another release: it counts for nothing."""
        release, policy = RELEASES[which], POLICIES[0]
        if which == of or release.release_id not in self.state.releases:
            return
        with Ledger(self.url).write(PRODUCT, self.now, "forger") as transaction:
            for gate in sorted(gates):
                envelope = sign_evidence(make_evidence(RELEASES[of], policy, gate, at=self.now), self.signer)
                if not transaction.has_envelope(release.release_id, envelope):
                    transaction.append_evidence(make_evidence(release, policy, gate, at=self.now), envelope)
                    self.forged = True

    @rule(which=st.just(0), gate=st.sampled_from(GATES))
    def somebody_signs_with_a_key_of_their_own(self, which: int, gate: str) -> None:
        """It holds the release, for a damaged FAIL must not bring an older PASS back."""
        release = RELEASES[which]
        if release.release_id not in self.state.releases:
            return
        evidence = make_evidence(release, POLICIES[0], gate, at=self.now)
        envelope = sign_evidence(evidence, STRANGER)
        with suppress(RefusedError), Ledger(self.url).write(PRODUCT, self.now, "forger") as transaction:
            transaction.append_evidence(evidence, envelope)
        self.oracle.spoilt.add(release.release_id)
        self.forged = True

    @rule(which=NUMBERS, place=PLACES)
    def somebody_records_old_evidence_again(self, which: int, place: int) -> None:
        """An envelope that the release has had is refused; an old PASS never comes after a newer FAIL."""
        release_id = RELEASES[which].release_id
        with Ledger(self.url).write(PRODUCT, self.now, "forger") as transaction:
            recorded = transaction.replay.evidence.get(release_id, [])
            if not recorded:
                return
            said = recorded[place % len(recorded)]
            with pytest.raises(RefusedError, match="is recorded twice"):
                transaction.append(EvidenceRecorded.model_validate(said.model_dump()))

    @rule(which=NUMBERS)
    def somebody_claims_eligibility(self, which: int) -> None:
        release = RELEASES[which]
        said = ReleaseEligible(
            release_id=release.release_id,
            policy_sha256=release.promotion_policy.content_sha256,
            expires_at=self.now.replace(year=2099),
        )
        with suppress(RefusedError), Ledger(self.url).write(PRODUCT, self.now, "forger") as transaction:
            transaction.append(said)

    @rule(place=st.sampled_from([*SlotName, None]), again=st.booleans())
    def a_gateway_refuses(self, place: SlotName | None, again: bool) -> None:
        """It is recorded of what is there, once, and moves nothing."""
        before = self.state
        release_id = before.slots.get(place) if place else before.last_good
        said = AdmissionRefused(release_id=release_id or "f" * 64, slot=place, reason="no", gateway="here")
        with suppress(RefusedError), Ledger(self.url).write(PRODUCT, self.now, "here") as transaction:
            transaction.append(said)
            assert release_id
            self.done["gateway refused"] += 1
            if again:
                with pytest.raises(RefusedError, match="recorded twice"):
                    transaction.append(said)
        assert self.observer.state(PRODUCT).slots == before.slots

    @rule(which=EITHER, copied=st.booleans())
    def somebody_pins_without_an_operators_key(self, which: int, copied: bool) -> None:
        """With a key of their own, or with an operator's word from elsewhere in the chain."""
        policy = POLICIES[which]
        with Ledger(self.url).write(PRODUCT, self.now, "forger") as transaction:
            if policy.sha256 not in transaction.replay.policies:
                return
            pin = PolicyPin(
                product=PRODUCT,
                policy_sha256=policy.sha256,
                version=policy.version,
                reason="looser",
                pinned_at=NOW,
                operator="forger",
                after_sha256="0" * 64 if copied else transaction.replay.head_sha256,
            )
            transaction.append_pin(pin, sign_pin(pin, OPERATORS[1] if copied else STRANGER))
        self.forged = True

    @rule(which=CHOICES, move=MOVES, number=EITHER, rows=st.integers(1, 3))
    def a_move_dies_between_two_appends(self, which: int, move: str, number: int, rows: int) -> None:
        which, controller = self.chosen(which, move), self.controllers[number]
        self._dies(controller.ledger, rows, lambda: self.call(controller, move, which, self.state.epoch), move, which)

    def _dies(self, ledger: Ledger, rows: int, work: Callable[[], object], move: str, which: int) -> None:
        expected = self.oracle.expects(move, RELEASES[which], self.state, self.now)
        try:
            with suppress(RefusedError), dying_after(ledger, rows, raise_death):
                work()
        except DiedError:
            expected = False
            self.done["died"] += 1
        self.note(move, expected, which)

    @rule(which=NUMBERS, verdicts=VERDICTS, number=EITHER, rows=st.integers(1, 9), how=DEATHS)
    def a_judgement_dies_between_two_appends(
        self, which: int, verdicts: dict[str, Verdict], number: int, rows: int, how: str
    ) -> None:
        """What was appended is gone as a whole, or there as a whole; one time in ten the process really is killed."""
        self.register(which, number)
        before = self.state = self.observer.state(PRODUCT)
        if how == "killed" and not self._survives(which, verdicts, rows):
            assert Ledger(self.url).state(PRODUCT) == before
            return
        try:
            with dying_after(self.controllers[number].ledger, rows, raise_death):
                self.judge(which, verdicts, number)
        except DiedError:
            assert self.observer.state(PRODUCT) == before
            self.done["died"] += 1

    def _survives(self, which: int, verdicts: dict[str, Verdict], rows: int) -> bool:
        """Whether a forked process gets through before its SIGKILL after so many rows."""
        controller = self.controller()
        with dying_after(controller.ledger, rows, kill_oneself):
            finished = in_a_child(lambda: self.judge_with(controller, which, verdicts))
        self.done["finished" if finished else "killed"] += 1
        return finished

    @rule(how=st.sampled_from(sorted(TAMPERING)), place=PLACES)
    def rows_are_changed_past_the_triggers(self, how: str, place: int) -> None:
        """Every new reader names it until the rows are back; who knew the rows stands by them, or names it."""
        tampering, events = TAMPERING[how], self.observer.events(PRODUCT)
        places = [event.sequence for event in events[:-1] if tampering.fits(event)]
        if not places:
            return
        with restored(self.path):
            tampering.commit(self.path, places[place % len(places)])
            stranger = self.controller()
            for reader in tampering.seen_by:
                with pytest.raises(LedgerCorruptError, match="assistant"):
                    read(stranger.ledger, PRODUCT, reader)
            for controller in self.controllers:
                with suppress(LedgerCorruptError):
                    assert controller.state(PRODUCT) == self.state
            if "state" in tampering.seen_by:
                with pytest.raises(LedgerCorruptError):
                    self.call(stranger, "open", 0, self.state.epoch)
        self.done["tampered"] += 1

    @rule(rows=st.integers(1, 3))
    def the_end_of_the_chain_is_cut_off(self, rows: int) -> None:
        """A shorter chain is whole; whoever has read further notices."""
        if self.state.sequence < rows:
            return
        readers = [self.observer, *(one.ledger for one in self.controllers)]
        assert [known.state(PRODUCT) for known in readers] == [self.state] * 3
        with restored(self.path):
            cut_the_end(self.path, rows)
            for known in [*readers, *readers]:
                with pytest.raises(LedgerCorruptError, match="is gone or another one since it was last read"):
                    known.state(PRODUCT)

    @rule(statement=st.sampled_from(["DELETE FROM events", "UPDATE envelopes SET content = ''"]))
    def somebody_tries_to_erase(self, statement: str) -> None:
        if not self.observer.replay(PRODUCT).evidence:
            return
        with (
            self.observer._engine.connect().execution_options(writes=True) as connection,
            pytest.raises(DBAPIError, match="append-only"),
            connection.begin(),
        ):
            connection.execute(text(statement))

    @rule()
    def somebody_opens_what_nobody_registered(self) -> None:
        with pytest.raises(NotEligibleError, match="is not in the ledger"):
            self.controllers[0].open_canary(PRODUCT, "f" * 64, self.now, "run")
