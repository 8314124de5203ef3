"""The situation that is decided on: what was promised, what stands, what was seen and what was before; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.monitor_policy import MonitorPolicy, Signal
from ml_platform.contracts.monitoring import Action, Breach, Decision, MetricReading
from ml_platform.contracts.policy import CanaryPlan, SlotName
from ml_platform.contracts.routing import Cohort

FLAPS = "it flaps"
"""The incident of a product that was moved too often."""


@dataclass(frozen=True)
class Plan:
    """What was promised before: the steps of the canary, None without one, and the policy that judges.

    The policy is the canary's while one is open, else production's; None where that cannot be read, which says why.
    `production` judges production by itself, beside a canary too; None for what it is judged by without one.
    """

    canary: CanaryPlan | None
    policy: MonitorPolicy | None
    unreadable: str = ""
    production: MonitorPolicy | None = None

    @property
    def judges(self) -> tuple[MonitorPolicy, ...]:
        """Every policy that has a say."""
        return tuple(one for one in (self.policy, self.production) if one is not None)


@dataclass(frozen=True)
class Findings:
    """What was seen: the canary against production, production alone, broken hard limits, and what both arms suffer.

    `common_causes` has a sentence for each signal that is bad in both arms.
    """

    readings: Sequence[MetricReading] = ()
    alone: Sequence[MetricReading] = ()
    breaches: Sequence[Breach] = ()
    common_causes: Mapping[Signal, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Past:
    """What was before, in the product's time, as far as answers tell it: where none came, no time has passed.

    `step_minutes` and `users` are those of the canary's present step, `since_move` counts from the first answer after
    the last move, `since_rollback` from the last automatic rollback. `moves_today` are automatic moves of 24 hours,
    since a person let the product go on. `rebased`: production is another one than when the canary was opened.
    `waiting` became eligible during a freeze. `left_to_people`: the product was frozen for harm that production did,
    and nobody let it go on since.
    """

    step_minutes: float | None = None
    users: Mapping[Cohort, int] = field(default_factory=dict)
    since_move: float | None = None
    since_rollback: float | None = None
    moves_today: int = 0
    signed_off: bool = False
    rebased: bool = False
    waiting: str | None = None
    left_to_people: bool = False


@dataclass(frozen=True)
class Situation:
    """All of it, at `now` of the product's time."""

    plan: Plan
    policy: MonitorPolicy
    state: DeploymentState
    findings: Findings
    past: Past
    now: datetime

    @property
    def canary(self) -> str | None:
        """The release in the canary slot."""
        return self.state.slots.get(SlotName.CANARY)

    @property
    def production(self) -> str | None:
        """The release in production."""
        return self.state.slots.get(SlotName.PRODUCTION)

    @property
    def capped(self) -> bool:
        """Whether there were as many automatic moves as a day may have."""
        return self.past.moves_today >= self.policy.moves.max_per_day

    @property
    def too_many(self) -> str:
        """That, for people."""
        most = self.policy.moves.max_per_day
        return f"There were {self.past.moves_today} automatic moves within 24 hours, of {most} that a day may have."

    def broken_by(self, release_id: str | None) -> list[Breach]:
        """The hard limits that a release broke by itself: what both arms suffer excuses no other signal."""
        shared = self.shared
        found = [breach for breach in self._breaches(release_id) if breach.signal not in shared]
        return sorted(found, key=lambda breach: breach.sentence)

    @property
    def shared(self) -> Mapping[Signal, str]:
        """What ails both arms, and so is nobody's fault: a sentence for each signal that shows it."""
        if self.canary is None or self.production is None:
            return {}
        canary, production = ({one.signal for one in self._breaches(arm)} for arm in (self.canary, self.production))
        both = {signal: f"Both arms broke the hard limit on {signal}." for signal in canary & production}
        return both | dict(self.findings.common_causes)

    def _breaches(self, release_id: str | None) -> list[Breach]:
        return [breach for breach in self.findings.breaches if breach.release_id == release_id]

    def decided(
        self, action: Action, reason: str, *, about: str | None, waits: Sequence[str] = (), incident: str | None = None
    ) -> Decision:
        """The decision, with everything that it rests on: what is done with production, on what it shows by itself."""
        findings, compared = self.findings, self.canary is not None and about == self.canary
        policy = self.policy if compared else self.plan.production or self.policy
        return Decision(
            product=self.state.product,
            action=action,
            release_id=about,
            reason=reason,
            epoch=self.state.epoch,
            at=self.now,
            waits_for=tuple(waits),
            readings=tuple(findings.readings if compared else findings.alone),
            breaches=tuple(sorted(findings.breaches, key=lambda one: (one.release_id, one.sentence))),
            incident=incident,
            monitor_policy_sha256=policy.sha256,
        )
