"""What a worker is like, looked up once a second, and the page of figures of all workers."""

import asyncio
import os
import time
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from ml_platform.contracts.home import Home
from ml_platform.errors import MlPlatformError
from ml_platform.lineage.provenance.segments import segments_in
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.serving.breaker import BreakerPhase
from ml_platform.serving.deployment import Deployment
from ml_platform.serving.gateway.metrics import GatewayMetrics, WorkerState, metrics_page

if TYPE_CHECKING:
    from ml_platform.serving.gateway.wiring import Worker

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
STATE_SECONDS = 1.0
OPEN = {BreakerPhase.CLOSED: 0.0, BreakerPhase.HALF_OPEN: 0.5, BreakerPhase.OPEN: 1.0}


async def keep_measuring(worker: "Worker") -> None:
    """Keeps the figures of the worker's state up to date until it is cancelled."""
    found: dict[str, tuple[datetime, float]] = {}
    while True:
        deployments = [one for name in worker.deployments.products() if (one := worker.deployments.of(name))]
        for deployment in deployments:
            _look_for_features(deployment, found)
        worker.metrics.state(_state(worker, deployments, found))
        await asyncio.sleep(STATE_SECONDS)


def figures_page(registry: CollectorRegistry, metrics: GatewayMetrics, home: Home, store: ProvenanceStore) -> bytes:
    """The page of figures, with what waits in the log as it is now; blocks for the store."""
    waiting = 0
    for path in segments_in(home.provenance_log):
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue
        waiting += max(0, size - _shipped(store, path.name))
    metrics.pending(waiting)
    return metrics_page(registry, many_processes=MULTIPROCESS in os.environ)


def _shipped(store: ProvenanceStore, segment: str) -> int:
    """How much of a segment is in the store; with the store down, none is known to be."""
    try:
        return store.shipped_until(segment)
    except MlPlatformError:
        return 0


def _look_for_features(deployment: Deployment, found: dict[str, tuple[datetime, float]]) -> None:
    """Notes when other features came to hand than the last time; products whose features are not at hand have none."""
    loaded = deployment.releases.get(deployment.table.production or "")
    moment = loaded.facts.published_at if loaded else None
    product = deployment.table.product
    if moment is not None and (product not in found or found[product][0] != moment):
        found[product] = moment, time.time()


def _state(worker: "Worker", deployments: list[Deployment], found: dict[str, tuple[datetime, float]]) -> WorkerState:
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
