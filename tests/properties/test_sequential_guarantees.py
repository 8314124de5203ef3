"""Promises of whole metrics, by seeded simulation: ramps, outages, users with habits; beside what would break them."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pytest

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import QuantileMetric, Signal
from ml_platform.contracts.monitoring import Seen
from ml_platform.release.assessing.compared import Comparison
from ml_platform.release.assessing.percentiles import balanced, log_e_slower
from ml_platform.release.assessing.strata import Strata, Stratum
from ml_platform.release.sequential.rates import Events
from ml_platform.release.tallies import Tally
from tests.samples.monitoring import monitor_policy
from tests.samples.seen import make_seen

STEPS = (0.1, 0.3, 0.5)
STRATA = tuple(Stratum(canary, exposure) for exposure in STEPS for canary in (False, True))
P95 = QuantileMetric(kind="quantile", metric="p95", signal=Signal.LATENCY_MS, quantile=0.95, margin=0.5, at_most=2_000)


@dataclass(frozen=True)
class Users:
    """Users in the order in which they come, while the exposure rises."""

    step: np.ndarray
    canary: np.ndarray
    x: np.ndarray

    def strata(self, seen: int) -> Strata:
        """The first so many of them."""
        draw = np.random.default_rng(1).random(len(self.x))
        return Strata(STRATA, (2 * self.step + self.canary)[:seen], self.x[:seen], draw[:seen])


def latencies(rng: np.random.Generator, n: int, times: float, spread: float = 0.5) -> Users:
    """Latencies of which the canary's are so many times as long; at the last step an overload triples all."""
    step = np.arange(n) * len(STEPS) // n
    canary = rng.random(n) < np.array(STEPS)[step]
    weather = np.where(step == len(STEPS) - 1, 3.0, 1.0)
    return Users(step, canary, 200.0 * rng.lognormal(0.0, spread, n) * weather * np.where(canary, times, 1.0))


def test_a_canary_slower_by_just_the_margin_is_seldom_said_to_be_beyond_it() -> None:
    alpha, stopped = 0.1, 0
    rng = np.random.default_rng(4)
    for _ in range(150):
        users = latencies(rng, 900, 1.5)
        looks = [log_e_slower(users.strata(seen), P95) for seen in range(90, 901, 90)]
        stopped += max(looks) >= -math.log(alpha)
    assert stopped / 150 <= alpha


def test_a_canary_three_times_as_slow_is_proven_to_be_with_a_few_hundred_users() -> None:
    rng = np.random.default_rng(5)
    proven = [log_e_slower(latencies(rng, 600, 3.0).strata(600), P95) >= math.log(100) for _ in range(40)]
    assert np.mean(proven) >= 0.95


def test_latencies_that_are_all_alike_are_compared_too() -> None:
    """A quantile of equal values has no spread; a canary beyond the margin is still told from one within it."""
    rng = np.random.default_rng(6)
    for times, slower in ((1.4, False), (2.0, True)):
        found = log_e_slower(latencies(rng, 300, times, spread=0.0).strata(200), P95)
        assert (found >= math.log(100)) is slower


def test_both_arms_of_a_balanced_comparison_saw_the_same_weather() -> None:
    """Pooled as they come, the canary looks slower, since most of its users came during the overload."""
    users = latencies(np.random.default_rng(7), 30_000, 1.0).strata(30_000)
    pooled = [np.quantile(users.of(canary), 0.5) for canary in (True, False)]
    alike = [np.quantile(balanced(users).of(canary), 0.5) for canary in (True, False)]
    assert alike[0] / alike[1] == pytest.approx(1.0, abs=0.06)
    assert pooled[0] / pooled[1] > 1.5, "the simulation would not notice"
    assert len(balanced(users).of(canary=True)) == pytest.approx(len(balanced(users).of(canary=False)), rel=0.05)


def crowd(rng: np.random.Generator, users: int, worse: float) -> tuple[np.ndarray, np.ndarray]:
    """Who is in the canary at an exposure of 0.3, and how many of ten answers are bad: of most none, of some half."""
    canary = rng.random(users) < 0.3
    prone = np.where(rng.random(users) < 0.04, 0.5, 0.0)
    return canary, rng.binomial(10, np.minimum(1.0, prone * np.where(canary, worse, 1.0)))


def test_users_who_always_meet_errors_are_no_evidence_by_the_number_of_their_answers() -> None:
    """Counted by answers, a few unlucky users abort a healthy canary in one of four rollouts; by users they do not."""
    rng, by_user, by_answer = np.random.default_rng(8), 0, 0
    for _ in range(300):
        canary, bad = crowd(rng, 600, 1.0)
        crossed = []
        for counts in (np.minimum(bad, 1), bad):
            arms = [np.where(canary == arm, counts, 0).cumsum().astype(float) for arm in (False, True)]
            looks = [Events(np.array([0.3]), arms[0][[n]], arms[1][[n]]).log_e for n in range(49, 600, 50)]
            crossed.append(max(looks) >= math.log(10))
        by_user, by_answer = by_user + crossed[0], by_answer + crossed[1]
    assert by_user / 300 <= 0.1
    assert by_answer / 300 > 0.15, "the simulation would not notice answers that are counted one by one"


def in_an_outage(rng: np.random.Generator, n: int, canary_errors: float, *, outage: bool) -> Iterator[Seen]:
    """Two answers a second at an exposure of 0.1; in the middle third production and canary fail alike."""
    for number in range(n):
        out = outage and n // 3 <= number < 2 * n // 3
        one = make_seen(number // 2, f"user {number}", exposure=0.1, response_id=f"response {number}")
        share = 0.6 if out else canary_errors if one.cohort == "canary" else 0.04
        yield replace(one, signals={Signal.ERROR: float(rng.random() < share)})


def verdict_and_evidence(seen: Iterator[Seen]) -> tuple[Verdict, float]:
    tally = Tally()
    tally.add(seen)
    found = tally.readings(monitor_policy(metrics=[POLICY]))[0]
    return found.verdict, found.e_value or 0.0


POLICY = {"kind": "rate", "metric": "error_rate", "signal": "error", "margin": 0.05, "at_most": 0.2}


def test_an_outage_that_both_arms_suffer_is_no_evidence_and_burns_none() -> None:
    healthy = [
        verdict_and_evidence(in_an_outage(np.random.default_rng(seed), 6_000, 0.04, outage=True)) for seed in range(8)
    ]
    assert Verdict.FAIL not in {verdict for verdict, _ in healthy}
    with_it = verdict_and_evidence(in_an_outage(np.random.default_rng(3), 6_000, 0.25, outage=True))
    without = verdict_and_evidence(in_an_outage(np.random.default_rng(3), 6_000, 0.25, outage=False))
    assert with_it[0] is without[0] is Verdict.FAIL
    assert with_it[1] > 1e6


def calm_evidence(arms: tuple[bool, ...], exposure: float, calm: float) -> tuple[float, float, int]:
    """By the first bad answers, and by whatever bad ones are not left out; with how many users count.

    Twenty good answers in each span of 20 s; a user a span begins to ask what fails, and asks it twice again.
    """
    compared, after_wild = Comparison(), {False: set[int](), True: set[int]()}
    asked = [(user, user + again) for user in range(len(arms)) for again in range(3)]
    wild = {span for user, span in asked if not arms[user]}
    for span in range(len(arms) + 3):
        for number in range(20):
            good = make_seen(20 * span, f"{span} {number}", exposure=exposure, response_id=f"{span} {number}")
            compared.add(replace(good, signals={Signal.ERROR: 0.0}), Stratum(good.cohort == "canary", exposure))
    for user, span in asked:
        bad = make_seen(20 * span + 5, f"user {user}", canary=arms[user], exposure=exposure)
        bad = replace(bad, signals={Signal.ERROR: 1.0}, response_id=f"{user} in {span}")
        compared.add(bad, Stratum(arms[user], exposure))
        if span - 1 not in wild:
            after_wild[arms[user]].add(user)
    first = compared.first_bad(Signal.ERROR, calm=calm)
    at = np.array([exposure])
    counts = (np.array([float(len(after_wild[arm]))]) for arm in (False, True))
    by_first = Events(first.exposures, *first.by_exposure(np.ones_like(first.x)))
    return math.exp(by_first.log_e), math.exp(Events(at, *counts).log_e), len(first.x)


@pytest.mark.parametrize("exposure", [0.2, 0.5])
def test_users_who_ask_again_what_fails_are_no_evidence_by_what_is_left_out_of_them(exposure: float) -> None:
    """All ways in which seven of them fall into the arms: expected is 1. Production's own retries make spans wild."""
    by_first, by_any, counted = 0.0, 0.0, set()
    for arms in itertools.product((False, True), repeat=7):
        chance = math.prod(exposure if canary else 1.0 - exposure for canary in arms)
        first, whatever, users = calm_evidence(arms, exposure, calm=0.03)
        by_first, by_any = by_first + chance * first, by_any + chance * whatever
        counted.add(users)
    assert by_first == pytest.approx(1.0)
    assert by_any > 1.1, "the enumeration would not notice who counts only because of his arm"
    assert min(counted) < max(counted), "no span was left out"


def test_a_release_worse_by_the_margin_seldom_passes_at_any_look() -> None:
    """Through the tally, with a look after every 100 users; the margin is 15 points and so is the harm."""
    metric = POLICY | {"margin": 0.15, "at_most": 0.9}
    policy = monitor_policy(metrics=[metric], beta=0.2, alpha=1e-6)
    rng, passed, good = np.random.default_rng(9), 0, 0
    for _ in range(40):
        worse, same = Tally(), Tally()
        ever = [False, False]
        for look in range(5):
            for number in range(100 * look, 100 * look + 100):
                one = make_seen(number, f"user {rng.integers(1 << 60)}")
                for tally, harm in ((worse, 0.15), (same, 0.0)):
                    share = 0.2 + harm * (one.cohort == "canary")
                    tally.add([replace(one, signals={Signal.ERROR: float(rng.random() < share)})])
            for place, tally in enumerate((worse, same)):
                ever[place] |= tally.readings(policy)[0].verdict is Verdict.PASS
        passed, good = passed + ever[0], good + ever[1]
    assert passed / 40 <= 0.2
    assert good / 40 >= 0.8, "a test that never passes anything keeps its promise, too"


def test_looking_during_an_outage_changes_nothing_of_what_is_seen_after_it() -> None:
    """Spans that were told calm or not at one look are told again once more of them is known."""
    seen = list(in_an_outage(np.random.default_rng(3), 1_500, 0.25, outage=True))
    policy, looked = monitor_policy(metrics=[POLICY]), Tally()
    for part in range(7):
        looked.add(seen[part::7])
        looked.readings(policy)
    at_once = Tally()
    at_once.add(seen)
    assert looked.readings(policy) == at_once.readings(policy)
    without = Tally()
    without.add(
        replace(one, answered_at=one.answered_at + number * timedelta(days=1)) for number, one in enumerate(seen)
    )
    assert without.readings(policy)[0].e_value != at_once.readings(policy)[0].e_value, "no span was left out"
