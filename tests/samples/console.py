"""The console on a free port: a real ledger and real looks, with an answerer that needs no model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx2
from prometheus_client import CollectorRegistry

from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.looks import LookStore
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.trace import trace
from ml_platform.serving.deployment import Deployment, Deployments
from ml_platform.serving.gateway.access import Access, Scope, grant, read_keys
from ml_platform.serving.gateway.app import Gateway
from ml_platform.serving.gateway.console.console import Console
from ml_platform.serving.gateway.console.entrance import Entrance
from ml_platform.serving.gateway.console.gathering import Gathering
from ml_platform.serving.gateway.console.sessions import Sessions, console_secret
from ml_platform.serving.gateway.doorway import Doorway
from ml_platform.serving.gateway.metrics import GatewayMetrics
from ml_platform.serving.gateway.rates import Rate, RateTable, new_table_file
from ml_platform.serving.gateway.server import bind
from ml_platform.serving.gateway.settings import GatewaySettings
from ml_platform.serving.routing import RoutingTable
from tests.samples.followed import World
from tests.samples.gateway import in_a_thread


@dataclass
class RunningConsole:
    """A console that runs, with what it shows."""

    world: World
    url: str
    looks: LookStore
    deployments: Deployments
    problems: dict[str, str]
    tokens: list[str] = field(default_factory=list)

    def token(self, *scopes: Scope, product: str | None = None) -> str:
        name = f"key-{len(read_keys(self.world.home).keys)}"
        return grant(self.world.home, name, product, scopes or (Scope.OPERATE,), now=datetime.now(UTC))[0]

    def client(self, *scopes: Scope, product: str | None = None) -> httpx2.Client:
        """A client with a key in its header."""
        headers = {"authorization": f"Bearer {self.token(*scopes, product=product)}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=20.0)

    def served(self) -> Deployment:
        """What a gateway would serve that follows the ledger."""
        return Deployment(RoutingTable.of(Ledger(self.world.url).state(self.world.product)))

    def page(self, path: str = "") -> str:
        """The product's page, or another one, which must be there."""
        with self.client() as client:
            answer = client.get(path or f"/console/products/{self.world.product}")
            assert answer.status_code == 200, answer.text
            return str(answer.text)


@contextmanager
def running_console(
    world: World, *, parts: Mapping[str, Any] | None = None, patience_seconds: float = 2.0, **settings: Any
) -> Iterator[RunningConsole]:
    """A console in a thread of this process. `parts` are its ledger, looks or find, where they are not the world's."""
    given = dict(parts or {})
    world.home.keys.mkdir(parents=True, exist_ok=True)
    told = GatewaySettings(port=0, **settings)
    sock = bind("127.0.0.1", 0)
    metrics, deployments = GatewayMetrics(CollectorRegistry()), Deployments()
    looks, store = LookStore(world.home.monitoring_url, every_seconds=0.0), ProvenanceStore(world.home.provenance_url)
    problems: dict[str, str] = {}
    table = RateTable(new_table_file())
    door = Doorway(Access(world.home, every_s=0.0), table, Rate(told.user_rate, told.user_burst), metrics)
    ledger = given.get("ledger") or Ledger(world.url)
    if "ledger" not in given:
        deployments.swap(Deployment(RoutingTable.of(ledger.state(world.product))))
    gathering = Gathering(
        ledger, given.get("looks") or looks, deployments, lambda: problems, world.home.incidents, patience_seconds
    )
    find = given.get("find") or (lambda response_id: trace(response_id, store, world.home.provenance_log))
    console = Console(gathering, Entrance(door, Sessions(console_secret(world.home)), told.on_loopback), find)
    app = Gateway(console.routes(), metrics, most=told.in_flight)
    with in_a_thread(app, told, sock) as port:
        yield RunningConsole(world, f"http://127.0.0.1:{port}", looks, deployments, problems)
    looks.close()
    store.close()
    table.close()
