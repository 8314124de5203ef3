"""What a worker is like, looked up once a second, and the page of figures of all workers."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, values

from ml_platform.contracts.home import Home
from ml_platform.errors import BusyError, MlPlatformError, OperationError
from ml_platform.lineage.provenance.segments import segments_in
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.serving.breaker import BreakerPhase
from ml_platform.serving.deployment import Deployment
from ml_platform.serving.gateway.metrics import GatewayMetrics, WorkerState, metrics_page
from ml_platform.serving.threads import CallThreads

if TYPE_CHECKING:
    from ml_platform.serving.gateway.wiring import Worker

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
STATE_SECONDS = 1.0
STORE_SECONDS = 2.0
PAGE_SECONDS = 5.0
"""Both together stay below the 10 s that Prometheus waits for a page."""
OPEN = {BreakerPhase.CLOSED: 0.0, BreakerPhase.HALF_OPEN: 0.5, BreakerPhase.OPEN: 1.0}


async def keep_measuring(worker: "Worker") -> None:
    """Keeps the figures of the worker's state up to date until it is cancelled."""
    found: dict[str, tuple[str, float]] = {}
    while True:
        deployments = [one for name in worker.deployments.products() if (one := worker.deployments.of(name))]
        for deployment in deployments:
            look_for_features(deployment, found)
        worker.metrics.state(_state(worker, deployments, found))
        await asyncio.sleep(STATE_SECONDS)


class Figures:
    """The page of figures of one worker, which comes in time whatever hangs: then nothing is known to be shipped."""

    def __init__(
        self, registry: CollectorRegistry, metrics: GatewayMetrics, home: Home, store: ProvenanceStore
    ) -> None:
        self._registry, self._metrics, self._home, self._store = registry, metrics, home, store
        # Not whether MULTIPROCESS is set by now: feast sets it when imported, and our figures stay where they are.
        self._many_processes = values.ValueClass is not values.MutexValue
        self._asking = CallThreads("answer store", threads=1)
        # Of their own: a page must not wait for calls that the store keeps.
        self._making = CallThreads("figures", threads=2)

    async def page(self) -> bytes:
        """The page, with what waits in the log as it is now. Raises OperationError when this machine's files hang."""
        try:
            ask = partial(waiting_bytes, self._home, self._store)
            waiting: int | None = await self._asking.call(ask, timeout_seconds=STORE_SECONDS)
        except (BusyError, TimeoutError):
            waiting = None
        try:
            return await self._making.call(partial(self._make, waiting), timeout_seconds=PAGE_SECONDS)
        except TimeoutError:
            raise OperationError(f"{self._home.work}: its figures were not read in {PAGE_SECONDS:g} s.") from None

    def _make(self, waiting: int | None) -> bytes:
        self._metrics.pending(waiting_bytes(self._home, None) if waiting is None else waiting)
        return metrics_page(self._registry, many_processes=self._many_processes)


def waiting_bytes(home: Home, store: ProvenanceStore | None) -> int:
    """How much of the log is not in the store; all of it without one, and from where one does not answer."""
    waiting = 0
    for path in segments_in(home.provenance_log):
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue
        shipped = 0
        if store is not None:
            try:
                shipped = store.shipped_until(path.name)
            except MlPlatformError:
                store = None  # it is not asked for each segment again
        waiting += max(0, size - shipped)
    return waiting


def look_for_features(
    deployment: Deployment, found: dict[str, tuple[str, float]], now: Callable[[], float] = time.time
) -> None:
    """Notes when another publication came to hand than the last time; products whose features are not have none."""
    loaded = deployment.releases.get(deployment.table.production or "")
    publication = loaded.facts.publication if loaded else None
    product = deployment.table.product
    # By its name: another one may tell of the same moment.
    if publication is not None and (product not in found or found[product][0] != publication):
        found[product] = publication, now()


def _state(worker: "Worker", deployments: list[Deployment], found: dict[str, tuple[str, float]]) -> WorkerState:
    tables = [deployment.table for deployment in deployments]
    phases = worker.answerer.breakers.phases(time.monotonic())
    looked_at = worker.follower.looked_at
    return WorkerState(
        in_flight=worker.app.in_flight,
        unrecorded=worker.recorder.unrecorded,
        shadow_dropped=worker.answerer.shadow.dropped,
        engine_up="the engine" not in worker.follower.problems,
        ledger_age_seconds=None if looked_at is None else time.monotonic() - looked_at,
        tables=tuple((table.product, table.epoch, table.exposure) for table in tables),
        breakers=tuple(
            (table.product, one, OPEN[phases[one]]) for table in tables for one in table.releases if one in phases
        ),
        published=tuple((product, at) for product, (_, at) in found.items()),
    )
