"""Which release answers one request, and why: a value that travels with the answer and into its record."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from ml_platform.contracts.base import Contract, Name, Sha256, Share


class Cohort(StrEnum):
    """The arm that a request was assigned to, whatever release then answered it.

    Windows compare arms as assigned: a canary whose breaker sends its users back to production must not
    thereby look healthy. `operator` is traffic by header override, which belongs to neither arm; `shadow` are
    copies whose answers nobody sees.
    """

    PRODUCTION = "production"
    CANARY = "canary"
    SHADOW = "shadow"
    OPERATOR = "operator"


class RouteReason(StrEnum):
    """Why this release: as assigned, by an operator's header, or because the assigned one cannot answer."""

    ASSIGNED = "assigned"
    OVERRIDE = "override"
    FELL_BACK = "fell_back"
    NOTHING_SERVES = "nothing_serves"


class Route(Contract):
    """One request's release at one epoch; every part of its answer comes from this release and no other.

    `release_id` is None when no release may answer: the product's fallback reply does, marked as such.
    `shadow_release_id` also gets a copy of the request, whose output only goes to the store.
    `exposure` is the canary's share at that epoch. `user_draw` is where the user's hash lies in [0, 1): who
    reads the record can draw again.
    """

    product: Name
    epoch: Annotated[int, Field(ge=0)]
    release_id: Sha256 | None
    cohort: Cohort
    reason: RouteReason
    exposure: Share
    user_draw: Share | None = None
    shadow_release_id: Sha256 | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.release_id is None) != (self.reason is RouteReason.NOTHING_SERVES):
            raise ValueError(f"a route with reason '{self.reason}' and release {self.release_id} contradicts itself")
        return self
