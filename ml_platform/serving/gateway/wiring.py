"""One worker put together: from the ledger and the engine to the endpoints, and taken apart again in order."""

import asyncio
import logging
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from ml_platform.contracts.home import Home
from ml_platform.lineage.artifacts import write_atomically
from ml_platform.lineage.keys import locked_keys, trusted_keys, trusted_operators
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.looks import LookStore
from ml_platform.lineage.object_store import artifact_store
from ml_platform.lineage.provenance.recorder import Recorder
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.trace import trace
from ml_platform.lineage.provenance.wal import WriteAheadLog
from ml_platform.lineage.standing import Trust
from ml_platform.serving.answering import Answerer
from ml_platform.serving.deployment import Deployments
from ml_platform.serving.engine.token import engine_token, token_path
from ml_platform.serving.engine_client import EngineClient
from ml_platform.serving.following import Follower
from ml_platform.serving.gateway.access import Access
from ml_platform.serving.gateway.app import Gateway
from ml_platform.serving.gateway.console.console import Console
from ml_platform.serving.gateway.console.entrance import Entrance
from ml_platform.serving.gateway.console.gathering import Gathering
from ml_platform.serving.gateway.console.sessions import Sessions, console_secret
from ml_platform.serving.gateway.doorway import Doorway
from ml_platform.serving.gateway.endpoints import Backstage, Endpoints, Readiness
from ml_platform.serving.gateway.logs import log_answer
from ml_platform.serving.gateway.measuring import Figures
from ml_platform.serving.gateway.metrics import GatewayMetrics
from ml_platform.serving.gateway.openapi import openapi_bytes
from ml_platform.serving.gateway.rates import Rate, RateTable
from ml_platform.serving.gateway.settings import GatewaySettings
from ml_platform.serving.loaded import ReleaseLoader
from ml_platform.serving.question import Reply

logger = logging.getLogger(__name__)

COMMIT_VARIABLE = "ML_PLATFORM_CODE_COMMIT"
ENGINE_TOKEN_VARIABLE = "ML_PLATFORM_ENGINE_TOKEN"  # noqa: S105 - a name, no secret
JUDGE_KEY_VARIABLE = "ML_PLATFORM_JUDGE_KEY"
SALT_FILE = "user_salt"


@dataclass(frozen=True)
class Worker:
    """A worker that is put together: its application, and what it is made of."""

    app: Gateway
    follower: Follower
    answerer: Answerer
    deployments: Deployments
    recorder: Recorder
    metrics: GatewayMetrics


@asynccontextmanager
async def put_together(home: Home, settings: GatewaySettings, table: RateTable) -> AsyncIterator[Worker]:
    """A worker within the block; at its end, what it has begun is recorded before the log is sealed.

    Raises ContractError for keys that cannot be read, EvidenceError for an engine's token that others can read.
    """
    access = Access(home)
    salt = user_salt(home)
    async with AsyncExitStack() as stack:
        store = ProvenanceStore(home.provenance_url)
        stack.callback(store.close)
        log = WriteAheadLog(home.provenance_log)
        stack.push_async_callback(asyncio.to_thread, log.close)
        engine = EngineClient(settings.engine_url, token=_engine_token(home))
        stack.push_async_callback(engine.close)
        loader = ReleaseLoader(home, judge_url=settings.judge_url, judge_key=os.environ.get(JUDGE_KEY_VARIABLE, ""))
        stack.push_async_callback(loader.close)
        deployments, recorder = Deployments(), Recorder(log)
        registry = CollectorRegistry()
        metrics = GatewayMetrics(registry)
        answerer = Answerer(
            deployments, engine, recorder, user_salt=salt, code_commit=code_commit(), listen=metrics.answered
        )
        stack.push_async_callback(answerer.drain)
        ledger = Ledger(home.ledger_url, keep_connections=True)
        stack.callback(ledger.close)
        follower = Follower(
            ledger,
            artifact_store(home),
            lambda: Trust(trusted_keys(home), trusted_operators(home)),
            engine,
            loader,
            deployments,
            home.work / "staging",
            gateway=f"gateway {settings.host}:{settings.port}",
            listen=lambda refusal: metrics.admission_refused(refusal.product),
        )
        backstage = Backstage(
            answerer=answerer,
            recorder=recorder,
            deployments=deployments,
            door=Doorway(access, table, Rate(settings.user_rate, settings.user_burst), metrics),
            settings=settings,
            find=lambda response_id: trace(response_id, store, home.provenance_log),
            readiness=lambda: readiness_of(follower, deployments),
            expected=follower.productions,
            page=Figures(registry, metrics, home, store).page,
            document=openapi_bytes(),
            replied=_replied(settings, stack),
        )
        console = _console(home, backstage, follower, stack)
        app = Gateway({**Endpoints(backstage).routes(), **console.routes()}, metrics, most=settings.in_flight)
        yield Worker(app, follower, answerer, deployments, recorder, metrics)


def _console(home: Home, backstage: Backstage, follower: Follower, stack: AsyncExitStack) -> Console:
    """The pages for people, with connections of their own to what they show: answers wait for none of them."""
    ledger, looks = Ledger(home.ledger_url, keep_connections=True), LookStore(home.monitoring_url)
    stack.callback(ledger.close)
    stack.callback(looks.close)
    gathering = Gathering(ledger, looks, backstage.deployments, lambda: follower.problems, home.incidents)
    sessions = Sessions(console_secret(home))
    return Console(gathering, Entrance(backstage.door, sessions, backstage.settings.on_loopback), backstage.find)


def _replied(settings: GatewaySettings, stack: AsyncExitStack) -> Callable[[Reply, str], None]:
    """What is done with each answer besides: a trace, where somebody collects them, and a line in the log if wanted."""
    doings: list[Callable[[Reply, str], None]] = [log_answer] if settings.log_answers else []
    if settings.traces_url is not None:
        from ml_platform.serving.gateway.spans import Spans

        spans = Spans(settings.traces_url)
        stack.push_async_callback(asyncio.to_thread, spans.close)
        doings.append(lambda reply, _: spans.replied(reply))

    def replied(reply: Reply, key_id: str) -> None:
        for do in doings:
            do(reply, key_id)

    return replied


def readiness_of(follower: Follower, deployments: Deployments) -> Readiness:
    """Ready is who has read the ledger and can answer for every product that has a production there."""
    products: dict[str, Any] = {}
    ready = follower.looked_at is not None
    for name, wants in follower.productions().items():
        table = getattr(deployments.of(name), "table", None)
        serves = table and table.production
        products[name] = {"wants": wants, "serves": serves, "epoch": table and table.epoch}
        ready = ready and serves is not None
    return Readiness(ready=ready, products=products)


def user_salt(home: Home) -> bytes:
    """The secret with which users are hashed in records, made on first use; without it nobody can try names."""
    path = home.keys / SALT_FILE
    with locked_keys(home):
        if not path.exists():
            write_atomically(path, secrets.token_hex(32).encode() + b"\n")
        return bytes.fromhex(path.read_text(encoding="ascii").strip())


def code_commit() -> str | None:
    """The commit of this code: what ML_PLATFORM_CODE_COMMIT says (images), else the checkout's."""
    if named := os.environ.get(COMMIT_VARIABLE):
        return named
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _engine_token(home: Home) -> str:
    """Of vLLM or of an engine elsewhere by the environment, otherwise the secret of this home's engine."""
    return os.environ.get(ENGINE_TOKEN_VARIABLE) or engine_token(token_path(home))
