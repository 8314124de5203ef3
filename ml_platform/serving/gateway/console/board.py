"""A board: everything that a product's page shows, as values, and what is wrong with any of it; pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitoring import Look
from ml_platform.contracts.policy import SlotName
from ml_platform.serving.gateway.console.glances import Said
from ml_platform.serving.gateway.console.incidents import PostMortem
from ml_platform.serving.gateway.console.slots import LedgerView, SlotView
from ml_platform.serving.gateway.console.stance import Stance
from ml_platform.serving.gateway.console.words import late_look, verdicts

SHOWN_REFUSALS = 3
NO_LOOK = "No controller has looked at this product yet: nothing moves by itself. `mlp up` starts one."


@dataclass(frozen=True)
class Problem:
    """Something that people should know first."""

    title: str
    words: str
    more: str = ""
    bad: bool = False


@dataclass(frozen=True)
class Board:
    """One product at one moment: what the ledger, the controller and this gateway say of it."""

    product: str
    ledger: Said[LedgerView]
    latest: Said[Look | None]
    past: Said[tuple[Look, ...]]
    stance: Stance
    incidents: tuple[PostMortem, ...] = ()

    @property
    def look(self) -> Look | None:
        """The last look of a controller, as far as it is known."""
        return self.latest.value

    @property
    def looks(self) -> tuple[Look, ...]:
        """Every look that is known, oldest first; the newest is read more often than the others."""
        past = self.past.value or ()
        if self.look is None or (past and past[-1].looked_at >= self.look.looked_at):
            return past
        return (*past, self.look)

    @property
    def no_look(self) -> str:
        """What stands where a look would."""
        return "What the controller saw cannot be read at the moment." if self.latest.problem else NO_LOOK

    def problems(self, now: datetime) -> list[Problem]:
        """What people should know first, the gravest on top."""
        found: list[Problem] = []
        ledger, look = self.ledger.value, self.look
        if self.ledger.problem:
            shown = "What serves is shown as this gateway serves it." if ledger is None else _as_of(self.ledger)
            found.append(Problem("The ledger.", f"{self.ledger.problem} {shown}", bad=True))
        frozen = ledger.frozen if ledger else look.frozen if look else None
        if frozen:
            by = ledger.frozen_by if ledger else None
            more = f"{by.at:%Y-%m-%d %H:%M} UTC by {by.actor}. " if by else ""
            more += "Nothing goes forward and no training starts by itself. Aborts still happen; rollbacks too, but "
            more += "not after too many moves or two failures in a row: then `mlp rollback` is up to a person."
            found.append(Problem("Frozen.", frozen, f"{more} `mlp unfreeze {self.product} --reason …` ends it."))
        found += self._of_controller(look, now)
        refusals = ledger.refusals[::-1] if ledger else ()
        for refusal in refusals[:SHOWN_REFUSALS]:
            found.append(Problem("Refused.", refusal.sentence, f"{refusal.at:%Y-%m-%d %H:%M:%S} UTC", bad=True))
        if (others := len(refusals) - SHOWN_REFUSALS) > 0:
            found.append(Problem("Refused.", f"{others} more at this epoch: `mlp status` lists them.", bad=True))
        if ledger and ledger.alert:
            found.append(Problem("Alias.", ledger.alert.sentence, f"{ledger.alert.at:%Y-%m-%d %H:%M:%S} UTC"))
        found += [Problem("This gateway.", said, bad=True) for said in self.stance.problems]
        return found

    def _of_controller(self, look: Look | None, now: datetime) -> list[Problem]:
        found: list[Problem] = []
        problem = self.latest.problem or self.past.problem
        if problem:
            shown = "" if look is None else f" {_as_of(self.latest)}"
            found.append(Problem("The controller's looks.", f"{problem}{shown}", bad=True))
        elif look is not None and (late := late_look(look, now)):
            found.append(Problem("The controller.", late, bad=True))
        if look is not None and look.decision.incident:
            found.append(Problem("Incident.", look.decision.incident, bad=True))
        return found


@dataclass(frozen=True)
class OverviewRow:
    """One product in a line."""

    product: str
    epoch: int
    production: str | None
    canary: str | None
    exposure: float
    frozen: str | None
    look: Look | None

    def late(self, now: datetime) -> str | None:
        """Why its last look is too old to be believed, None for a fresh one."""
        return late_look(self.look, now) if self.look else None

    @property
    def verdicts(self) -> dict[Verdict, int]:
        """Its readings by verdict."""
        return verdicts(self.look.decision) if self.look else {}


@dataclass(frozen=True)
class SlotRow:
    """A slot as its card shows it; the ledger's word where there is one, else what this gateway serves."""

    name: str
    release_id: str | None
    exposure: float
    beside: float
    view: SlotView | None
    steps: Any
    missing: bool
    empty: str


_EMPTY = {
    SlotName.PRODUCTION: "No release was promoted yet: nobody is answered.",
    SlotName.CANARY: "No rollout runs.",
    SlotName.SHADOW: "No release answers copies of questions.",
}


def slot_rows(board: Board, draw: Callable[[Sequence[float], int], Any]) -> list[SlotRow]:
    """The three slots. `draw` makes the picture of a canary's plan."""
    ledger, stance = board.ledger.value, board.stance
    served = {
        SlotName.PRODUCTION: stance.production,
        SlotName.CANARY: stance.canary,
        SlotName.SHADOW: stance.shadow,
    }
    rows = []
    for slot in SlotName:
        view = ledger.slots.get(slot) if ledger else None
        held = (view.release_id if view else None) if ledger else served[slot]
        exposure = ledger.exposure if ledger else stance.exposure
        rows.append(
            SlotRow(
                name=slot.value,
                release_id=held,
                exposure=exposure,
                beside=exposure,
                view=view,
                steps=draw(view.steps, view.step) if view and view.steps else "",
                missing=held is not None and held in stance.missing,
                empty=_EMPTY[slot],
            )
        )
    return rows


def _as_of(said: Said[Any]) -> str:
    if said.age_seconds is None:
        return ""
    return f"What is shown is {said.age_seconds:,.0f} s old."
