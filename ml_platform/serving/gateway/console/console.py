"""The console's endpoints. A page costs answers nothing: stores are read and pages made in threads of its own, one page
a product and second for all who look, and whatever hangs is waited for for a moment and then named."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from urllib.parse import parse_qs

from markupsafe import Markup

from ml_platform.errors import MlPlatformError, OperationError
from ml_platform.lineage.provenance.store import Answered
from ml_platform.serving.gateway.access import ApiKey, Scope
from ml_platform.serving.gateway.app import Endpoint, Routes
from ml_platform.serving.gateway.console.entrance import Entrance, next_path
from ml_platform.serving.gateway.console.gathering import Gathering
from ml_platform.serving.gateway.console.pages import Pages
from ml_platform.serving.gateway.console.sessions import PATH
from ml_platform.serving.gateway.endpoints import require_answer
from ml_platform.serving.gateway.exchange import ClientGone, Exchange, Header
from ml_platform.serving.gateway.failures import HttpError, http_error, unexpected
from ml_platform.serving.threads import CallThreads

logger = logging.getLogger(__name__)

PAGE_SECONDS = 10.0
FRESH_SECONDS = 1.0
MAKING_AT_MOST = 0.1
"""The share of the time that a product's page may be in the making: one that takes long is made less often."""
ANSWER_SECONDS = 5.0
MOST_NAMED = 8
"""So many products are named at the top of each page; of more, the list of all has to do."""
HEADINGS = {400: "Not like this", 403: "Not for this key", 404: "Nothing there", 429: "Too often", 503: "Not now"}
_RESPONSE_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")

Work = Callable[[Exchange], Awaitable[None]]


class Console:
    """The pages of one worker. `find` looks up an answer as GET /v1/responses/{id} does; it blocks."""

    def __init__(
        self,
        gathering: Gathering,
        entrance: Entrance,
        find: Callable[[str], Answered | None],
        pages: Pages | None = None,
    ) -> None:
        self._gathering, self._entrance, self._find = gathering, entrance, find
        self._pages = pages or Pages()
        self._rendering = CallThreads("console: pages", threads=1)
        self._finding = CallThreads("console: answers", threads=4)
        self._made: dict[str, tuple[float, asyncio.Task[Markup]]] = {}
        self._took: dict[str, float] = {}

    def routes(self) -> Routes:
        """Every path of the console."""
        return {
            PATH: {"GET": self._page(self._overview)},
            f"{PATH}/login": {"GET": self._page(self._form), "POST": self._page(self._sign_in)},
            f"{PATH}/logout": {"POST": self._page(self._sign_out)},
            f"{PATH}/find": {"GET": self._page(self._look_up)},
            f"{PATH}/products/": {"GET": self._page(self._product)},
            f"{PATH}/responses/": {"GET": self._page(self._response)},
            f"{PATH}/incidents/": {"GET": self._page(self._incident)},
        }

    def _page(self, work: Work) -> Endpoint:
        """An endpoint whose errors are pages, too."""

        async def endpoint(exchange: Exchange) -> None:
            try:
                async with asyncio.timeout(PAGE_SECONDS):
                    await work(exchange)
            except TimeoutError:
                await self._fail(exchange, HttpError(503, "page_late", "This page took too long. Try again."))
            except MlPlatformError as error:
                await self._fail(exchange, http_error(error))
            except (ClientGone, asyncio.CancelledError):
                raise
            except Exception:
                logger.exception("a mistake of ours", extra={"response_id": exchange.response_id})
                await self._fail(exchange, unexpected())

        return endpoint

    async def _overview(self, exchange: Exchange) -> None:
        key = self._entrance.enter(exchange)
        rows, problems = await self._gathering.overview()
        mine = [row for row in rows if key.allows(Scope.OPERATE, row.product)]
        now = datetime.now(UTC)
        content = await self._render(lambda: self._pages.overview(mine, problems, now))
        await self._send(exchange, key, "Products", content, live=True)

    async def _product(self, exchange: Exchange) -> None:
        key, product = self._entrance.enter(exchange), _last(exchange)
        named = await self._gathering.products()
        if named.value is None:
            raise HttpError(503, "ledger_down", f"{named.problem} Nothing is known of any product yet.")
        if product not in named.value or not key.allows(Scope.OPERATE, product):
            raise HttpError(404, "product_not_found", "There is no such product here, or your key is not for it.")
        content = await self._made_lately(product)
        await self._send(exchange, key, product, content, live=True, product=product)

    async def _response(self, exchange: Exchange) -> None:
        key, response_id = self._entrance.enter(exchange), _last(exchange)
        try:
            found = await self._finding.call(partial(self._find, response_id), timeout_seconds=ANSWER_SECONDS)
        except (OperationError, TimeoutError):
            message = (
                "The store of answers cannot be read at the moment, and this machine's log does not have that one."
            )
            raise HttpError(503, "answers_down", message) from None
        answered, now = require_answer(found, key), datetime.now(UTC)
        content = await self._render(lambda: self._pages.response(answered, now))
        await self._send(exchange, key, response_id, content, product=answered.record.product)

    async def _incident(self, exchange: Exchange) -> None:
        key, (product, _, name) = self._entrance.enter(exchange), _last(exchange).partition(".")
        named = await self._gathering.products()
        known = product in (named.value or ()) and key.allows(Scope.OPERATE, product)
        blocks = await self._gathering.incident(product, name) if known else None
        if blocks is None:
            raise HttpError(404, "incident_not_found", "There is no such post-mortem here, or your key is not for it.")
        content = await self._render(lambda: self._pages.incident(product, name, blocks))
        await self._send(exchange, key, name, content, product=product)

    async def _look_up(self, exchange: Exchange) -> None:
        self._entrance.enter(exchange)
        query = exchange.scope["query_string"].decode("latin-1")
        wanted = (parse_qs(query, max_num_fields=8).get("response_id") or [""])[-1].strip() if len(query) < 500 else ""
        if not _RESPONSE_ID.fullmatch(wanted):
            raise HttpError(
                400, "invalid_response_id", "A response id has letters, digits, '_' and '-', like resp_0193…."
            )
        await self._go_on(exchange, f"{PATH}/responses/{wanted}")

    async def _form(self, exchange: Exchange) -> None:
        await self._send_form(exchange, 200, "")

    async def _sign_in(self, exchange: Exchange) -> None:
        try:
            where, cookie = await self._entrance.sign_in(exchange)
        except HttpError as error:
            if error.code not in ("invalid_api_key", "insufficient_scope"):
                raise
            self._entrance.door.metrics.refused(error.code)
            await self._send_form(exchange, error.status, error.message)
            return
        await self._go_on(exchange, where, [cookie])

    async def _sign_out(self, exchange: Exchange) -> None:
        await self._go_on(exchange, f"{PATH}/login", [self._entrance.sign_out(exchange)])

    async def _made_lately(self, product: str) -> Markup:
        """The product's page as it was made within the last second; whoever asks meanwhile gets the same."""
        made_at, making = self._made.get(product, (float("-inf"), None))
        now = time.monotonic()
        fresh = max(FRESH_SECONDS, self._took.get(product, 0.0) / MAKING_AT_MOST)
        if making is None or (now - made_at >= fresh and making.done()):
            making = asyncio.create_task(self._make(product), name=f"console: {product}")
            self._made[product] = now, making
        return await asyncio.shield(making)

    async def _make(self, product: str) -> Markup:
        board = await self._gathering.board(product)
        began = time.monotonic()
        page = await self._render(lambda: self._pages.product(board, datetime.now(UTC)))
        self._took[product] = min(time.monotonic() - began, 1.0)
        return page

    async def _render(self, make: Callable[[], Markup]) -> Markup:
        return await self._rendering.call(make, timeout_seconds=PAGE_SECONDS)

    async def _send(
        self, exchange: Exchange, key: ApiKey, heading: str, content: Markup, *, live: bool = False, product: str = ""
    ) -> None:
        """Sends a page to somebody who is signed in."""
        known = (await self._gathering.products()).value or ()
        mine = [name for name in known if key.allows(Scope.OPERATE, name)]
        if len(mine) > MOST_NAMED:
            mine = [product] if product else []
        page = self._pages.shell(heading, content, signed_in=key.name, products=mine, product=product, live=live)
        await exchange.respond(200, page, self._pages.headers)

    async def _send_form(self, exchange: Exchange, status: int, said: str, headers: Sequence[Header] = ()) -> None:
        where, insecure = next_path(exchange.scope["path"]), self._entrance.insecure(exchange)
        content = await self._render(lambda: self._pages.login(said=said, next_path=where, insecure=insecure))
        await exchange.respond(status, self._pages.shell("Sign in", content), [*self._pages.headers, *headers])

    async def _fail(self, exchange: Exchange, error: HttpError) -> None:
        if exchange.status is not None:
            return
        self._entrance.door.metrics.refused(error.code)
        extra = [(name.encode(), value.encode()) for name, value in error.headers]
        if error.closes:
            extra.append((b"connection", b"close"))
        if error.code == "not_signed_in":
            await self._send_form(exchange, error.status, "", extra)
            return
        heading = HEADINGS.get(error.status, "That went wrong")
        content = self._pages.problem(heading, error.message, error.status, exchange.response_id)
        await exchange.respond(error.status, self._pages.shell(heading, content), [*self._pages.headers, *extra])

    async def _go_on(self, exchange: Exchange, where: str, headers: Sequence[Header] = ()) -> None:
        location = (b"location", where.encode("ascii"))
        await exchange.respond(303, b"", [location, (b"cache-control", b"no-store"), *headers])


def _last(exchange: Exchange) -> str:
    return str(exchange.scope["path"].rpartition("/")[2])
