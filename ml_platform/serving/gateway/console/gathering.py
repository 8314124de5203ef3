"""What pages are made of, gathered beside the event loop: each store in threads of its own, so that one hangs alone."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.monitoring import Look
from ml_platform.contracts.policy import SlotName
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.looks import LookStore
from ml_platform.serving.deployment import Deployments
from ml_platform.serving.gateway.console.board import Board, OverviewRow, Problem
from ml_platform.serving.gateway.console.glances import Glance, Said
from ml_platform.serving.gateway.console.incidents import Block, PostMortem, newest_incidents, read_incident
from ml_platform.serving.gateway.console.slots import LedgerView, read_ledger
from ml_platform.serving.gateway.console.stance import stance_of
from ml_platform.serving.threads import CallThreads

T = TypeVar("T")
LEDGER, LOOKS = "The ledger", "The store of looks"
SELDOM_SECONDS = 5.0
"""How often to read what changes seldom, or costs more: all products, and the looks behind the curves."""


@dataclass
class _Watched:
    """One product's questions."""

    ledger: Glance[LedgerView]
    latest: Glance[Look | None]
    past: Glance[tuple[Look, ...]]
    incidents: Glance[tuple[PostMortem, ...]]


@dataclass
class Gathering:
    """Asks the ledger and the looks, and this worker for what it serves; `problems` is what the worker struggles with.

    `incidents` is the folder in which a controller on this machine leaves its post-mortems. Nothing is asked before
    somebody looks at a page.
    """

    ledger: Ledger
    looks: LookStore
    deployments: Deployments
    problems: Callable[[], Mapping[str, str]]
    incidents: Path
    patience_seconds: float = 2.0
    _watched: dict[str, _Watched] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ledger_threads = CallThreads("console: ledger", threads=2)
        self._look_threads = CallThreads("console: looks", threads=2)
        self._file_threads = CallThreads("console: incidents", threads=2)
        self._states: Glance[dict[str, DeploymentState]] = self._seldom(LEDGER, self._read_states, self._ledger_threads)
        self._latest: Glance[dict[str, Look]] = self._seldom(LOOKS, self._read_latest, self._look_threads, 1.0)
        self._names: tuple[str, ...] = ()

    async def products(self) -> Said[tuple[str, ...]]:
        """The products of the ledger and of this gateway; the latter alone while the ledger has not been read."""
        states = await self._states.look()
        named = {*(states.value or ()), *self.deployments.products()}
        self._names = tuple(sorted(named))
        return Said(None if states.value is None and not named else self._names, states.problem, states.age_seconds)

    async def board(self, product: str) -> Board:
        """Everything on one product, which `products` must have named."""
        watched = self._watched.get(product) or self._watch(product)
        ledger, latest, past, incidents = await asyncio.gather(
            watched.ledger.look(), watched.latest.look(), watched.past.look(), watched.incidents.look()
        )
        if latest.value and past.value and latest.value.decision.epoch != past.value[-1].decision.epoch:
            watched.past.ask_anew()
        stance = stance_of(product, self.deployments, self.problems())
        return Board(product, ledger, latest, past, stance, incidents.value or ())

    async def incident(self, product: str, name: str) -> tuple[Block, ...] | None:
        """A post-mortem, None where there is none of that name. Raises TimeoutError and BusyError."""
        read = partial(read_incident, self.incidents, product, name)
        return await self._file_threads.call(read, timeout_seconds=self.patience_seconds)

    async def overview(self) -> tuple[tuple[OverviewRow, ...], tuple[Problem, ...]]:
        """All products, and what is wrong with what is told of them."""
        named = await self.products()
        states, latest = await asyncio.gather(self._states.look(), self._latest.look())
        rows = tuple(self._row(name, states.value or {}, latest.value or {}) for name in named.value or ())
        said = ((LEDGER, states.problem), (LOOKS, latest.problem))
        return rows, tuple(Problem(f"{name}.", problem, bad=True) for name, problem in said if problem)

    def _row(self, product: str, states: Mapping[str, DeploymentState], latest: Mapping[str, Look]) -> OverviewRow:
        state = states.get(product)
        if state is None:
            stance = stance_of(product, self.deployments, {})
            slots = {SlotName.PRODUCTION: stance.production, SlotName.CANARY: stance.canary}
            epoch, exposure, frozen = stance.epoch or 0, stance.exposure, None
        else:
            slots, epoch, exposure, frozen = dict(state.slots), state.epoch, state.exposure, state.frozen
        production, canary = slots.get(SlotName.PRODUCTION), slots.get(SlotName.CANARY)
        return OverviewRow(product, epoch, production, canary, exposure, frozen, latest.get(product))

    def _watch(self, product: str) -> _Watched:
        patience = {"patience_seconds": self.patience_seconds}
        watched = self._watched[product] = _Watched(
            ledger=Glance(LEDGER, partial(read_ledger, self.ledger, product), self._ledger_threads, **patience),
            latest=Glance(LOOKS, partial(self.looks.latest, product), self._look_threads, **patience),
            past=self._seldom(LOOKS, partial(self.looks.history, product), self._look_threads),
            incidents=self._seldom(
                "The folder of incidents", partial(newest_incidents, self.incidents, product), self._file_threads
            ),
        )
        return watched

    def _seldom(
        self, name: str, ask: Callable[[], T], threads: CallThreads, every_seconds: float = SELDOM_SECONDS
    ) -> Glance[T]:
        return Glance(name, ask, threads, every_seconds=every_seconds, patience_seconds=self.patience_seconds)

    def _read_states(self) -> dict[str, DeploymentState]:
        return {product: self.ledger.state(product) for product in self.ledger.products()}

    def _read_latest(self) -> dict[str, Look]:
        found = {product: self.looks.latest(product) for product in self._names}
        return {product: look for product, look in found.items() if look is not None}
