"""The door of the gateway: which key this is, whether it may, and whether it comes too often."""

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from ml_platform.serving.gateway.access import Access, ApiKey, Scope
from ml_platform.serving.gateway.exchange import Exchange
from ml_platform.serving.gateway.failures import HttpError
from ml_platform.serving.gateway.metrics import GatewayMetrics
from ml_platform.serving.gateway.rates import Rate, RateTable


@dataclass(frozen=True)
class Doorway:
    """Lets requests in, or raises HttpError: 401 without a key, 403 without the scope, 429 too often."""

    access: Access
    table: RateTable
    per_user: Rate
    metrics: GatewayMetrics

    def enter(self, exchange: Exchange, scope: Scope | None) -> ApiKey:
        """The key of a request, counted as one more; None stands for any scope."""
        key = self.known(exchange)
        if key is None:
            message = "an API key is needed: 'Authorization: Bearer mlp_…'. `mlp access grant` makes one."
            raise HttpError(401, "invalid_api_key", message, headers=(("www-authenticate", "Bearer"),))
        return self.admit(key, scope)

    def admit(self, key: ApiKey, scope: Scope | None) -> ApiKey:
        """A key that counts, for one more request."""
        self._count("key", key.key_sha256, Rate(key.rate_per_second, key.burst))
        if scope is not None:
            require(key, scope)
        return key

    def known(self, exchange: Exchange) -> ApiKey | None:
        """The key that a request shows and that counts, None for none; the exchange keeps its id for the log."""
        kind, _, token = exchange.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() != "bearer":
            return None
        key = self.access.find(token.strip(), datetime.now(UTC))
        exchange.key_id = self.access.id_of(token.strip()) if key is None else key.key_id
        return key

    def admit_user(self, product: str, user_id: str) -> None:
        """Counts one more request of a user of a product."""
        self._count("user", f"{product}\0{user_id}", self.per_user)

    def _count(self, by: str, caller: str, rate: Rate) -> None:
        wait = self.table.wait_s(f"{by}\0{caller}", rate, time.monotonic())
        if wait:
            self.metrics.rate_limited(by)
            raise HttpError(
                429,
                "rate_limit_exceeded",
                f"more than {rate.per_second:g} requests a second of this {by}. Wait {wait:.2f} s.",
                headers=(("retry-after", str(math.ceil(wait))),),
            )


def require(key: ApiKey, scope: Scope, product: str | None = None) -> None:
    """Raises HttpError 403 unless the key may do that, for that product where one is named."""
    if not key.allows(scope):
        raise HttpError(403, "insufficient_scope", f"the key '{key.name}' lacks the scope '{scope.value}'.")
    if not key.allows(scope, product):
        raise HttpError(403, "product_not_allowed", f"the key '{key.name}' is for another product.", "model")
