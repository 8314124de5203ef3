"""Following: the gateway keeps to the ledger, admits what it names, and swaps one pointer a product.

Production goes on serving whatever fails here: a ledger or a store that is down, a release that is refused, a slow
engine. A chain that does not verify takes away what is beside it. What has to be loaded first delays no swap.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.errors import LedgerCorruptError
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.bell import rings
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.standing import Trust
from ml_platform.serving.deployment import Deployment, Deployments
from ml_platform.serving.ear import Ear
from ml_platform.serving.loading import Load, Loading
from ml_platform.serving.problems import Problems, backoff_seconds
from ml_platform.serving.reading import LedgerReader
from ml_platform.serving.refusals import Refusal, Refusals
from ml_platform.serving.staging import Staging
from ml_platform.serving.threads import CallThreads
from ml_platform.serving.wanted import Wanted, decide_table

if TYPE_CHECKING:
    from ml_platform.serving.engine_client import EngineClient

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
LISTENING_POLL_SECONDS = 1.0
"""How often to look although the bell would have rung: somebody may have written by hand."""

ENGINE_SECONDS = 1.0
LEDGER_SECONDS = 30.0
SWEEP_SECONDS = 10.0
PATIENCE_SECONDS = 1.0


class Follower:
    """Follows the ledger's products and keeps their deployments; one in each worker.

    `trust` says whose signatures count and is asked at every look, so that a revoked key counts no longer. `load` makes
    an admitted release ready. `listen` hears of every refusal that is new, for metrics. `staging` is a folder that
    only this user writes. A ledger that cannot be written still serves: refusals are then in the log only.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: ArtifactStore,
        trust: Callable[[], Trust],
        engine: "EngineClient",
        load: Load,
        deployments: Deployments,
        staging: Path,
        *,
        gateway: str = "gateway",
        listen: Callable[[Refusal], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._trust, self._deployments = ledger, trust, deployments
        self._reader = LedgerReader(ledger)
        self._clock, self._monotonic = clock, monotonic
        self._threads = CallThreads("follower", threads=8)
        self._stores = CallThreads("staging", threads=4)
        self._staging = Staging(store, staging)
        self._loading = Loading(self._staging, engine, load, self._stores, self._loaded_more, monotonic)
        self._refusals = Refusals(ledger, gateway, self._threads, clock, monotonic, listen)
        self._wake = asyncio.Event()
        self._wanted: dict[str, Wanted] = {}
        self._seen: dict[str, tuple[str, Trust]] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[str, tuple[int, float]] = {}
        self._problems = Problems(monotonic)
        self._ear = Ear(ledger.url, self._threads, self._problems, self._wake)
        self.looked_at: float | None = None

    @property
    def problems(self) -> dict[str, str]:
        """What keeps this gateway from following right now, by what it concerns; what serves goes on serving.

        A release that is refused is no problem of the gateway's.
        """
        failures = self._loading.failures.items()
        failed = {f"release {one[:12]}": failure.reason for one, failure in failures if not failure.refused}
        return self._problems.present | failed

    @property
    def listening(self) -> bool:
        """Whether the ledger's bell is heard; it is looked at less often then."""
        return self._ear.listening

    @property
    def problem(self) -> str | None:
        """All problems in a sentence or more, None without any."""
        return " ".join(self.problems.values()) or None

    def productions(self) -> dict[str, str]:
        """The release that each product's ledger names as production, for those that have one."""
        slots = {product: wanted.state.slots for product, wanted in self._wanted.items()}
        return {product: held[SlotName.PRODUCTION] for product, held in slots.items() if SlotName.PRODUCTION in held}

    async def follow(self) -> None:
        """Follows until it is cancelled."""
        tasks = [asyncio.create_task(self._keep_looking_after_engine(), name="look after the engine")]
        if rings(self._ledger.url):
            tasks.append(asyncio.create_task(self._ear.listen(), name="listen to the ledger's bell"))
        try:
            while True:
                await self._survive(self.look())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LISTENING_POLL_SECONDS if self._ear.listening else POLL_SECONDS):
                        await self._wake.wait()
        finally:
            tasks.extend(self._reading.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._loading.close()
            await self._refusals.idle()

    async def look(self) -> None:
        """One round: reads what the ledgers say since, swaps what can be swapped, begins to load the rest."""
        self._wake.clear()
        if self._problems.waits("the ledger"):
            return
        try:
            heads, trust = await self._threads.call(
                lambda: (self._ledger.heads(), self._trust()), timeout_seconds=LEDGER_SECONDS
            )
        except Exception as error:  # noqa: BLE001 - also what nobody thought of: it is no secret that this one is blind
            self._problems.failed("the ledger", error)
            return
        self._problems.succeeded("the ledger")
        self.looked_at = self._monotonic()
        for product, head in heads.items():
            if self._due(product, (head, trust)):
                task = asyncio.create_task(self._survive(self._read(product, trust)), name=f"read {product}")
                self._reading[product] = task
                task.add_done_callback(partial(self._has_read, product))
        if self._reading:
            # A product with a long chain is read on while the others are looked at again.
            await asyncio.wait([*self._reading.values()], timeout=PATIENCE_SECONDS)
        self._go_on()

    async def settled(self) -> None:
        """Waits until everything that is admitted is loaded or has failed, and has been swapped in."""
        while self._reading:
            await asyncio.wait([*self._reading.values()])
        await self._loading.idle()
        await asyncio.sleep(0)
        await self._refusals.idle()

    def _due(self, product: str, seen: tuple[str, Trust]) -> bool:
        """Whether the chain grew, the keys changed, or a refusal is due to be looked at again."""
        if product in self._reading or self._problems.waits(product):
            return False
        return self._seen.get(product) != seen or self._again(self._wanted[product])

    def _has_read(self, product: str, _: "asyncio.Task[None]") -> None:
        del self._reading[product]

    async def _read(self, product: str, trust: Trust) -> None:
        now = self._clock()
        try:
            wanted = await self._threads.call(
                lambda: self._reader.read(product, trust, now), timeout_seconds=LEDGER_SECONDS
            )
        except Exception as error:  # noqa: BLE001 - as above
            self._problems.failed(product, error)
            if isinstance(error, LedgerCorruptError) and product in self._wanted:
                self._wanted[product] = self._wanted[product].doubted(str(error))
            return
        self._problems.succeeded(product)
        self._wanted[product], self._seen[product] = wanted, (wanted.state.head_sha256, trust)
        self._turn(wanted)

    def _again(self, wanted: Wanted) -> bool:
        """Whether what was refused is due to be looked at again."""
        if not wanted.refused:
            self._retries.pop(f"refused {wanted.state.product}", None)
            return False
        name = f"refused {wanted.state.product}"
        tries, at = self._retries.get(name, (0, 0.0))
        if self._monotonic() < at:
            return False
        self._retries[name] = tries + 1, self._monotonic() + backoff_seconds(tries + 1, refused=True)
        return tries > 0

    def _go_on(self) -> None:
        """Swaps to all that is loaded, asks for what is missing, says what is refused. It never waits."""
        wants: dict[str, Release] = {}
        for product, wanted in self._wanted.items():
            self._turn(wanted)
            serving = self._deployments.of(product)
            wants |= {one: loaded.admitted.release for one, loaded in (serving.releases if serving else {}).items()}
            wants |= wanted.admitted(self._loading.tried)
            self._refusals.tell(wanted, self._loading.failures)
        self._loading.want(wants)

    def _turn(self, wanted: Wanted) -> None:
        """Swaps one product to what of it is loaded, where that is something else than what serves."""
        loaded, present = self._loading.loaded, self._deployments.of(wanted.state.product)
        table = decide_table(wanted, loaded.__contains__, present.table if present else None)
        if table is None:
            return
        if table.production is not None:
            share = loaded[table.production].admitted.serving.spec.shadow_share
            table = replace(table, shadow_share=share)
        if present is None or present.table != table:
            self._deployments.swap(Deployment(table, {one: loaded[one] for one in table.releases}))
            log.info("%s serves epoch %d", table.product, table.epoch)

    def _loaded_more(self) -> None:
        self._go_on()
        self._wake.set()

    async def look_after_engine(self) -> None:
        """One round: what the engine has lost is loaded again, what nothing names any more is taken away."""
        await self._problems.note("the engine", self._loading.look_after())
        if not self._problems.waits("the staging folder"):
            sweep = self._stores.call(self._sweep, timeout_seconds=SWEEP_SECONDS)
            await self._problems.note("the staging folder", sweep)

    async def _keep_looking_after_engine(self) -> None:
        while True:
            await self._survive(self.look_after_engine())
            await asyncio.sleep(ENGINE_SECONDS)

    def _sweep(self) -> None:
        self._staging.sweep([one.admitted.release.model.candidate_sha256 for one in [*self._loading.loaded.values()]])

    async def _survive(self, round_: Awaitable[None]) -> None:
        """One round, whose own mistakes end in the log: a gateway that stopped to follow would serve what is gone."""
        try:
            await round_
        except Exception:
            log.exception("a round of following failed; what is admitted keeps serving, the next one begins anew")
