"""The endpoints: what each asks of a key, and what it does."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from ml_platform.contracts.provenance import Feedback
from ml_platform.errors import NotServingError, StorageError
from ml_platform.lineage.provenance.recorder import Recorder
from ml_platform.lineage.provenance.store import Answered
from ml_platform.serving.deadline import HEADER as DEADLINE
from ml_platform.serving.deadline import asked_deadline
from ml_platform.serving.deployment import Deployments
from ml_platform.serving.gateway.access import ApiKey, Scope
from ml_platform.serving.gateway.app import Routes
from ml_platform.serving.gateway.asking import ChatRequest, read_chat_request
from ml_platform.serving.gateway.doorway import Doorway, require
from ml_platform.serving.gateway.exchange import Exchange
from ml_platform.serving.gateway.failures import HttpError
from ml_platform.serving.gateway.replying import send_reply
from ml_platform.serving.gateway.saying import Sent, SentFeedback, SentOutcome, read_said
from ml_platform.serving.gateway.settings import GatewaySettings
from ml_platform.serving.question import Question, Reply
from ml_platform.serving.threads import CallThreads

PAGE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
FORWARDED = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip")
"""Headers of a proxy, behind which everybody comes from loopback."""
THIS_MACHINE = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?", re.IGNORECASE)
"""What somebody on this machine calls it; a proxy that adds no header often passes on the name that it was asked by."""
FIND_SECONDS = 8.0
"""Longer than a store may take to connect: the log is looked through where it cannot."""


class Answering(Protocol):
    """Whoever answers questions; raises MlPlatformError for what a client is told, and for nothing else."""

    async def answer(self, question: Question) -> Reply:
        """The recorded answer."""
        ...


@dataclass(frozen=True)
class Readiness:
    """Whether the worker should get traffic, and what each product that should serve has loaded."""

    ready: bool
    products: dict[str, Any]


@dataclass(frozen=True)
class Backstage:
    """What endpoints work with. `find` looks up an answer and blocks, so in a thread; `page` makes the metrics.

    `expected` are the products that should serve here, even if they cannot yet. `replied` is told whose key asked.
    """

    answerer: Answering
    recorder: Recorder
    deployments: Deployments
    door: Doorway
    settings: GatewaySettings
    find: Callable[[str], Answered | None]
    readiness: Callable[[], Readiness]
    expected: Callable[[], Container[str]]
    page: Callable[[], Awaitable[bytes]]
    document: bytes
    replied: Callable[[Reply, str], None]


class Endpoints:
    """The endpoints of one worker; `routes` says which path leads to which."""

    def __init__(self, backstage: Backstage) -> None:
        self._back = backstage
        self._finding = CallThreads("store of answers", threads=4, stuck_seconds=2.0)
        self._limits = (backstage.settings.body_bytes, backstage.settings.body_seconds)

    def routes(self) -> Routes:
        """Every path there is."""
        return {
            "/v1/chat/completions": {"POST": self.chat},
            "/v1/models": {"GET": self.models},
            "/v1/responses/": {"GET": self.response},
            "/v1/feedback": {"POST": self.feedback},
            "/v1/outcomes": {"POST": self.outcomes},
            "/healthz": {"GET": self.healthz},
            "/readyz": {"GET": self.readyz},
            "/metrics": {"GET": self.metrics},
            "/openapi.json": {"GET": self.openapi},
        }

    async def chat(self, exchange: Exchange) -> None:
        """Answers a question."""
        received_at, now = datetime.now(UTC), time.monotonic()
        key = self._back.door.enter(exchange, Scope.ASK)
        request = read_chat_request(await self._body(exchange))
        require(key, Scope.ASK, request.model)
        question = self._question(exchange, key, request, received_at, now)
        if question.user_id is not None:
            self._back.door.admit_user(question.product, question.user_id)
        if self._back.deployments.of(request.model) is None and request.model in self._back.expected():
            raise NotServingError(f"no release of '{request.model}' is loaded here yet. Try again in a few seconds.")
        async with exchange.hang_up_cancels():
            reply = await self._back.answerer.answer(question)
        self._back.replied(reply, key.key_id)
        await send_reply(exchange, reply, stream=bool(request.stream), wants_usage=request.wants_usage)

    async def models(self, exchange: Exchange) -> None:
        """Lists the products that the key may ask and that serve."""
        key = self._back.door.enter(exchange, None)
        names = [name for name in self._back.deployments.products() if key.allows(Scope.ASK, name)]
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "ml_platform"} for name in names]
        await exchange.respond_json(200, {"object": "list", "data": data})

    async def response(self, exchange: Exchange) -> None:
        """Shows what produced an answer and what was said of it; to operators, for it holds what others asked."""
        key = self._back.door.enter(exchange, Scope.OPERATE)
        response_id = exchange.scope["path"].rpartition("/")[2]
        try:
            answer = await self._finding.call(lambda: self._back.find(response_id), timeout_seconds=FIND_SECONDS)
        except TimeoutError:
            raise StorageError(f"the store of answers did not answer within {FIND_SECONDS:g} s.") from None
        found = require_answer(answer, key)
        parts = b",".join(
            b'"%s":[%s]' % (name, b",".join(one.log_bytes() for one in said))
            for name, said in ((b"feedback", found.feedback), (b"outcomes", found.outcomes))
        )
        await exchange.respond(200, b'{"object":"response","record":%s,%s}' % (found.record.log_bytes(), parts))

    async def feedback(self, exchange: Exchange) -> None:
        """Takes what people thought of answers."""
        await self._take(exchange, SentFeedback)

    async def outcomes(self, exchange: Exchange) -> None:
        """Takes what happened in the end."""
        await self._take(exchange, SentOutcome)

    async def _take(self, exchange: Exchange, model: type[Sent]) -> None:
        key = self._back.door.enter(exchange, Scope.FEEDBACK)
        said = read_said(
            await self._body(exchange), model, exchange.header(b"idempotency-key"), lambda named: _product(key, named)
        )
        # Together, so that they share one sync; one that fails lets the client send all again, which doubles nothing.
        await asyncio.gather(*(self._back.recorder.take(one) for one in said))
        for one in said:
            self._back.door.metrics.said(one.product, one.kind.value if isinstance(one, Feedback) else None)
        await exchange.respond_json(200, {"object": "receipt", "accepted": len(said)})

    async def healthz(self, exchange: Exchange) -> None:
        """Says that this worker's event loop turns."""
        await exchange.respond_json(200, {"status": "ok"})

    async def readyz(self, exchange: Exchange) -> None:
        """Says whether every product that should serve here does; which ones, on loopback and to operators."""
        found = self._back.readiness()
        said: dict[str, Any] = {"status": "ready" if found.ready else "not_ready"}
        if self._inside(exchange):
            said["products"] = found.products
        await exchange.respond_json(200 if found.ready else 503, said)

    async def metrics(self, exchange: Exchange) -> None:
        """Shows the figures for Prometheus, on loopback and to operators."""
        if not self._inside(exchange):
            self._back.door.enter(exchange, Scope.OPERATE)
        await exchange.respond(200, await self._back.page(), [PAGE])

    async def openapi(self, exchange: Exchange) -> None:
        """Describes all of this."""
        await exchange.respond(200, self._back.document)

    def _inside(self, exchange: Exchange) -> bool:
        if self._back.settings.on_loopback and _is_local(exchange):
            return True
        key = self._back.door.known(exchange)
        return key is not None and key.allows(Scope.OPERATE)

    async def _body(self, exchange: Exchange) -> bytes:
        exchange.body_bytes, exchange.body_seconds = self._limits
        return await exchange.json_body()

    def _question(
        self, exchange: Exchange, key: ApiKey, request: ChatRequest, received_at: datetime, now: float
    ) -> Question:
        usual = self._usual_seconds(request.model)
        most = self._back.settings.longest_deadline_ms / 1e3
        asked = exchange.header(DEADLINE.encode())
        return Question(
            response_id=exchange.response_id,
            product=request.model,
            utterance=request.utterance,
            metadata=request.metadata or {},
            user_id=_user_id(exchange, request),
            deadline=asked_deadline(asked, now, default_seconds=usual, most_seconds=most),
            received_at=received_at,
            override=exchange.header(b"x-release"),
            may_override=key.allows(Scope.OPERATE, request.model),
            usual_seconds=min(usual, most),
        )

    def _usual_seconds(self, product: str) -> float:
        """The time that a question has whose client asks for none: the product's, or else the gateway's."""
        milliseconds = self._back.settings.deadline_ms
        deployment = self._back.deployments.of(product)
        serves = deployment and deployment.releases.get(deployment.table.production or "")
        if serves:
            milliseconds = serves.admitted.serving.spec.deadline_ms
        return milliseconds / 1e3


def _is_local(exchange: Exchange) -> bool:
    """Whether nothing speaks for somebody beyond this machine, on a gateway that only this machine reaches."""
    named = THIS_MACHINE.fullmatch(exchange.headers.get(b"host", b""))
    return named is not None and not any(name in exchange.headers for name in FORWARDED)


def require_answer(found: Answered | None, key: ApiKey) -> Answered:
    """An answer that the key may see. Raises HttpError 404 for any other: a key for another product learns nothing."""
    if found is None or not key.allows(Scope.OPERATE, found.record.product):
        message = "there is no answer of this id. Ids begin with 'resp_' and stand in the header x-response-id."
        raise HttpError(404, "response_not_found", message, "response_id")
    return found


def _user_id(exchange: Exchange, request: ChatRequest) -> str | None:
    """The sticky id: the body's, or the header's where it has none."""
    user_id = request.user_id or exchange.header(b"x-user-id")
    if user_id is not None and not 1 <= len(user_id) <= 256:
        raise HttpError(400, "invalid_header", "the header x-user-id must have 1 to 256 characters.", "x-user-id")
    return user_id


def _product(key: ApiKey, named: str | None) -> str:
    """The product that is spoken of, which the key must be for."""
    product = named or key.product
    if product is None:
        message = "name the 'product': this key is for all of them."
        raise HttpError(400, "invalid_request", message, "product")
    require(key, Scope.FEEDBACK, product)
    return product
