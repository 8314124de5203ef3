"""Deciding, pure: what is done with what serves, from what was promised, what stands and what was seen."""

from collections.abc import Callable, Iterable
from datetime import datetime

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import RateMetric
from ml_platform.contracts.monitoring import Action, Breach, Decision, MetricReading
from ml_platform.contracts.policy import SlotName
from ml_platform.release.situation import FLAPS, Findings, Past, Plan, Situation
from ml_platform.release.waiting import cool_down, measurements, sign_off, step

__all__ = ["Findings", "Past", "Plan", "decide"]

A_PERSON = ("a person: the runbook on incidents says what can be done",)


def decide(plan: Plan, state: DeploymentState, findings: Findings, past: Past, now: datetime) -> Decision:
    """What is done at this look, and why: the first rule that has something to say. `now` is the product's time.

    What stops comes first, whatever else holds; nothing goes forward without proof, and what waits says for what.
    """
    about = state.slots.get(SlotName.CANARY) or state.slots.get(SlotName.PRODUCTION)
    if (policy := plan.policy or plan.production) is None:
        return _blind(plan, state, about, now)
    situation = Situation(plan, policy, state, findings, past, now)
    if plan.policy is None:
        return _production_harms(situation) or _blind(plan, state, about, now)
    decisions = (rule(situation) for rule in _RULES)
    return next((found for found in decisions if found is not None), None) or _goes_on(situation)


def _blind(plan: Plan, state: DeploymentState, about: str | None, now: datetime) -> Decision:
    """Without its policy nothing is known of what serves, and nothing moves."""
    serves = about is not None
    return Decision(
        product=state.product,
        action=Action.HOLD,
        release_id=about,
        reason=f"What is watched cannot be known. {plan.unreadable}" if serves else "Nothing serves.",
        epoch=state.epoch,
        at=now,
        waits_for=(
            "a release with a monitor policy that can be read" if serves else "a release that passes its gates",
        ),
        incident="the monitor policy cannot be read" if serves else None,
    )


def _canary_harms(found: Situation) -> Decision | None:
    if found.canary is None:
        return None
    failed, broken = _failed(found.findings.readings), found.broken_by(found.canary)
    if found.shared:
        # Given that somebody had a bad answer, which arm he was in is a draw: that, what both suffer cannot distort.
        rates = {metric.metric for metric in found.policy.metrics if isinstance(metric, RateMetric)}
        failed = [reading for reading in failed if reading.metric in rates]
    if not failed and not broken:
        return None
    incident = f"canary {found.canary[:12]} did harm"
    return found.decided(Action.ABORT, _because(broken, failed), about=found.canary, incident=incident)


def _production_harms(found: Situation) -> Decision | None:
    if found.production is None:
        return None
    # A running mean may be of what both suffer, and can wait for its end; a limit is excused by its own signal only.
    failed, broken = [] if found.shared else _its_own(found), found.broken_by(found.production)
    if not failed and not broken:
        return None
    reason, incident = _because(broken, failed), f"production {found.production[:12]} did harm"
    if found.past.left_to_people:
        frozen = "The product is frozen for such harm: a person decides what is next."
        return _no_further(found, f"{reason} {frozen}", incident)
    since = found.past.since_rollback
    if since is not None and since < found.policy.moves.cool_down_minutes:
        common = "The release before it fell just now: two that fail one after the other have a common cause."
        return _no_further(found, f"{reason} {common}", incident)
    if found.capped:
        return _no_further(found, f"{reason} {found.too_many}", incident)
    if found.state.last_good is None:
        nothing = "There is no earlier release to go back to."
        return found.decided(
            Action.HOLD, f"{reason} {nothing}", about=found.production, waits=A_PERSON, incident=incident
        )
    return found.decided(Action.ROLL_BACK, reason, about=found.production, incident=incident)


def _its_own(found: Situation) -> list[MetricReading]:
    """What production failed by itself; beside a canary with users only what that is proven to do better.

    An outage that both suffered stays in the mean for hours after its end, and would be told of whoever serves.
    """
    beside = {one.metric: one for one in found.findings.readings if one.canary and one.canary.users}
    failed = _failed(found.findings.alone)
    return failed if found.canary is None else [one for one in failed if _is_better(beside.get(one.metric))]


def _is_better(canary: MetricReading | None) -> bool:
    if canary is None:
        return True
    none = 1.0 if canary.kind == "quantile" else 0.0
    return canary.effect_upper is not None and canary.effect_upper < none


def _no_further(found: Situation, reason: str, incident: str) -> Decision:
    """Freezes once, and holds until somebody lets it go on: the rest is for people."""
    action = Action.HOLD if found.state.frozen else Action.FREEZE
    return found.decided(action, reason, about=found.production, waits=A_PERSON, incident=incident)


def _both_suffer(found: Situation) -> Decision | None:
    if not found.shared:
        return None
    ails = " ".join(sorted(found.shared.values()))
    reason = f"{ails} It is not the canary's fault: nothing moves."
    waits = ("an end of what ails both arms",)
    return found.decided(Action.HOLD, reason, about=found.canary, waits=waits, incident="both arms are degraded")


def _flaps(found: Situation) -> Decision | None:
    if found.state.frozen or found.past.moves_today <= found.policy.moves.max_per_day:
        return None
    return found.decided(Action.FREEZE, found.too_many, about=found.canary or found.production, incident=FLAPS)


def _stands_still(found: Situation) -> Decision | None:
    """What keeps everything where it is, whatever was measured."""
    about = found.canary or found.production
    if found.state.frozen:
        reason = f"The product is frozen: {found.state.frozen}"
        return found.decided(Action.HOLD, reason, about=about, waits=("`mlp unfreeze`",))
    if found.canary is None:
        return _opens(found)
    if found.production is None:
        reason = "Nothing is in production to compare the canary with."
        return found.decided(Action.HOLD, reason, about=about, waits=("an operator: `mlp promote`",))
    if found.state.releases.get(found.canary) is ReleaseState.PAUSED:
        return found.decided(Action.HOLD, "The canary is paused.", about=about, waits=("an operator: `mlp resume`",))
    if found.past.rebased:
        reason = "Production is another release than the one that the canary was opened beside."
        return found.decided(Action.PAUSE, reason, about=about, incident="the canary lost what it is compared with")
    return None


def _opens(found: Situation) -> Decision:
    release_id, waits = found.past.waiting, cool_down(found)
    if release_id is None:
        waits = ["a release that passes its gates"]
        return found.decided(Action.HOLD, "There is no canary.", about=found.production, waits=waits)
    reason = f"Release {release_id[:12]} became eligible while the product was frozen."
    if waits:
        return found.decided(Action.HOLD, reason, about=release_id, waits=waits)
    return _forward(found, Action.OPEN, reason, release_id)


def _goes_on(found: Situation) -> Decision:
    """A canary beside production that nothing speaks against: up a step, into production, or what it waits for."""
    canary, steps = found.canary or "", found.plan.canary.steps if found.plan.canary else ()
    at, share = found.state.canary_step, f"{found.state.exposure:.0%}"
    last = at >= len(steps)
    waits = [*cool_down(found), *step(found), *measurements(found, last=last)]
    waits = waits or (sign_off(found) if last else [])
    if waits:
        reason = f"The canary stays at step {at} of {len(steps)}, {share} of the users."
        return found.decided(Action.HOLD, reason, about=canary, waits=waits)
    if last:
        names = ", ".join(metric.metric for metric in found.policy.metrics)
        return _forward(found, Action.PROMOTE, f"Proven to be no worse by its margin: {names}.", canary)
    reason = f"Nothing speaks against it at {share} of the users: on to {steps[at]:.0%}."
    return _forward(found, Action.STEP_UP, reason, canary)


def _forward(found: Situation, action: Action, reason: str, about: str) -> Decision:
    if found.capped:
        return found.decided(Action.FREEZE, f"{found.too_many} Next: {action}.", about=about, incident=FLAPS)
    return found.decided(action, reason, about=about)


def _failed(readings: Iterable[MetricReading]) -> list[MetricReading]:
    return sorted((one for one in readings if one.verdict is Verdict.FAIL), key=lambda reading: reading.metric)


def _because(broken: Iterable[Breach], failed: Iterable[MetricReading]) -> str:
    """The broken limits and failed metrics, as sentences; the same whatever order they came in."""
    said = [f"Hard limit: {breach.sentence}" for breach in broken]
    said += [f"{reading.metric}: {reading.reason}" for reading in failed]
    return " ".join(f"{one.rstrip('.')}." for one in said)


_RULES: tuple[Callable[[Situation], Decision | None], ...] = (
    _canary_harms,
    _production_harms,
    _both_suffer,
    _flaps,
    _stands_still,
)
