"""Rollouts as a controller finds them: a ledger, releases that keep their monitor policies, and records of answers."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ml_platform.contracts.home import Home
from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.monitoring import Action, Decision, Look
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.provenance import FeaturesRead, ProvenanceRecord, RecordedError, Timings
from ml_platform.contracts.release import Release, VersionedPart
from ml_platform.contracts.routing import Cohort
from ml_platform.contracts.serving import ServingContent, ServingTime
from ml_platform.lineage.contents import keep_content
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.looks import LookStore
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.release.controlling import ControllerLoop
from ml_platform.serving.routing import RoutingTable, route
from tests.samples.answered import fill
from tests.samples.followed import SERVING, World
from tests.samples.monitoring import MONITOR_POLICY
from tests.samples.releases import make_policy

STEPS = (0.2, 0.5)
RATE = {"kind": "rate", "metric": "error_rate", "signal": "error", "margin": 0.3, "at_most": 0.6}
WATCHED: dict[str, Any] = MONITOR_POLICY | {
    "metrics": [RATE],
    "alpha": 0.05,
    "beta": 0.2,
    "hard_limits": [{"signal": "error", "at_most": 0.5, "window_seconds": 60, "min_count": 10}],
    "moves": {"cool_down_minutes": 10, "max_per_day": 6, "min_users": 20},
}
PLAN = make_policy(canary={"steps": list(STEPS), "min_minutes_per_step": 30})
IN_ITS_TIME = SERVING.model_copy(update={"spec": SERVING.spec.model_copy(update={"time": ServingTime.FEATURES})})
"""A product that lives in the time of its data, which a test lets pass."""


@dataclass
class Rollout(World):
    """A world whose answers a test makes up; `clock` is the product's time, all users are known by name."""

    watched: MonitorPolicy = field(default_factory=lambda: MonitorPolicy.parse(WATCHED, where="a sample"))
    policy: Any = PLAN
    serving: ServingContent = IN_ITS_TIME
    clock: datetime = datetime(2013, 4, 1, tzinfo=UTC)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.records = ProvenanceStore(self.home.provenance_url)
        self.looks = LookStore(self.home.monitoring_url)
        self.chance = random.Random(7)  # noqa: S311 - made-up answers
        self.asked = 0

    def release(self, seed: int, **files: bytes) -> Release:
        """A release that keeps its monitor policy."""
        keep_content(self.store, self.watched)
        part = VersionedPart(version=self.watched.version, content_sha256=self.watched.sha256)
        return super().release(seed, **files).model_copy(update={"monitor_policy": part})

    def loop(self, actor: str = "controller-1", **given: Any) -> ControllerLoop:
        """A controller process of its own."""
        return ControllerLoop(
            self.home, self.controller, self.store, LookStore(self.home.monitoring_url), actor, **given
        )

    def successor(self, loop: ControllerLoop, actor: str = "controller-2") -> ControllerLoop:
        """A new controller in the place of one that died; nobody waits for the end of its lease."""
        self.looks.drop_lease("controller", loop.actor)
        return self.loop(actor)

    def look(self, loop: ControllerLoop | None = None) -> Look:
        """One round of a controller, and what it says."""
        seen: list[Look] = []
        loop = loop or self.loop()
        loop.tell = seen.append
        assert loop.round()
        return seen[-1]

    def answer(self, users: int, *, canary_errors: float = 0.0, errors: float = 0.0, **more: Any) -> None:
        """One question of each of so many new users, answered by whom the ledger says, at the product's time."""
        table = RoutingTable.of(Ledger(self.url).state(self.product))
        records = []
        for _ in range(users):
            self.asked += 1
            user, response_id = f"user-{self.asked}", f"resp_{self.asked:08d}"
            routed = route(table, user_id=user, response_id=response_id)
            rate = canary_errors if routed.cohort is Cohort.CANARY else errors
            failed = self.chance.random() < rate
            records.append(self.record(response_id, user, routed, failed=failed, **more))
        fill(self.records, *records)

    def record(self, response_id: str, user: str, routed: Any, *, failed: bool, **more: Any) -> ProvenanceRecord:
        """The record of one answer."""
        read = FeaturesRead(
            service="facts",
            definitions_sha256="e" * 64,
            published_at=self.clock,
            read_at=self.clock,
            keys={},
            values={},
            event_at={},
        )
        plain: dict[str, Any] = {
            "response_id": response_id,
            "answered_at": datetime.now(UTC),
            "product": self.product,
            "release_id": routed.release_id,
            "epoch": routed.epoch,
            "cohort": routed.cohort,
            "route_reason": routed.reason,
            "exposure": routed.exposure,
            "user_draw": routed.user_draw,
            "user_sha256": f"{int(user.split('-')[1]):064x}",
            "utterance": "Will it be late?",
            "features": read,
            "prompt": None,
            "guardrails": None,
            "adapter": "adapter",
            "answer": "Perhaps.",
            "input_tokens": 10,
            "output_tokens": 5,
            "cost_usd": 0.00001,
            "timings": Timings(total_ms=400.0 + 100.0 * self.chance.random(), queue_ms=1.0, first_token_ms=50.0),
            "code_commit": None,
            "errors": (RecordedError(kind="engine", message="broke"),) if failed else (),
        }
        return ProvenanceRecord(**plain | more)

    def pass_minutes(self, minutes: float) -> None:
        """Lets the product's time go on."""
        self.clock += timedelta(minutes=minutes)

    def kinds(self) -> list[str]:
        """The kinds of all events, in their order."""
        return [event.kind.value for event in Ledger(self.url).events(self.product)]


def make_rollout(folder: Any, **given: Any) -> Rollout:
    """A world below a folder, with a release in production and another one as the canary."""
    home = Home(folder)
    world = Rollout(home, home.ledger_url, **given)
    world.serve(1)
    world.try_out(2)
    return world


def slots(world: Rollout) -> dict[SlotName, str]:
    """What is in the slots now."""
    return world.controller.state(world.product).slots


def go_on(world: Rollout, loop: ControllerLoop, *, rounds: int = 12, **answers: Any) -> list[Decision]:
    """Answers and minutes, until the canary is in production or gone; the decisions that did something."""
    done = []
    for _ in range(rounds):
        world.answer(150, **answers)
        world.pass_minutes(20)
        world.answer(150, **answers)
        decision = world.look(loop).decision
        done += [] if decision.action is Action.HOLD else [decision]
        if SlotName.CANARY not in slots(world):
            break
    return done
