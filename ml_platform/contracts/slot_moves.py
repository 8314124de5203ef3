"""Moves of slots: the events that change what serves, one payload a kind; each raises the epoch."""

from typing import Annotated, ClassVar

from pydantic import Field

from ml_platform.contracts.base import Contract, GrowingContract, Sha256, Share

Step = Annotated[int, Field(ge=1)]
Exposure = Annotated[Share, Field(gt=0.0)]


class CanaryOpened(Contract):
    """A release begins to serve a share of the users."""

    release_id: Sha256
    step: Step
    exposure: Exposure


class CanaryReplaced(Contract):
    """The canary makes room for a newer one; it did nothing wrong."""

    release_id: Sha256
    by: Sha256


class CanaryAdvanced(Contract):
    """The canary goes on to a further step of its plan."""

    release_id: Sha256
    step: Step
    exposure: Exposure


class CanaryPaused(Contract):
    """The canary keeps its users and goes no further."""

    release_id: Sha256
    reason: str


class CanaryResumed(Contract):
    """A paused canary goes on."""

    release_id: Sha256
    reason: str


class CanaryAborted(Contract):
    """The canary leaves its slot because of what was seen of it."""

    release_id: Sha256
    reason: str


class ReleasePromoted(GrowingContract):
    """The canary becomes production; what served before is superseded. A person who decides it says why."""

    came_later: ClassVar[tuple[str, ...]] = ("reason",)
    release_id: Sha256
    reason: str | None = None


class ReleaseRolledBack(Contract):
    """Production leaves its slot and a superseded release serves again."""

    release_id: Sha256
    to: Sha256
    reason: str


class ShadowOpened(Contract):
    """An eligible release begins to answer copies of users' questions, which nobody sees."""

    release_id: Sha256
    reason: str


class ShadowClosed(Contract):
    """The shadow leaves its slot; it did nothing wrong by that, and nobody's answer changes."""

    release_id: Sha256
    reason: str
