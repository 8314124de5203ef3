"""Decisions, whatever was seen: worse data never gives a better one, order never matters, nothing goes unproven."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import Action, Breach, Decision, MetricReading
from ml_platform.contracts.policy import CanaryPlan, SlotName
from ml_platform.contracts.routing import Cohort
from ml_platform.release.decide import decide
from ml_platform.release.situation import Findings, Past, Plan
from tests.samples.monitoring import monitor_policy

NOW = datetime(2013, 4, 1, 6, 0, tzinfo=UTC)
PRODUCTION, CANARY = "a" * 64, "b" * 64
METRICS = ("one", "two", "three")
RATES = [{"kind": "rate", "metric": name, "signal": "error", "margin": 0.05, "at_most": 0.2} for name in METRICS]
POLICY = monitor_policy(metrics=RATES, sign_off={"always": True, "cost_rises_by": None})
PLAN = Plan(CanaryPlan(steps=(0.05, 0.2, 0.5), min_minutes_per_step=30), POLICY)
WORSE = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.FAIL)
RANK = {
    Action.PROMOTE: 3,
    Action.STEP_UP: 2,
    Action.OPEN: 2,
    Action.HOLD: 1,
    Action.PAUSE: 1,
    Action.FREEZE: 0,
    Action.ABORT: 0,
    Action.ROLL_BACK: 0,
}
minutes = st.none() | st.floats(0, 90)


def reading(metric: str, verdict: Verdict, e_value: float | None) -> MetricReading:
    return MetricReading(
        metric=metric,
        signal=Signal.ERROR,
        kind="rate",
        verdict=verdict,
        reason="r",
        production=None,
        canary=None,
        effect=None,
        effect_lower=None,
        effect_upper=None,
        limit=0.05,
        e_value=e_value,
        e_threshold=100.0,
    )


def breach(signal: Signal, release_id: str) -> Breach:
    return Breach(release_id=release_id, signal=signal, bad=9, answers=10, at_most=0.5, window_seconds=60)


evidence = st.none() | st.floats(0, 1e6)
readings = st.builds(
    lambda *given: tuple(reading(name, *one) for name, one in zip(METRICS, given, strict=True) if one),
    *[st.none() | st.tuples(st.sampled_from(WORSE), evidence)] * 3,
)
signals = st.sampled_from([Signal.ERROR, Signal.UNSAFE])
breaches = st.lists(st.builds(breach, signals, st.just(CANARY)), max_size=2)
pasts = st.builds(
    Past,
    step_minutes=minutes,
    users=st.dictionaries(st.sampled_from([Cohort.PRODUCTION, Cohort.CANARY]), st.integers(0, 40)),
    since_move=minutes,
    since_rollback=minutes,
    moves_today=st.integers(0, 8),
    signed_off=st.booleans(),
    rebased=st.booleans(),
)
causes = st.dictionaries(signals, st.just("both suffer"), max_size=2)
findings = st.builds(Findings, readings=readings, breaches=breaches, common_causes=causes)


@st.composite
def states(draw: Any) -> DeploymentState:
    step = draw(st.integers(1, 3))
    where = draw(st.sampled_from([ReleaseState.CANARY, ReleaseState.CANARY, ReleaseState.PAUSED]))
    return DeploymentState(
        product="assistant",
        epoch=3,
        canary_step=step,
        slots={SlotName.PRODUCTION: PRODUCTION, SlotName.CANARY: CANARY},
        exposure=(0.05, 0.2, 0.5)[step - 1],
        releases={PRODUCTION: ReleaseState.PRODUCTION, CANARY: where},
        frozen=draw(st.none() | st.none() | st.just("why")),
    )


def decided(state: DeploymentState, found: Findings, past: Past) -> Decision:
    return decide(PLAN, state, found, past, NOW)


@given(states(), findings, pasts, st.data())
def test_worse_data_never_gives_a_better_decision(
    state: DeploymentState, found: Findings, past: Past, data: st.DataObject
) -> None:
    """A worse verdict, more evidence of harm, one metric less, fewer users, a broken limit more."""

    def worse(one: MetricReading) -> MetricReading | None:
        verdict = data.draw(st.sampled_from(WORSE[WORSE.index(one.verdict) :]))
        if verdict is not Verdict.FAIL and data.draw(st.integers(0, 9)) == 0:
            return None
        more = data.draw(st.floats(1, 100))
        return one.model_copy(update={"verdict": verdict, "e_value": one.e_value and one.e_value * more})

    after = [one for one in map(worse, found.readings) if one is not None]
    limits = [*found.breaches, *data.draw(breaches)]
    fewer = replace(
        past,
        users={arm: data.draw(st.integers(0, users)) for arm, users in past.users.items()},
        step_minutes=past.step_minutes and past.step_minutes / data.draw(st.floats(1, 3)),
        since_move=past.since_move and past.since_move / data.draw(st.floats(1, 3)),
    )
    before = decided(state, found, past)
    then = decided(state, replace(found, readings=after, breaches=limits), fewer)
    assert RANK[then.action] <= RANK[before.action], (before.reason, then.reason)


@given(states(), findings, pasts, st.randoms(use_true_random=False))
def test_the_order_in_which_things_were_found_does_not_matter(
    state: DeploymentState, found: Findings, past: Past, chance: Any
) -> None:
    def mixed(things: Sequence[Any]) -> list[Any]:
        return chance.sample(list(things), len(things))

    other = replace(found, readings=mixed(found.readings), breaches=mixed(found.breaches))
    one, two = decided(state, found, past), decided(state, other, past)
    same = {"readings": ()}
    assert one.model_copy(update=same) == two.model_copy(update=same)


@given(states(), findings, pasts)
def test_nothing_goes_forward_without_proof(state: DeploymentState, found: Findings, past: Past) -> None:
    """Whatever the rest says, what a step and a promotion need is there."""
    decision = decided(state, found, past)
    if decision.action not in (Action.STEP_UP, Action.PROMOTE):
        return
    by_name = {one.metric: one for one in found.readings}
    assert set(by_name) == set(METRICS)
    assert not found.breaches
    assert state.frozen is None
    assert not found.common_causes
    assert all(past.users.get(arm, 0) >= 20 for arm in (Cohort.PRODUCTION, Cohort.CANARY))
    assert past.step_minutes is not None
    assert past.step_minutes >= 30
    assert past.moves_today < 6
    assert all(one.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE) for one in by_name.values())
    if decision.action is Action.PROMOTE:
        assert state.canary_step == 3
        assert past.signed_off
        assert all(one.verdict is Verdict.PASS for one in by_name.values())


@given(states(), findings, pasts)
def test_a_decision_is_what_it_was_when_it_is_read_again(state: DeploymentState, found: Findings, past: Past) -> None:
    decision = decided(state, found, past)
    assert Decision.parse(decision.model_dump(mode="json"), where="the ledger") == decision
    assert decided(state, found, past) == decision
    assert decision.reason
    assert decision.waits_for or decision.action is not Action.HOLD
