"""A gateway on a free port, with an answerer that needs no model: what is tested is the edge."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from ml_platform.contracts.home import Home
from ml_platform.contracts.provenance import ProvenanceRecord, UnrecordedPolicy
from ml_platform.lineage.provenance.recorder import Recorder
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.trace import trace
from ml_platform.lineage.provenance.wal import WriteAheadLog
from ml_platform.serving.deployment import Deployment, Deployments
from ml_platform.serving.gateway.access import Access, Scope, grant, read_keys
from ml_platform.serving.gateway.app import Gateway
from ml_platform.serving.gateway.doorway import Doorway
from ml_platform.serving.gateway.endpoints import Backstage, Endpoints, Readiness
from ml_platform.serving.gateway.logs import log_answer
from ml_platform.serving.gateway.measuring import Figures
from ml_platform.serving.gateway.metrics import GatewayMetrics
from ml_platform.serving.gateway.openapi import openapi_bytes
from ml_platform.serving.gateway.rates import Rate, RateTable, new_table_file
from ml_platform.serving.gateway.server import GatewayServer, bind
from ml_platform.serving.gateway.settings import GatewaySettings
from ml_platform.serving.question import Question, Reply, ReplyStatus
from ml_platform.serving.routing import RoutingTable
from tests.samples.provenance import PRODUCT, make_record

ANSWER = "Your flight will probably leave on time: the route was 4 minutes late on average."
PATIENCE_S = 30.0

Before = Callable[[Question], Awaitable[ReplyStatus | None]]


@dataclass
class InstantAnswerer:
    """Answers at once and records it for real; `before` may wait, raise, or choose the status."""

    recorder: Recorder
    before: Before | None = None
    seen: list[Question] = field(default_factory=list)

    async def answer(self, question: Question) -> Reply:
        self.seen.append(question)
        status = (await self.before(question) if self.before else None) or ReplyStatus.ANSWERED
        record = record_of(question)
        await self.recorder.record(record, UnrecordedPolicy.REFUSE)
        return Reply(record, ANSWER, status)


def record_of(question: Question) -> ProvenanceRecord:
    entity = {key: value for key, value in question.metadata.items() if isinstance(value, str)}
    return make_record(
        1,
        response_id=question.response_id,
        product=question.product,
        answered_at=datetime.now(UTC),
        utterance="[redacted]",
        entity=entity,
        answer=ANSWER,
    )


def asked(utterance: str = "Will UA 1545 be late?", **more: Any) -> dict[str, Any]:
    """The body of a question."""
    return {"model": PRODUCT, "messages": [{"role": "user", "content": utterance}], **more}


@dataclass
class Running:
    """A gateway that runs: where, with which keys, on what."""

    url: str
    home: Home
    answerer: InstantAnswerer
    metrics: GatewayMetrics
    settings: GatewaySettings
    port: int

    def token(self, *scopes: Scope, product: str | None = PRODUCT, **more: Any) -> str:
        name = f"key-{len(read_keys(self.home).keys)}"
        return grant(self.home, more.pop("name", name), product, scopes or tuple(Scope), now=datetime.now(UTC), **more)[
            0
        ]

    def find(self, response_id: str) -> Any:
        return trace(response_id, ProvenanceStore(self.home.provenance_url), self.home.provenance_log)


@contextmanager
def running_gateway(
    folder: Path,
    before: Before | None = None,
    access_every_s: float = 0.0,
    store_url: str | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """A gateway in a thread of this process; it drains at the end of the block. Its store is the home's, or another."""
    home = Home(folder)
    home.keys.mkdir(parents=True, exist_ok=True)
    told = GatewaySettings(port=0, **settings)
    sock = bind("127.0.0.1", 0)
    log = WriteAheadLog(home.provenance_log)
    recorder = Recorder(log)
    answerer = InstantAnswerer(recorder, before)
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    deployments = Deployments()
    deployments.swap(Deployment(RoutingTable(PRODUCT, 7, "a" * 64)))
    store = ProvenanceStore(store_url or home.provenance_url)
    table = RateTable(new_table_file())

    def replied(reply: Reply, key_id: str) -> None:
        metrics.answered(reply)
        if told.log_answers:
            log_answer(reply, key_id)

    backstage = Backstage(
        answerer=answerer,
        recorder=recorder,
        deployments=deployments,
        door=Doorway(Access(home, every_s=access_every_s), table, Rate(told.user_rate, told.user_burst), metrics),
        settings=told,
        find=lambda response_id: trace(response_id, store, home.provenance_log),
        readiness=lambda: Readiness(ready=True, products={PRODUCT: {"epoch": 7}}),
        expected=lambda: (),
        page=Figures(registry, metrics, home, store).page,
        document=openapi_bytes(),
        replied=replied,
    )
    app = Gateway(Endpoints(backstage).routes(), metrics, most=told.in_flight)
    with in_a_thread(app, told, sock) as port:
        yield Running(f"http://127.0.0.1:{port}", home, answerer, metrics, told, port)
    log.close()
    store.close()
    table.close()


@contextmanager
def in_a_thread(app: Gateway, settings: GatewaySettings, sock: socket.socket) -> Iterator[int]:
    """Serves the socket until the end of the block, and drains then; the port."""
    port = int(sock.getsockname()[1])
    server = GatewayServer(app, settings)
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            asyncio.run(server.serve_until(asyncio.Event(), sock))
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    thread = threading.Thread(target=serve, name="gateway-under-test")
    thread.start()
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the gateway does not end"
    assert not failed, failed
