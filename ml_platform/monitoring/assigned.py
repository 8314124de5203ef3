"""Which release a user was assigned to, and how its answers are read: by the ledger and what releases keep."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.contracts.routing import Cohort
from ml_platform.contracts.serving import ServingContent, ServingTime
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.contents import find_content
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.replay import Replay

logger = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 10.0
"""How long what the store does not hold is taken for lost."""

_SLOTS = {Cohort.PRODUCTION: SlotName.PRODUCTION, Cohort.CANARY: SlotName.CANARY}


@dataclass
class Releases:
    """What monitoring asks about releases; `serving` gives what a release keeps of how it serves, None for nothing.

    `slots` gives the releases in their slots at an epoch, None for an epoch that nobody knows. `time` is the time that
    the product lived in when they were asked for first, `time_now` tells it of now where it may have changed.
    """

    serving: Callable[[str], ServingContent | None]
    slots: Callable[[int], dict[SlotName, str] | None] = field(default=lambda _: None)
    time: ServingTime = ServingTime.CLOCK
    time_now: Callable[[], ServingTime] | None = None

    @classmethod
    def alike(cls, content: ServingContent) -> "Releases":
        """Releases that all serve alike, with no ledger to ask: who answered is who was assigned."""
        return cls(lambda _: content, time=content.spec.time)

    def assigned(self, record: ProvenanceRecord) -> str | None:
        """The release that the user was assigned to, whoever answered; None where nobody knows."""
        slots, slot = self.slots(record.epoch) or {}, _SLOTS.get(record.cohort)
        return record.release_id if slot is None else slots.get(slot, record.release_id)

    def evaluation(self, release_id: str | None) -> EvaluationSpec | None:
        """How answers of a release are read, None for a release that keeps nothing of it."""
        content = None if release_id is None else self.serving(release_id)
        return None if content is None else content.evaluation

    def deadline_ms(self, release_id: str | None) -> float | None:
        """How long a release is given for an answer where the client does not say, None where nobody knows."""
        content = None if release_id is None else self.serving(release_id)
        return None if content is None else float(content.spec.deadline_ms)


def known_releases(ledger: Ledger, store: ArtifactStore, product: str) -> Releases:
    """The releases of a product as its ledger tells; read anew when an answer names an epoch that is not known yet.

    The product's time is what its newest release in production says. Raises what the ledger and the store raise.
    """
    history = _History(ledger, store, product)
    return Releases(history.serving, history.slots, history.time(), history.time)


class _History:
    def __init__(self, ledger: Ledger, store: ArtifactStore, product: str) -> None:
        self._ledger, self._store, self._product = ledger, store, product
        self._replay = Replay(product)
        self._slots: dict[int, dict[SlotName, str]] = {}
        self._contents: dict[str, ServingContent | None] = {}
        self._ask_again: dict[str, float] = {}
        self._read()

    def slots(self, epoch: int) -> dict[SlotName, str] | None:
        """The slots at an epoch."""
        if epoch > self._replay.epoch and self._ledger.heads().get(self._product) != self._replay.head_sha256:
            self._read()
        return self._slots.get(epoch)

    def serving(self, release_id: str) -> ServingContent | None:
        """What a release keeps of how it serves; the ledger was read up to the answer's epoch before.

        What the store does not hold is asked for again after a while: it may have been away for a moment.
        """
        release = self._replay.releases.get(release_id)
        if release is None or release.serving is None:
            return None
        if self._contents.get(release_id) is None and time.monotonic() >= self._ask_again.get(release_id, 0.0):
            found = find_content(self._store, ServingContent, release.serving.content_sha256)
            self._contents[release_id] = found
            self._ask_again[release_id] = time.monotonic() + ASK_AGAIN_SECONDS
            if found is None:
                logger.warning(
                    "%s: how release %s serves is not in the store: its answers are read without their fields, labels "
                    "and promises. Restore %s %s.",
                    self._product,
                    release_id[:12],
                    ServingContent.__name__,
                    release.serving.content_sha256[:12],
                )
        return self._contents.get(release_id)

    def time(self) -> ServingTime:
        """The time that the product lives in now."""
        if self._ledger.heads().get(self._product) != self._replay.head_sha256:
            self._read()
        wanted = self._replay.slots.get(SlotName.PRODUCTION) or self._replay.slots.get(SlotName.CANARY)
        content = None if wanted is None else self.serving(wanted)
        return ServingTime.CLOCK if content is None else content.spec.time

    def _read(self) -> None:
        for event in self._ledger.events(self._product)[self._replay.sequence :]:
            self._replay.add(event)
            self._slots[self._replay.epoch] = dict(self._replay.slots)
