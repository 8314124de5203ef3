"""The gateway as travellers use it: questions over HTTP, outcomes afterwards, as any client would send them."""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ml_platform.errors import OperationError
from ml_platform.serving.replay.traffic import Asked, Happened

OUTCOMES_AT_ONCE = 200
FEATURES_FOUND = "mlp_features_published_seconds"
LOOKS_A_SECOND = 4
UNREACHABLE = "unreachable"
TIMES_TO_SEND = 5
SECONDS_BETWEEN = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a question: `status` is answered, blocked or fallback, None where there was no answer.

    `code` is the HTTP status, 0 where the gateway could not be reached; `error` the error's code then.
    """

    code: int
    status: str | None
    release_id: str | None
    cohort: str | None
    response_id: str | None
    latency_ms: float
    input_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it is the service's fault that there was no answer."""
        return self.code == 0 or self.code >= 500


class GatewayClient:
    """Asks a gateway at a URL, with an API key, over connections that stay open; used as a context."""

    def __init__(self, url: str, api_key: str, *, seconds: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self._key = api_key
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers={"authorization": f"Bearer {self._key}"},
            timeout=aiohttp.ClientTimeout(total=self._seconds),
            connector=aiohttp.TCPConnector(limit=0),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def require_product(self, product: str) -> None:
        """Raises OperationError unless the gateway is there, takes the key and serves the product."""
        import aiohttp

        try:
            async with self._session.get(f"{self.url}/v1/models") as response:
                found = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise OperationError(
                f"no gateway answers at {self.url}: {type(error).__name__}. Start it: make up, or name another with "
                "--url."
            ) from error
        if response.status != 200:
            raise OperationError(f"the gateway at {self.url} refuses: {_message(found)} Name a key with --key-file.")
        served = [one.get("id") for one in found.get("data", ())]
        if product not in served:
            raise OperationError(
                f"the gateway at {self.url} serves {', '.join(map(str, served)) or 'nothing'}, not {product}. "
                f"Bring a release there: mlp run {product} --as-of DAY, then look at mlp status."
            )

    async def finds_features(self, product: str, since: float, *, seconds: float) -> bool:
        """Whether within that time all its workers open features of the product that came after `since`.

        `since` is in seconds since 1970, by the gateway's clock. False too where its figures are not shown to this key.
        """
        import aiohttp

        line = re.compile(rf'^{FEATURES_FOUND}\{{product="{re.escape(product)}"\}} (\S+)$', re.MULTILINE)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                async with self._session.get(f"{self.url}/metrics") as response:
                    found = line.search(await response.text())
            except (aiohttp.ClientError, TimeoutError):
                found = None
            if found is not None and float(found[1]) >= since:
                return True
            await asyncio.sleep(1 / LOOKS_A_SECOND)
        return False

    async def ask(self, product: str, asked: Asked) -> Answer:
        """What became of a question; never raises for what the gateway or the network does."""
        import aiohttp

        body = {
            "model": product,
            "messages": [{"role": "user", "content": asked.utterance}],
            "metadata": dict(asked.metadata),
            "user": asked.user,
        }
        begin = time.perf_counter()
        try:
            async with self._session.post(f"{self.url}/v1/chat/completions", json=body) as response:
                said = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            took = 1000 * (time.perf_counter() - begin)
            return Answer(0, None, None, None, None, took, error=f"{UNREACHABLE}: {type(error).__name__}")
        took = 1000 * (time.perf_counter() - begin)
        response_id = response.headers.get("x-response-id")
        if response.status != 200:
            return Answer(response.status, None, None, None, response_id, took, error=_code(said))
        more, usage = said.get("ml_platform", {}), said.get("usage", {})
        return Answer(
            code=response.status,
            status=more.get("status"),
            release_id=more.get("release_id"),
            cohort=more.get("cohort"),
            response_id=response_id,
            latency_ms=took,
            input_tokens=usage.get("prompt_tokens", 0),
            output_tokens=usage.get("completion_tokens", 0),
        )

    async def tell(self, product: str, outcomes: Sequence[Happened]) -> None:
        """Sends outcomes until they are taken: their keys make it harmless to send them again.

        Raises OperationError when they are refused, or the gateway does not take them after some tries.
        """
        for place in range(0, len(outcomes), OUTCOMES_AT_ONCE):
            await self._tell([_outcome(product, one) for one in outcomes[place : place + OUTCOMES_AT_ONCE]])

    async def _tell(self, sent: list[dict[str, Any]]) -> None:
        import aiohttp

        said = ""
        for attempt in range(TIMES_TO_SEND):
            if attempt:
                await asyncio.sleep(SECONDS_BETWEEN)
            try:
                async with self._session.post(f"{self.url}/v1/outcomes", json=sent) as response:
                    if response.status < 300:
                        return
                    said = _message(await response.json(content_type=None))
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                said = f"{type(error).__name__}: {error}"
            else:
                if response.status < 500 and response.status != 429:
                    break
        raise OperationError(f"the gateway at {self.url} did not take {len(sent)} outcomes: {said}")


def _outcome(product: str, happened: Happened) -> dict[str, Any]:
    return {
        "idempotency_key": happened.name,
        "product": product,
        "entity": dict(happened.entity),
        "occurred_at": happened.at.isoformat(),
        "values": dict(happened.values),
    }


def _message(said: Any) -> str:
    error = said.get("error") if isinstance(said, dict) else None
    return str(error.get("message")) if isinstance(error, dict) else str(said)[:200]


def _code(said: Any) -> str:
    error = said.get("error") if isinstance(said, dict) else None
    return str(error.get("code")) if isinstance(error, dict) else "unreadable"
