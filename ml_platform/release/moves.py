"""What came of an attempt to move a slot: a move, or what holds the release."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ml_platform.contracts.policy import SlotName


@dataclass(frozen=True)
class Move:
    """Where the release is after the call, in no slot when it left; `changed` tells whether it was this call."""

    product: str
    release_id: str
    slot: SlotName | None
    exposure: float
    epoch: int
    changed: bool
    did: str = ""

    @property
    def sentence(self) -> str:
        """For people: `canary open at 5 %`."""
        if self.did:
            return self.did
        if self.slot is SlotName.PRODUCTION:
            return "already in production"
        if self.slot is SlotName.SHADOW:
            return "already the shadow"
        return f"canary {'open' if self.changed else 'was already open'} at {self.exposure:.0%}"


@dataclass(frozen=True)
class Held:
    """No slot was moved; `gates` are the gates that hold the release, `reasons` say why in sentences.

    Beside the gates of the policy there are `policy_pinned` and `quarantine`.
    """

    product: str
    release_id: str
    gates: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    because: str = ""

    @property
    def sentence(self) -> str:
        """For people: `held: json_valid, safe`, or `held: older than the canary of 2013-04-07`."""
        return f"held: {self.because or ', '.join(self.gates)}"
