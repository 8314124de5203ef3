"""How often the whole decide function is wrong and how soon it is right, beside two rules that many canaries follow.

    python -m benchmarks.canary --rollouts 200 --out results/canary.json

Simulated users with habits of their own (some meet errors often), assigned by a fixed draw, ask 600 times a minute;
in half of the rollouts an outage of five minutes makes 40 % of all answers errors. At every look the real readings are
made and the real `decide` decides, with hard limits and common causes. Beside it, on the same answers: a fixed
threshold (abort when more than 8 % of the canary's answers of the last minute are errors) and a z-test of both arms'
errors so far, looked at every minute.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.crowd import BEGIN, Crowd, World
from benchmarks.trace import machine
from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.monitor_policy import HardLimit, MonitorPolicy
from ml_platform.contracts.monitoring import Action, Breach
from ml_platform.contracts.policy import CanaryPlan, SlotName
from ml_platform.contracts.routing import Cohort
from ml_platform.release.assess import assess_against, broken, suffer_together
from ml_platform.release.decide import Findings, Past, Plan, decide
from tests.samples.monitoring import monitor_policy

PRODUCTION, CANARY = "a" * 64, "b" * 64
METRICS = [
    {"kind": "rate", "metric": "error_rate", "signal": "error", "margin": 0.02, "at_most": 0.2},
    {"kind": "rate", "metric": "dislike_rate", "signal": "disliked", "margin": 0.05, "at_most": 0.3},
    {"kind": "rate", "metric": "missed_rate", "signal": "missed", "margin": 0.05, "at_most": 0.6},
    {
        "kind": "quantile",
        "metric": "latency_p95",
        "signal": "latency_ms",
        "quantile": 0.95,
        "margin": 0.5,
        "at_most": 12_000,
    },
]
LIMIT = {"signal": "error", "at_most": 0.3, "window_seconds": 60, "min_count": 20}
FIXED_THRESHOLD = 0.08
Z_95 = 1.6449


def policy() -> MonitorPolicy:
    """The policy of the benchmark: four metrics, alpha and beta of 5 % over all of them and all looks."""
    moves = {"cool_down_minutes": 0, "max_per_day": 100, "min_users": 30}
    return monitor_policy(metrics=METRICS, hard_limits=[LIMIT], moves=moves, alpha=0.05, beta=0.05)


@dataclass(frozen=True)
class Scenario:
    """A world, how long it is looked at and how often, and by which plan the canary goes on."""

    name: str
    world: World
    looks: int
    minutes_per_look: int = 1
    steps: tuple[float, ...] = (0.05,)
    minutes_per_step: float = 525_600.0
    outage_in: float = 0.5
    """Share of the rollouts in which there is one."""


@dataclass
class Outcome:
    """How one rollout ended, and when each rule aborted it; minutes, None for never."""

    ended: str
    minute: int
    fixed: int | None = None
    z_test: int | None = None
    metric: str = ""


WEEK = World(per_minute=60, label_minutes=360, errors=0.01)
SCENARIOS = (
    Scenario("healthy, 5 % errors", World(), looks=60),
    Scenario("healthy, 5 % errors, always an outage", World(), looks=60, outage_in=1.0),
    Scenario("errors 5 % to 10 %", World(times_errors=2.0), looks=60),
    Scenario("errors 3 % to 6 %", World(errors=0.03, times_errors=2.0), looks=60),
    Scenario("healthy, labels after 6 h", WEEK, 96, 30, (0.05, 0.2, 0.5), 60.0),
    Scenario("5 points worse, labels after 6 h", replace(WEEK, more_missed=0.05), 96, 30, (0.05, 0.2, 0.5), 60.0),
    Scenario("10 points worse, labels after 6 h", replace(WEEK, more_missed=0.1), 96, 30, (0.05, 0.2, 0.5), 60.0),
)


def play(scenario: Scenario, seed: int) -> Outcome:
    """One rollout, until it is decided or the looks are over."""
    rng = np.random.default_rng([seed, sum(map(ord, scenario.name))])
    minutes = scenario.looks * scenario.minutes_per_look
    crowd = Crowd(scenario.world, minutes, rng, outage=rng.random() < scenario.outage_in)
    rules, plan = (
        policy(),
        Plan(CanaryPlan(steps=scenario.steps, min_minutes_per_step=scenario.minutes_per_step), policy()),
    )
    outcome, step, since, known = Outcome("waits", minutes), 1, 0, {False: 0, True: 0}
    for _ in range(scenario.looks):
        crowd.pass_minutes(scenario.minutes_per_look, scenario.steps[step - 1])
        note_others(outcome, crowd)
        state = DeploymentState(
            product="simulated",
            epoch=step,
            canary_step=step,
            exposure=scenario.steps[step - 1],
            slots={SlotName.PRODUCTION: PRODUCTION, SlotName.CANARY: CANARY},
            releases={PRODUCTION: ReleaseState.PRODUCTION, CANARY: ReleaseState.CANARY},
        )
        users = {
            arm: crowd.users_in(arm is Cohort.CANARY) - known[arm is Cohort.CANARY]
            for arm in (Cohort.PRODUCTION, Cohort.CANARY)
        }
        past = Past(step_minutes=float(crowd.minute - since), users=users, since_move=float(crowd.minute - since))
        decision = decide(plan, state, findings(crowd, rules), past, BEGIN + timedelta(minutes=crowd.minute))
        if decision.action is Action.STEP_UP:
            step, since, known = step + 1, crowd.minute, {arm: crowd.users_in(arm) for arm in (False, True)}
        elif decision.action is not Action.HOLD:
            outcome.ended, outcome.minute = decision.action.value, crowd.minute
            outcome.metric = decision.reason.split(":")[0]
            return outcome
    return outcome


def findings(crowd: Crowd, rules: MonitorPolicy) -> Findings:
    """What the crowd shows by now."""
    readings = tuple(assess_against(metric, crowd, rules) for metric in rules.metrics)
    limit = HardLimit.parse(LIMIT, where="the benchmark")
    arms = {PRODUCTION: crowd.window.production, CANARY: crowd.window.canary}
    breaches = tuple(
        Breach(release_id=release, signal=limit.signal, bad=bad, answers=n, at_most=limit.at_most, window_seconds=60.0)
        for release, (bad, n) in arms.items()
        if broken(limit, bad, n)
    )
    together = suffer_together(limit, crowd.window.production, crowd.window.canary)
    return Findings(readings, (), breaches, {limit.signal: "Both arms suffer."} if together else {})


def note_others(outcome: Outcome, crowd: Crowd) -> None:
    """When the two other rules would have aborted; neither minds anything else."""
    bad, answers = crowd.window.canary_answers
    if outcome.fixed is None and answers and bad / answers > FIXED_THRESHOLD:
        outcome.fixed = crowd.minute
    (bad_p, n_p), (bad_c, n_c) = crowd.seen[False], crowd.seen[True]
    pooled = (bad_p + bad_c) / (n_p + n_c)
    error = math.sqrt(pooled * (1 - pooled) * (1 / max(n_p, 1) + 1 / max(n_c, 1)))
    if outcome.z_test is None and error and (bad_c / max(n_c, 1) - bad_p / max(n_p, 1)) / error > Z_95:
        outcome.z_test = crowd.minute


def median(values: Iterable[int | None]) -> float | None:
    """Of those that are there."""
    there = [value for value in values if value is not None]
    return float(np.median(there)) if there else None


def table(scenario: Scenario, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What came of a scenario's rollouts."""
    n = len(outcomes)
    aborted = [one for one in outcomes if one.ended == Action.ABORT]
    promoted = [one for one in outcomes if one.ended == Action.PROMOTE]
    return {
        "scenario": scenario.name,
        "rollouts": n,
        "aborted": len(aborted) / n,
        "aborted_median_minute": median(one.minute for one in aborted),
        "promoted": len(promoted) / n,
        "promoted_median_minute": median(one.minute for one in promoted),
        "fixed_threshold_aborted": sum(one.fixed is not None for one in outcomes) / n,
        "fixed_threshold_median_minute": median(one.fixed for one in outcomes),
        "peeked_z_test_aborted": sum(one.z_test is not None for one in outcomes) / n,
        "peeked_z_test_median_minute": median(one.z_test for one in outcomes),
        "reasons": {
            name: sum(one.metric == name for one in aborted) for name in sorted({one.metric for one in aborted})
        },
        "frozen_or_paused": sum(one.ended not in ("waits", Action.ABORT, Action.PROMOTE) for one in outcomes) / n,
    }


def run(seeds: range, processes: int, names: Sequence[str]) -> dict[str, Any]:
    """All scenarios."""
    begin, tables = time.perf_counter(), []
    with ProcessPoolExecutor(processes) as pool:
        for scenario in SCENARIOS:
            if names and scenario.name not in names:
                continue
            outcomes = list(pool.map(partial(play, scenario), seeds, chunksize=max(1, len(seeds) // 50)))
            tables.append(table(scenario, outcomes))
            print(json.dumps(tables[-1]), f"{time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return {"machine": machine(), "wall_s": time.perf_counter() - begin, "tables": tables}


def main() -> None:
    """Prints the results as JSON, and writes them to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first rollout")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scenario", action="append", default=[])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = json.dumps(
        run(range(arguments.first, arguments.first + arguments.rollouts), arguments.processes, arguments.scenario),
        indent=2,
    )
    print(found)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(found)


if __name__ == "__main__":
    main()
