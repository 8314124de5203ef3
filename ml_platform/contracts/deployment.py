"""What serves: the state that a replay of the ledger's events gives."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ml_platform.contracts.base import Contract, Name, Sha256, Share
from ml_platform.contracts.policy import SlotName


class ReleaseState(StrEnum):
    """Where a release is in its life; DESIGN.md draws the transitions."""

    REGISTERED = "registered"
    HELD = "held"
    ELIGIBLE = "eligible"
    CANARY = "canary"
    PAUSED = "paused"
    PRODUCTION = "production"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


class DeploymentState(Contract):
    """One product's slots and releases at one epoch.

    `epoch` counts moves; `sequence` and `head_sha256` name the last event that this state knows of.
    `exposure` is the canary's share of users at `canary_step` of its plan; both are 0 without a canary. `rollout` names
    the draw of its users and tells two rollouts of one release apart; empty without a canary. `last_good` is the
    release that served before production: where a rollback would go, unless what was measured since forbids it.
    `frozen` says why nothing goes forward, None where it may.
    """

    product: Name
    epoch: Annotated[int, Field(ge=0)] = 0
    sequence: Annotated[int, Field(ge=0)] = 0
    head_sha256: Sha256 = "0" * 64
    canary_step: Annotated[int, Field(ge=0)] = 0
    slots: dict[SlotName, Sha256] = {}
    exposure: Share = 0.0
    rollout: str = ""
    last_good: Sha256 | None = None
    frozen: str | None = None
    releases: dict[Sha256, ReleaseState] = {}
