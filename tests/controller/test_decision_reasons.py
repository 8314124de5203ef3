"""What decisions say: every signal, what is waited for, and whose signature is missing."""

from dataclasses import replace
from typing import Any

import pytest

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import MonitorPolicy, Signal
from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.routing import Cohort
from ml_platform.release.decide import decide
from ml_platform.release.situation import Findings, Past, Plan
from ml_platform.release.tallies import Tally
from tests.samples.decisions import (
    ALONE_BAD,
    CANARY,
    COST,
    ERRORS,
    FINE,
    GOOD,
    HARMFUL,
    NOW,
    PLAN,
    POLICY,
    PRODUCTION,
    STEPS,
    UNSURE,
    breach,
    passing,
    reading,
    standing,
)
from tests.samples.monitoring import monitor_policy
from tests.samples.seen import make_seen


def test_a_hold_says_what_it_waits_for_and_what_could_be_seen_by_now() -> None:
    decision = decide(PLAN, standing(2), UNSURE, replace(GOOD, since_move=4, step_minutes=10), NOW)
    assert decision.waits_for == (
        "the cool-down after the last move: 6 minutes more",
        "the step: 20 minutes more",
        "error_rate: 40 users more (the smallest harm that could be seen by now is 0.07)",
    )


def test_an_abort_names_every_signal_whatever_order_they_came_in() -> None:
    failed = (reading(Verdict.FAIL), reading(Verdict.FAIL, "cost"))
    broken = (breach(CANARY), breach(CANARY, Signal.UNSAFE))
    one = decide(PLAN, standing(), Findings(failed, (), broken), GOOD, NOW)
    other = decide(PLAN, standing(), Findings(failed[::-1], (), broken[::-1]), GOOD, NOW)
    assert one.reason == other.reason
    assert one.reason == (
        "Hard limit: 8 of 10 users within 60 s: error. Hard limit: 8 of 10 users within 60 s: unsafe. "
        "cost: it was looked at. error_rate: it was looked at."
    )


@pytest.mark.parametrize(
    ("sign_off", "findings", "why"),
    [
        ({"always": True, "cost_rises_by": None}, FINE, "every promotion needs one"),
        ({"always": False, "cost_rises_by": 0.25}, Findings(readings=passing(canary=0.13)), "cost rises by 30%"),
        ({"always": False, "cost_rises_by": 0.25}, Findings(readings=passing(canary=None)), "nobody can tell"),
    ],
)
def test_a_promotion_waits_for_a_signature_where_the_policy_asks(sign_off: Any, findings: Findings, why: str) -> None:
    policy = monitor_policy(metrics=[ERRORS, COST], sign_off=sign_off)
    waiting = decide(Plan(STEPS, policy), standing(2), findings, GOOD, NOW)
    assert waiting.action is Action.HOLD
    assert why in waiting.waits_for[0]
    assert decide(Plan(STEPS, policy), standing(2), findings, replace(GOOD, signed_off=True), NOW).action is (
        Action.PROMOTE
    )
    assert decide(Plan(STEPS, policy), standing(1), findings, GOOD, NOW).action is Action.STEP_UP


@pytest.mark.parametrize("cost", [0.1, 0.12, 0.05])
def test_a_cost_that_hardly_rises_needs_no_signature(cost: float) -> None:
    policy = monitor_policy(metrics=[ERRORS, COST], sign_off={"always": False, "cost_rises_by": 0.25})
    findings = Findings(readings=passing(canary=cost))
    assert decide(Plan(STEPS, policy), standing(2), findings, GOOD, NOW).action is Action.PROMOTE


def test_where_no_metric_watches_the_cost_a_rise_of_it_cannot_be_ruled_out() -> None:
    policy = monitor_policy(metrics=[ERRORS], sign_off={"always": False, "cost_rises_by": 0.25})
    found = decide(Plan(STEPS, policy), standing(2), Findings(readings=(reading(Verdict.PASS),)), GOOD, NOW)
    assert "no metric tells" in found.waits_for[0]


def test_without_a_policy_nothing_moves_and_the_reason_is_told() -> None:
    decision = decide(Plan(STEPS, None, "It is of an older form."), standing(), HARMFUL, GOOD, NOW)
    assert decision.action is Action.HOLD
    assert "It is of an older form." in decision.reason
    assert decision.incident


def test_the_policy_that_judged_is_named() -> None:
    policy: MonitorPolicy = POLICY
    assert decide(PLAN, standing(), FINE, GOOD, NOW).monitor_policy_sha256 == policy.sha256


@pytest.mark.parametrize(
    ("state", "past", "action"),
    [
        ({}, GOOD, Action.ROLL_BACK),
        ({}, replace(GOOD, since_rollback=1), Action.FREEZE),
        ({"frozen": "why"}, replace(GOOD, since_rollback=1), Action.HOLD),
        ({"last_good": None}, GOOD, Action.HOLD),
    ],
)
def test_beside_a_canary_what_is_done_with_production_has_its_own_numbers(
    state: dict[str, Any], past: Past, action: Action
) -> None:
    """Not those of the canary against it, and the policy that judged production is the one that is named."""
    alone, own = ALONE_BAD.alone, monitor_policy(version="9.9.9", metrics=[ERRORS, COST])
    found = Findings(readings=(reading(Verdict.PASS, effect_upper=-0.01),), alone=alone)
    decision = decide(replace(PLAN, production=own), standing(**state), found, past, NOW)
    assert (decision.action, decision.release_id) == (action, PRODUCTION)
    assert decision.readings == alone
    assert decision.monitor_policy_sha256 == own.sha256
    assert decide(replace(PLAN, production=own), standing(), FINE, GOOD, NOW).monitor_policy_sha256 == POLICY.sha256


def test_the_rise_of_the_cost_is_the_canarys_whatever_the_weather_did_from_step_to_step() -> None:
    """Production has most of its users from the first step, at which everybody was dear; the canary costs 1.3 times."""
    dear = COST | {"ceiling": 5.0, "margin": 1.0, "at_most": 4.0}
    policy = monitor_policy(metrics=[dear], sign_off={"always": False, "cost_rises_by": 0.25})
    tally = Tally()
    for number in range(4_000):
        exposure, weather = ((0.05, 2.0), (0.5, 1.0))[number // 2_000]
        seen = make_seen(number, exposure=exposure)
        cost = weather * (1.3 if seen.cohort is Cohort.CANARY else 1.0)
        tally.add([replace(seen, signals={Signal.COST_USD: cost})])
    (found,) = tally.readings(policy)
    means = [arm.value for arm in (found.production, found.canary) if arm is not None and arm.value is not None]
    assert means[1] - means[0] == pytest.approx(found.effect)
    decision = decide(Plan(STEPS, policy), standing(2), Findings(readings=(found,)), GOOD, NOW)
    assert decision.action is Action.HOLD
    assert "the mean cost rises by 30%" in decision.waits_for[0]
