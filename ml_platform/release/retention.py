"""Retention beside watching: what is decided is kept before it is done, and nobody else is left unwatched for that."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ml_platform.contracts.monitoring import Action, Decision, Seen
from ml_platform.errors import BusyError, MlPlatformError
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.monitoring.keeping import keep_decision
from ml_platform.release.aside import Aside
from ml_platform.release.subject import Subject

logger = logging.getLogger(__name__)

FORWARD = (Action.OPEN, Action.STEP_UP, Action.PROMOTE)

KEPT_WITHIN_S = 5.0
"""How long what stops waits until what it was decided on is kept."""

READ_WITHIN_S = 0.2
"""How long a look waits for answers that are read again; what goes forward waits for them at the next looks."""


@dataclass(frozen=True)
class _Ahead:
    """A move that goes forward as soon as all that it was decided on is kept, under the digest that comes."""

    decision: Decision
    kept: Future[str]

    def is_for(self, decision: Decision) -> bool:
        """Whether it is the same move of the same release, on other numbers perhaps."""
        return _move_of(decision) == _move_of(self.decision)


def _move_of(decision: Decision) -> tuple[int, Action, str | None]:
    return decision.epoch, decision.action, decision.release_id


@dataclass
class Retention:
    """Keeps the decisions on one product with what they used; `patient` waits for all of it within the look."""

    product: str
    store: ArtifactStore
    patient: bool = False

    _stops: Aside = field(default_factory=lambda: Aside("keeping what was decided on"))
    _forward: Aside = field(default_factory=lambda: Aside("reading again what was decided on"))
    _ahead: _Ahead | None = None

    def turn(self, decision: Decision) -> None:
        """Forgets what was read again for a move that this look does not decide; it would tell of another time."""
        if self._ahead is not None and self._ahead.kept.done() and not self._ahead.is_for(decision):
            self._ahead = None

    def keep(self, decision: Decision, subject: Subject | None) -> tuple[Decision, str | None]:
        """The decision that may be done, and the digest of what it used; None where that could not be kept.

        What stops is not kept waiting by a store that fails or hangs. What goes forward is, and where more answers
        counted than are held, all are read again: BusyError until they are kept. It is then done as it was decided
        before, for what was kept tells of that, and only because the present look decides the same. StorageError where
        what goes forward cannot be kept.
        """
        held = subject.traffic.seen if subject else ()  # a store that hangs looks at them while others come
        if decision.action in FORWARD:
            if subject and subject.traffic.forgotten:
                return self._kept_whole(decision, subject, held)
            return decision, self._keep(decision, subject, held)
        try:
            return decision, self._stops.do(lambda: self._keep(decision, subject, held), seconds=KEPT_WITHIN_S)
        except Exception as error:  # noqa: BLE001 - whatever it is, users are harmed while it stands in the way
            told = str(error) if isinstance(error, MlPlatformError) else repr(error)
            logger.error("%s: what %s was decided on is not kept: %s", self.product, decision.action, told)  # noqa: TRY400
            return decision, None

    def _keep(self, decision: Decision, subject: Subject | None, used: Sequence[Seen]) -> str:
        return keep_decision(self.store, decision, used, subject.plan.judges if subject else ())

    def _kept_whole(self, decision: Decision, subject: Subject, held: Sequence[Seen]) -> tuple[Decision, str]:
        """Reading all again may take minutes: who watches other products, and this one, does not wait for that."""
        if self._ahead is None:
            by = datetime.now(UTC)

            def read_and_keep() -> str:
                again = subject.again().read()
                # What came meanwhile was not decided on. What is held is known as it was then.
                counted = (one for one in again if one.epoch >= subject.traffic.since_epoch and one.answered_at <= by)
                return self._keep(decision, subject, (*counted, *held))

            self._ahead = _Ahead(decision, self._forward.begin(read_and_keep))
        ahead = self._ahead
        wait([ahead.kept], None if self.patient else READ_WITHIN_S)
        if not ahead.kept.done() or not ahead.is_for(decision):
            raise BusyError(
                f"{self.product}: all answers that a move was decided on are being read again, to be kept. It is done "
                "when they are, if it is decided then, too; `mlp promote` and `mlp abort` wait for nothing."
            )
        self._ahead = None
        return ahead.decision, ahead.kept.result()
