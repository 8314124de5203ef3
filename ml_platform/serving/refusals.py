"""Refusals: what a gateway does not let serve, said once: in the log, to whoever listens, and in the ledger."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ml_platform.contracts.events import AdmissionRefused
from ml_platform.errors import MlPlatformError
from ml_platform.lineage.ledger import Ledger
from ml_platform.serving.loading import Failure
from ml_platform.serving.threads import CallThreads
from ml_platform.serving.wanted import Place, Wanted

log = logging.getLogger(__name__)

LONGEST_REASON = 2000
WRITE_SECONDS = 60.0
AGAIN_SECONDS = 30.0
"""How long to wait before a refusal that could not be recorded is tried again."""


@dataclass(frozen=True)
class Refusal:
    """A release that may not serve in a place, at an epoch, and why."""

    product: str
    epoch: int
    release_id: str
    place: Place
    reason: str


class Refusals:
    """Tells each refusal once an epoch; a ledger that cannot be written is no reason to stop."""

    def __init__(
        self,
        ledger: Ledger,
        gateway: str,
        threads: CallThreads,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        listen: Callable[[Refusal], None],
    ) -> None:
        self._ledger, self._gateway, self._threads = ledger, gateway, threads
        self._clock, self._monotonic, self._listen = clock, monotonic, listen
        self._told: dict[str, set[Refusal]] = {}
        self._unrecorded: dict[Refusal, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def idle(self) -> None:
        """Waits until what was said is in the ledger, or could not be written."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def tell(self, wanted: Wanted, failures: Mapping[str, Failure]) -> None:
        """Says what is refused now and was not yet said."""
        product = wanted.state.product
        now = set(_refusals(wanted, failures))
        told = self._told.setdefault(product, set())
        told &= {one for one in told if one.epoch == wanted.state.epoch}
        for refusal in now - told:
            place = f"in {refusal.place}" if refusal.place else "as the one to fall back to"
            log.error("release %s of %s is refused %s: %s", refusal.release_id[:12], product, place, refusal.reason)
            self._listen(refusal)
            self._unrecorded[refusal] = 0.0
        told |= now
        self._unrecorded = {one: at for one, at in self._unrecorded.items() if one.product != product or one in told}
        due = [one for one, at in self._unrecorded.items() if one.product == product and self._monotonic() >= at]
        if due and product not in self._tasks:
            # Beside the looking: a ledger that is busy with writers must not hold up a rollback.
            task = self._tasks[product] = asyncio.create_task(self._record(product, due), name="record refusals")
            task.add_done_callback(lambda _: self._tasks.pop(product))

    async def _record(self, product: str, due: list[Refusal]) -> None:
        try:
            await self._threads.call(lambda: self._write(product, due), timeout_seconds=WRITE_SECONDS)
        except (MlPlatformError, TimeoutError) as error:
            log.warning("the refusals of %s are not in the ledger: %s", product, error)
            self._unrecorded |= dict.fromkeys(due, self._monotonic() + AGAIN_SECONDS)
        else:
            for refusal in due:
                self._unrecorded.pop(refusal, None)

    def _write(self, product: str, due: list[Refusal]) -> None:
        with self._ledger.write(product, self._clock(), self._gateway) as transaction:
            replay = transaction.replay
            for refusal in due:
                payload = AdmissionRefused(
                    release_id=refusal.release_id, slot=refusal.place, reason=refusal.reason, gateway=self._gateway
                )
                known = [event.payload for event in replay.refusals]
                if replay.epoch == refusal.epoch and payload.model_dump(mode="json") not in known:
                    transaction.append(payload)


def _refusals(wanted: Wanted, failures: Mapping[str, Failure]) -> list[Refusal]:
    state, found = wanted.state, []
    for place, release in wanted.places.items():
        failure = failures.get(release.release_id)
        reason = wanted.refused.get(place) or (failure.reason if failure and failure.refused else None)
        if reason:
            shown = reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + "…"
            found.append(Refusal(state.product, state.epoch, release.release_id, place, shown))
    return found
