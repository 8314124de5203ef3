"""Watching one product: look at what stands and what was seen, decide, do it through the one door, and tell."""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ml_platform.contracts.decided import DecisionRecorded
from ml_platform.contracts.monitoring import Action, Decision, Look
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import (
    EpochConflictError,
    LedgerCorruptError,
    MlPlatformError,
    OperationError,
    RefusedError,
    StorageError,
)
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.sign_offs import counting_sign_off
from ml_platform.release.controller import Controller
from ml_platform.release.decide import decide
from ml_platform.release.incidents import Incidents
from ml_platform.release.monitor_policies import MonitorPolicies
from ml_platform.release.moves import Held
from ml_platform.release.past import judged_since, past_of
from ml_platform.release.retention import FORWARD, Retention
from ml_platform.release.subject import OpenFeed, Subject, name_of, subject_of, watched_in

logger = logging.getLogger(__name__)

HELD_S = 30.0
"""How long a move that the door holds is not asked for again, unless something was recorded since.

Nor what goes forward and failed at a store; what stops is asked for again at once.
"""

BLIND_S = 10.0
"""How long stores may fail before that is an incident."""

OVER_S = 600.0
"""How long an incident must have been over before it counts as another one."""


@dataclass
class Watch:
    """One product under watch; `look` does one round, and whoever kills it at any point loses nothing.

    All that counts is in the ledger and the provenance store: a new watch reads both, of production without a canary as
    far back as answers count, and decides the same.
    """

    product: str
    controller: Controller
    store: ArtifactStore
    open_feed: OpenFeed
    actor: str
    incidents: Incidents | None = None
    patient: bool = False
    """Whether what goes forward is kept within the look, however long that takes: there may be no other look."""
    untold: str = ""
    """Why nobody can tell whose signatures count now: nothing goes forward then, what stops goes by those that did."""

    _policies: MonitorPolicies = field(init=False)
    _retention: Retention = field(init=False)
    _subject: Subject | None = None
    _blind_since: float | None = None
    _held: tuple[int, Action, float, str] = (0, Action.HOLD, 0.0, "")
    _incidents: dict[tuple[int, str], float] = field(default_factory=dict)
    _untended: str = ""

    def __post_init__(self) -> None:
        self._retention = Retention(self.product, self.store, self.patient)
        self._policies = MonitorPolicies(self.store)

    def look(self) -> Look:
        """Observes, decides, does it, and says what it saw and did. Raises what the ledger raises."""
        with self.controller.ledger.read(self.product) as view:
            replay, sign_offs = view.replay, view.sign_offs()
        canary = replay.slots.get(SlotName.CANARY)
        signed = canary and counting_sign_off(sign_offs, self.controller.operators, canary)
        decision = self._act(replay, self._decide(replay, signed_off=bool(signed)))
        with self.controller.ledger.read(self.product) as view:
            self._tend(view.replay, decision)
            return _look_of(view.replay, decision, self.actor)

    def _tend(self, replay: Replay, decision: Decision) -> None:
        if self.incidents is None:
            return
        try:
            traffic = self._subject.traffic if self._subject and self._subject.name == name_of(replay) else None
            self.incidents.tend(replay, decision, traffic, datetime.now(UTC))
            self._untended = ""
        except StorageError as error:
            if self._untended != str(error):
                logger.error("%s: %s", self.product, error)  # noqa: TRY400 - a sentence, no traceback
            self._untended = str(error)

    def _decide(self, replay: Replay, *, signed_off: bool) -> Decision:
        state = replay.state()
        try:
            subject = self._observe(replay)
        except LedgerCorruptError:
            raise
        except MlPlatformError as error:
            return self._blind(replay, error)
        self._blind_since = None
        now = subject.feed.now()
        slots = state.slots.get(SlotName.CANARY), state.slots.get(SlotName.PRODUCTION)
        findings = subject.traffic.findings(*slots, datetime.now(UTC))
        past = past_of(replay, subject.traffic, now, signed_off=signed_off)
        return decide(subject.plan, state, findings, past, now)

    def _observe(self, replay: Replay) -> Subject:
        """What is watched, with what came since the last look."""
        named = name_of(replay), watched_in(replay, self._policies)
        if self._subject is None or (self._subject.name, self._subject.watched) != named:
            before, self._subject = self._subject, None  # what fails half-way is begun again
            self._subject = subject_of(replay, self._policies, self.open_feed, before)
        subject, self._subject = self._subject, None
        subject.traffic.turn(datetime.now(UTC))
        subject.traffic.judge_anew(judged_since(replay))
        try:
            seen = subject.feed.read()
        except MlPlatformError:
            self._subject = subject  # a read that fails loses nothing
            raise
        subject.traffic.add(seen)
        self._subject = subject
        return subject

    def _blind(self, replay: Replay, error: MlPlatformError) -> Decision:
        """What cannot be read proves nothing, and what was read before may be outdated: nothing moves."""
        began = self._blind_since = self._blind_since or time.monotonic()
        lasting = time.monotonic() - began > BLIND_S
        return Decision(
            product=self.product,
            action=Action.HOLD,
            release_id=replay.slots.get(SlotName.CANARY) or replay.slots.get(SlotName.PRODUCTION),
            reason=f"What was seen cannot be read: {error}",
            epoch=replay.epoch,
            at=self._subject.feed.now() if self._subject else datetime.now(UTC),
            waits_for=("the records of answers",),
            incident="what was seen cannot be read" if lasting else None,
        )

    def _act(self, replay: Replay, decision: Decision) -> Decision:
        """Does what was decided, and returns it; a hold with the reason where it could not be done."""
        self._retention.turn(decision)
        if decision.action is Action.HOLD:
            return self._recorded(decision)
        sequence, action, until, why = self._held
        if (sequence, action) == (replay.sequence, decision.action) and time.monotonic() < until:
            return self._recorded(_held_back(decision, why))
        at = replay.sequence
        if self.untold and decision.action in FORWARD:
            return self._hold_back(at, decision, f"held: the trusted keys cannot be read: {self.untold}", 0.0)
        try:
            decision, kept_sha256 = self._retention.keep(decision, self._subject)
            done = self._apply(decision, kept_sha256)
        except EpochConflictError:
            return _held_back(decision, "somebody else moved a slot meanwhile")
        except OperationError as error:
            # Nothing is wrong with the move: what takes users away from harm is asked for again at the next look.
            return self._hold_back(at, decision, f"held: {error}", HELD_S if decision.action in FORWARD else 0.0)
        except RefusedError as error:
            done = Held(self.product, decision.release_id or "", because=str(error))
        if isinstance(done, Held):
            why = " ".join([done.sentence, *(f"{name}: {reason}" for name, reason in done.reasons.items())])
            return self._recorded(self._hold_back(at, decision, why, HELD_S))
        logger.info("%s: %s: %s", self.product, decision.action, decision.reason)
        return decision

    def _hold_back(self, sequence: int, decision: Decision, why: str, seconds: float) -> Decision:
        """The hold instead; the same move is not asked for again for so long."""
        if (self._held[1], self._held[3]) != (decision.action, why):
            logger.warning("%s: %s is %s", self.product, decision.action, why)
        self._held = sequence, decision.action, time.monotonic() + seconds, why
        return _held_back(decision, why)

    def _apply(self, decision: Decision, kept_sha256: str | None) -> object:
        return self.controller.apply(decision, kept_sha256, datetime.now(UTC), self.actor)

    def _recorded(self, decision: Decision) -> Decision:
        """The hold, its incident in the ledger where it has one. Raises what the ledger raises: next time, then."""
        if decision.incident is None:
            return decision
        name = (decision.epoch, decision.incident)
        if self._is_news(name):
            with suppress(EpochConflictError):
                self._apply(*self._retention.keep(decision, self._subject))
        self._incidents[name] = time.monotonic()
        return decision

    def _is_news(self, name: tuple[int, str]) -> bool:
        """Whether an incident is not in the ledger yet, at this epoch; or came again after it had long been over."""
        if (known := self._incidents.get(name)) is not None:
            return time.monotonic() - known > OVER_S
        with self.controller.ledger.read(self.product) as view:
            said = [DecisionRecorded.model_validate(event.payload).decision for event in view.replay.decisions]
        return all((one.epoch, one.incident) != name for one in said)


def _held_back(decision: Decision, why: str) -> Decision:
    reason = f"{decision.action.replace('_', ' ').capitalize()} was decided ({decision.reason}) and not done: {why}"
    return decision.model_copy(update={"action": Action.HOLD, "reason": reason, "waits_for": (why,)})


def _look_of(replay: Replay, decision: Decision, actor: str) -> Look:
    """What people are shown; the slots are those after the move."""
    return Look(
        product=replay.product,
        looked_at=datetime.now(UTC),
        controller=actor,
        production=replay.slots.get(SlotName.PRODUCTION),
        canary=replay.slots.get(SlotName.CANARY),
        shadow=replay.slots.get(SlotName.SHADOW),
        exposure=replay.exposure,
        step=replay.canary_step,
        frozen=replay.frozen.payload["reason"] if replay.frozen else None,
        decision=decision,
    )
