"""Routing: which release answers a request; pure, so that every worker and every restart decides alike.

A user's place in [0, 1) is a hash of product, rollout and user. The canary gets those below the exposure, so
raising the exposure only adds users, and lowering it only takes some away: nobody flips back and forth within a
rollout. Another rollout or product draws afresh, so that it is not always the same people who try what is new.
"""

import hashlib
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Self

from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.routing import Cohort, Route, RouteReason
from ml_platform.errors import RefusedError

_WHOLE = 1 << 64
_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """What may serve at one epoch; the gateway makes one when the epoch moves and swaps one pointer.

    `rollout` names the draw of users and tells apart two rollouts of one release; where it is empty, the canary's
    release does. `last_good` is the release that served before production.
    `shadow_share` is the share of requests of which the shadow gets a copy.
    """

    product: str
    epoch: int
    production: str | None
    canary: str | None = None
    shadow: str | None = None
    last_good: str | None = None
    exposure: float = 0.0
    shadow_share: float = 0.0
    rollout: str = ""

    def __post_init__(self) -> None:
        for name, share in (("exposure", self.exposure), ("shadow_share", self.shadow_share)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} of '{self.product}' is {share}, expected a share from 0 to 1.")

    @classmethod
    def of(cls, state: DeploymentState, *, shadow_share: float = 0.0) -> Self:
        """The table of a deployment's slots."""
        return cls(
            product=state.product,
            epoch=state.epoch,
            production=state.slots.get(SlotName.PRODUCTION),
            canary=state.slots.get(SlotName.CANARY),
            shadow=state.slots.get(SlotName.SHADOW),
            last_good=state.last_good,
            exposure=state.exposure,
            shadow_share=shadow_share,
            rollout=state.rollout,
        )

    @property
    def releases(self) -> tuple[str, ...]:
        """Every release that a request may reach, each once: production, canary, shadow, last good."""
        named = (self.production, self.canary, self.shadow, self.last_good)
        return tuple(dict.fromkeys(release for release in named if release is not None))


def route(
    table: RoutingTable,
    *,
    user_id: str | None,
    response_id: str,
    unavailable: AbstractSet[str] = _NOBODY,
    override: str | None = None,
    may_override: bool = False,
) -> Route:
    """The release that answers a request of `user_id`.

    `unavailable` are releases that cannot answer now: breaker open, quarantined, not loaded. A canary user
    then gets production, a production user the last good release, and nobody a release less proven than his own;
    with none left, `release_id` is None. A request without a user is no part of any experiment: production.
    `override` is an operator's header: a slot's name or a release id of the table.
    Raises RefusedError for an override by somebody who may not, or to what does not serve here.
    """
    if override is not None:
        return _overridden(table, override, may_override=may_override, unavailable=unavailable)
    draw = None if user_id is None else _draw("user", table.product, table.rollout or table.canary or "", user_id)
    chosen = table.canary is not None and draw is not None and _below(draw, table.exposure)
    cohort = Cohort.CANARY if chosen else Cohort.PRODUCTION
    assigned = table.canary if chosen else table.production
    ladder = (assigned, table.production, table.last_good)
    found = next((one for one in ladder if one is not None and one not in unavailable), None)
    if found is None:
        reason = RouteReason.NOTHING_SERVES
    else:
        reason = RouteReason.ASSIGNED if found == assigned else RouteReason.FELL_BACK
    return Route(
        product=table.product,
        epoch=table.epoch,
        release_id=found,
        cohort=cohort,
        reason=reason,
        exposure=table.exposure,
        # 53 bits are what a float holds; rounding up to 1.0 would place a user outside of [0, 1).
        user_draw=None if draw is None else (draw >> 11) / (1 << 53),
        shadow_release_id=_shadow(table, found, response_id, unavailable),
    )


def _overridden(table: RoutingTable, override: str, *, may_override: bool, unavailable: AbstractSet[str]) -> Route:
    if not may_override:
        raise RefusedError(
            "the request asks for a release by header, which needs a key with the scope 'operate'. "
            "Leave the header out, or use an operator's key."
        )
    slots = {SlotName.PRODUCTION: table.production, SlotName.CANARY: table.canary, SlotName.SHADOW: table.shadow}
    release = slots[SlotName(override)] if override in set(SlotName) else override
    if release is None or release not in table.releases or release in unavailable:
        raise RefusedError(
            f"the request asks for '{override}', which does not serve '{table.product}' at epoch {table.epoch}. "
            f"Ask for one of: {', '.join(one for one in table.releases if one not in unavailable) or 'nothing serves'}."
        )
    return Route(
        product=table.product,
        epoch=table.epoch,
        release_id=release,
        cohort=Cohort.OPERATOR,
        reason=RouteReason.OVERRIDE,
        exposure=table.exposure,
    )


def _shadow(table: RoutingTable, found: str | None, response_id: str, unavailable: AbstractSet[str]) -> str | None:
    """The release that gets a copy of this request, drawn by the response's id: a retry is another sample."""
    if table.shadow is None or table.shadow == found or table.shadow in unavailable or not table.shadow_share:
        return None
    drawn = _draw("shadow", table.product, table.shadow, response_id)
    return table.shadow if _below(drawn, table.shadow_share) else None


def _draw(*parts: str) -> int:
    """A number in [0, 2**64) that depends on all parts and on where one ends and the next begins."""
    hashed = hashlib.blake2b(digest_size=8, person=b"mlp.routing")
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "big") + data)
    return int.from_bytes(hashed.digest(), "big")


def _below(draw: int, share: float) -> bool:
    """Whether a draw lies in a share of the whole, exactly: 0 is nobody, 1 is everybody."""
    return draw < int(share * _WHOLE)
