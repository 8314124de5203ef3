"""The controller process: one loop over all products, or over one; of several such the one with the lease works."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ml_platform.contracts.home import Home
from ml_platform.contracts.monitoring import Look
from ml_platform.errors import MlPlatformError
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.looks import LookStore
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.standing import Trust
from ml_platform.monitoring.assigned import known_releases
from ml_platform.monitoring.observations import Feed
from ml_platform.release.controller import Controller
from ml_platform.release.incidents import Incidents
from ml_platform.release.watching import Watch

logger = logging.getLogger(__name__)

LEASE = "controller"
"""Of the controllers of all products one works; of those of a single product one, by a lease of that name."""
LEASE_S = 10.0
RENEWED_S = 2.0


@dataclass
class ControllerLoop:
    """Looks at every product of the ledger, again and again. What fails for one product is told and tried again."""

    home: Home
    controller: Controller
    store: ArtifactStore
    looks: LookStore
    actor: str
    only: str | None = None
    tell: Callable[[Look], None] = lambda _: None
    patient: bool = False
    """Whether a look waits until what goes forward is kept: who looks once has no other look to do it at."""
    trust: Callable[[], Trust] | None = None
    """Whose signatures count, asked in every round: keys are made and revoked while a controller lives, for months.

    None for those that `controller` was made with.
    """

    _records: ProvenanceStore = field(init=False)
    _watches: dict[str, Watch] = field(default_factory=dict)
    _renewed: float = float("-inf")
    _mine: bool = False
    _complaints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._records = ProvenanceStore(self.home.provenance_url)

    def run(self, every_seconds: float, ended: threading.Event) -> None:
        """Rounds until `ended` is set; then lets go of all that it holds."""
        while not ended.is_set():
            begin = time.monotonic()
            self.round()
            ended.wait(max(0.0, every_seconds - (time.monotonic() - begin)))
        self.close()

    def close(self) -> None:
        """Lets go of the lease, so that the next one need not wait for its end, and of the connections."""
        if self._mine:
            self._quietly("lease", lambda: self.looks.drop_lease(self._lease, self.actor))
            self._mine, self._renewed = False, float("-inf")
        if self._watches:
            self._records.close()
        self.looks.close()
        self.controller.ledger.close()

    def round(self) -> bool:
        """One look at every product; False where another controller holds the lease."""
        if not self._leads():
            return False
        self._quietly("keys", self._ask_who_is_trusted)
        for product in self._products():
            self._quietly(product, lambda name=product: self._look(name))  # type: ignore[misc]
        return True

    def _ask_who_is_trusted(self) -> None:
        if self.trust is not None:
            self.controller = self.controller.believing(self.trust())

    def _products(self) -> tuple[str, ...]:
        found: list[str] = []
        self._quietly("ledger", lambda: found.extend(self.controller.ledger.products()))
        return tuple(name for name in found if self.only in (None, name))

    def _look(self, product: str) -> None:
        watch = self._watches.get(product) or self._watch(product)
        self._watches[product] = watch
        watch.controller, watch.untold = self.controller, self._complaints.get("keys", "")
        look = watch.look()
        self.tell(look)
        self._quietly("looks", lambda: self.looks.put(look))

    def _watch(self, product: str) -> Watch:
        def feed(age: timedelta, since: datetime | None) -> Feed:
            releases = known_releases(self.controller.ledger, self.store, product)
            return Feed(self._records, product, releases, age, since=since)

        incidents = Incidents(self.home.incidents / product, self.store)
        return Watch(product, self.controller, self.store, feed, self.actor, incidents, self.patient)

    @property
    def _lease(self) -> str:
        """Who watches one product keeps nobody from watching others. Two that both watch one make each move once."""
        return LEASE if self.only is None else f"{LEASE} {self.only}"

    def _leads(self) -> bool:
        """Whether this controller works. A store of leases that is down stops nobody: two do no harm, none does."""
        if time.monotonic() - self._renewed < RENEWED_S:
            return self._mine
        self._renewed = time.monotonic()
        try:
            mine = self.looks.take_lease(self._lease, self.actor, LEASE_S)
        except MlPlatformError as error:
            self._complain("lease", f"works without a lease: {error}")
            mine = True
        if mine != self._mine:
            logger.info("%s %s", self.actor, "leads" if mine else "stands by: another controller leads")
        self._mine = mine
        return mine

    def _quietly(self, about: str, work: Callable[[], object]) -> None:
        """Does it; what is raised is told once, and the next round tries again. So one product never stops the others.

        Not even by what nobody thought of: where nobody watches, nothing is taken back either.
        """
        try:
            work()
        except MlPlatformError as error:
            self._complain(about, str(error))
        except Exception as error:  # noqa: BLE001 - see above
            told = f"{type(error).__name__}: {error}. That is a defect of the controller. Report it with its traceback"
            self._complain(about, f"{told}; until it is mended, move by hand: `mlp abort`, `mlp rollback`.", error)
        else:
            if self._complaints.pop(about, None):
                logger.info("%s: all is well again", about)

    def _complain(self, about: str, problem: str, traceback: Exception | None = None) -> None:
        if self._complaints.get(about) != problem:
            logger.error("%s: %s", about, problem, exc_info=traceback)
        self._complaints[about] = problem
