"""The ASGI application: one request in, one answer or one error out, each with a response id that finds it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from ml_platform.errors import MlPlatformError, OperationError
from ml_platform.serving.gateway.exchange import ClientGone, Exchange, Receive, Scope, Send
from ml_platform.serving.gateway.failures import HttpError, http_error, unexpected
from ml_platform.serving.gateway.logs import FOR_THE_KEY, TurnedAway
from ml_platform.serving.gateway.metrics import GatewayMetrics

logger = logging.getLogger(__name__)

Endpoint = Callable[[Exchange], Awaitable[None]]
Routes = Mapping[str, Mapping[str, Endpoint]]
"""Endpoints by path and method; a path that ends in `/` stands for all that lie directly below it."""


class Gateway:
    """Finds the endpoint of a request and answers whatever goes wrong there; nothing passes as a traceback.

    At most `most` requests are worked on at a time; `in_flight` is how many there are now.
    """

    def __init__(self, routes: Routes, metrics: GatewayMetrics, *, most: int) -> None:
        self._routes = routes
        self._metrics = metrics
        self._most = most
        self._turned_away = TurnedAway()
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification; only HTTP comes here."""
        exchange = Exchange(scope, receive, send)
        path, methods = self._find(scope["path"])
        self.in_flight += 1
        try:
            await self._serve(exchange, methods)
        except ClientGone:
            exchange.status = 499
        except MlPlatformError as error:
            await self._fail(exchange, error)
        except asyncio.CancelledError:
            # Only the end of the drain cancels: who still waits is told so, and nobody is left to cancel for.
            await self._fail(exchange, HttpError(503, "shutting_down", "this server ends. Try again.", closes=True))
        except Exception:
            logger.exception("a mistake of ours", extra={"response_id": exchange.response_id})
            await exchange.fail(unexpected())
        finally:
            self.in_flight -= 1
            self._metrics.requested(path, exchange.status or 0)

    def _find(self, path: str) -> tuple[str, Mapping[str, Endpoint]]:
        methods = self._routes.get(path)
        if methods is not None and not path.endswith("/"):
            return path, methods
        parent, _, rest = path.rpartition("/")
        below = self._routes.get(parent + "/") if rest else None
        return (parent + "/{id}", below) if below is not None else ("other", {})

    async def _serve(self, exchange: Exchange, methods: Mapping[str, Endpoint]) -> None:
        if not methods:
            raise HttpError(404, "path_not_found", "there is nothing at this path. /openapi.json says what there is.")
        method = exchange.scope["method"]
        endpoint = methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            allowed = ", ".join(sorted(methods))
            raise HttpError(
                405, "method_not_allowed", f"use {allowed} at this path.", headers=(("allow", allowed),), closes=True
            )
        if self.in_flight > self._most:
            raise HttpError(
                503, "overloaded", "too many requests at once. Try again.", headers=(("retry-after", "1"),), closes=True
            )
        await endpoint(exchange)

    async def _fail(self, exchange: Exchange, error: MlPlatformError) -> None:
        told = http_error(error)
        self._metrics.refused(told.code)
        if told.code in FOR_THE_KEY:
            self._turned_away.tell(exchange, told.code)
        if told.status >= 500 and not isinstance(error, HttpError):
            known = isinstance(error, OperationError)
            level = logging.WARNING if known else logging.ERROR
            logger.log(
                level, "%s: %s", told.code, error, extra={"response_id": exchange.response_id}, exc_info=not known
            )
        await exchange.fail(told)
