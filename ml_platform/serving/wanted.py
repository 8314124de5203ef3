"""Wanted: what the ledger wants to serve, what of it was refused, and the table that this comes to; pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.serving.routing import RoutingTable

Place = SlotName | None
"""A slot, or None for the release that production would be taken back to."""

_STILL_SERVED = (ReleaseState.CANARY, ReleaseState.PAUSED, ReleaseState.PRODUCTION)


@dataclass(frozen=True)
class Wanted:
    """One product as its ledger has it: the state, the release for each place, and why some may not serve there."""

    state: DeploymentState
    places: Mapping[Place, Release]
    refused: Mapping[Place, str] = field(default_factory=dict)

    def admitted(self, tried: Callable[[str], bool]) -> dict[str, Release]:
        """The releases that may serve somewhere, the most urgent first; a shadow only once all others were tried.

        `tried` says whether a release is loaded, or could not be.
        """
        serving = self._of(SlotName.PRODUCTION, None, SlotName.CANARY)
        shadow = self._of(SlotName.SHADOW)
        return serving | {one: shadow[one] for one in shadow if all(map(tried, serving)) or tried(one)}

    def doubted(self, why: str) -> "Wanted":
        """The same of a chain that does not verify any more: what is on trial may not serve, production goes on.

        What took a canary away may stand behind what cannot be read.
        """
        trials = (place for place in (SlotName.CANARY, SlotName.SHADOW) if place in self.places)
        return replace(self, refused={**self.refused, **dict.fromkeys(trials, why)})

    def _of(self, *order: Place) -> dict[str, Release]:
        places = [place for place in order if place in self.places and place not in self.refused]
        return {self.places[place].release_id: self.places[place] for place in places}


def decide_table(wanted: Wanted, loaded: Callable[[str], bool], present: RoutingTable | None) -> RoutingTable | None:
    """What shall serve now, of what is admitted and loaded; None for what was never served and cannot be.

    Without the production that the ledger names, the present production stays, whatever is said of it; what stands
    beside it leaves the table where it is refused or the ledger has taken it out. A canary, a shadow or a last good
    release that cannot serve is treated as absent.
    """
    state = wanted.state

    def usable(place: Place) -> str | None:
        release = wanted.places.get(place)
        admitted = release is not None and place not in wanted.refused and loaded(release.release_id)
        return release.release_id if release is not None and admitted else None

    production = usable(SlotName.PRODUCTION)
    if production is None and SlotName.PRODUCTION in state.slots:
        return None if present is None else _kept(present, wanted)
    if not state.slots and present is None:
        return None
    canary = usable(SlotName.CANARY)
    return RoutingTable(
        product=state.product,
        epoch=state.epoch,
        production=production,
        canary=canary,
        shadow=usable(SlotName.SHADOW),
        last_good=usable(None),
        exposure=state.exposure if canary else 0.0,
        rollout=state.rollout if canary else "",
    )


def _kept(present: RoutingTable, wanted: Wanted) -> RoutingTable:
    """The table that served before: its production, and beside it what nobody has refused or taken out since."""
    refused = {wanted.places[place].release_id for place in wanted.refused}
    states = wanted.state.releases
    if present.canary in refused or (present.canary and states.get(present.canary) not in _STILL_SERVED):
        present = replace(present, canary=None, exposure=0.0, rollout="")
    if present.shadow in refused or present.shadow != wanted.state.slots.get(SlotName.SHADOW):
        present = replace(present, shadow=None)
    if present.last_good in refused:
        present = replace(present, last_good=None)
    return present
