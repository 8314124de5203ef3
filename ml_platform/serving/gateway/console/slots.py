"""What the ledger says of a product, read in one view: slots, the canary's plan, refusals and what happened lately."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import groupby

from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.events import Event, EventKind
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.policy import SlotName
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.story import tell

SHOWN_EVENTS = 30
READ_EVENTS = 150
"""More than are shown: the verdicts of one release's gates are told together."""


@dataclass(frozen=True)
class SlotView:
    """What is in a slot: `since` is when it came there, as far as the ledger says, `steps` a canary's plan."""

    slot: SlotName
    release_id: str
    as_of: date
    since: datetime | None
    state: str
    base_model: str
    adapter_sha256: str
    prompt: str
    steps: tuple[float, ...] = ()
    step: int = 0
    step_since: datetime | None = None


@dataclass(frozen=True)
class Told:
    """An event in one sentence; `moves` says whether it changed what serves."""

    at: datetime
    actor: str
    sequence: int
    epoch: int
    moves: bool
    grave: bool
    sentence: str


@dataclass(frozen=True)
class LedgerView:
    """A product as the ledger has it. `frozen` says why nothing goes forward; `events` are the newest, last first."""

    product: str
    epoch: int
    exposure: float
    slots: dict[SlotName, SlotView]
    last_good: str | None
    frozen: str | None
    frozen_by: Told | None
    refusals: tuple[Told, ...]
    alert: Told | None
    events: tuple[Told, ...]


_GRAVE = (
    EventKind.CANARY_ABORTED,
    EventKind.RELEASE_ROLLED_BACK,
    EventKind.ALIAS_RESTORED,
    EventKind.ADMISSION_REFUSED,
    EventKind.PRODUCT_FROZEN,
)


def read_ledger(ledger: Ledger, product: str) -> LedgerView:
    """All of it; blocks. Reads on from the last time, so that a long chain costs its length once."""
    with ledger.read(product) as view:
        replay, state = view.replay, view.state
        slots = {slot: _slot(replay, state, slot, held) for slot, held in state.slots.items()}
        refusals = tuple(told(event) for event in replay.refusals)
        alert = told(replay.alert) if replay.alert else None
        frozen_by = told(replay.frozen) if replay.frozen else None
    return LedgerView(
        product=product,
        epoch=state.epoch,
        exposure=state.exposure,
        slots={slot: slots[slot] for slot in SlotName if slot in slots},
        last_good=state.last_good,
        frozen=state.frozen,
        frozen_by=frozen_by,
        refusals=refusals,
        alert=alert,
        events=tell_all(reversed(ledger.events(product, newest=READ_EVENTS)))[:SHOWN_EVENTS],
    )


def tell_all(events: Iterable[Event]) -> tuple[Told, ...]:
    """Events for people, in the order given; PASS after PASS of one release is told once."""
    found: list[Told] = []
    for passed, run in groupby(events, key=_passed):
        same = list(run)
        if passed is None or len(same) == 1:
            found += [told(event) for event in same]
            continue
        gates = ", ".join(str(event.payload["gate"]) for event in same)
        sentence = f"{len(same)} gates say PASS of release {passed[:12]}: {gates}"
        found.append(replace(told(same[0]), sentence=sentence))
    return tuple(found)


def _passed(event: Event) -> str | None:
    """The release that a gate let pass, None for every other event."""
    passes = event.kind is EventKind.EVIDENCE_RECORDED and event.payload["verdict"] == Verdict.PASS.value
    return str(event.payload["release_id"]) if passes else None


def told(event: Event) -> Told:
    """An event for people."""
    return Told(
        at=event.recorded_at,
        actor=event.actor,
        sequence=event.sequence,
        epoch=event.epoch,
        moves=event.kind.moves,
        grave=event.kind in _GRAVE or bool(event.payload.get("incident")),
        sentence=tell(event),
    )


def _slot(replay: Replay, state: DeploymentState, slot: SlotName, release_id: str) -> SlotView:
    release = replay.releases[release_id]
    let_in = {
        SlotName.PRODUCTION: replay.served,
        SlotName.CANARY: replay.opened,
        SlotName.SHADOW: replay.shadowed,
    }[slot]
    plan = replay.policies[release.promotion_policy.content_sha256].canary if slot is SlotName.CANARY else None
    return SlotView(
        slot=slot,
        release_id=release_id,
        as_of=release.data.as_of,
        since=let_in.recorded_at if let_in else None,
        state=state.releases[release_id].value,
        base_model=release.model.base_model,
        adapter_sha256=release.model.adapter_sha256,
        prompt=release.prompt.version,
        steps=plan.steps if plan else (),
        step=state.canary_step if plan else 0,
        step_since=replay.stepped.recorded_at if plan and replay.stepped else None,
    )
