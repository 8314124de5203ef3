"""The benchmark's crowd is read as real answers are: the same counts, and the decide function comes to an end."""

import numpy as np
import pytest

from benchmarks.canary import SCENARIOS, Scenario, play, policy
from benchmarks.crowd import Crowd, World
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.release.assess import assess_against


def test_a_crowd_counts_every_user_once_and_in_the_arm_of_the_draw() -> None:
    crowd = Crowd(World(label_minutes=2), 6, np.random.default_rng(1), outage=False)
    for _ in range(6):
        crowd.pass_minutes(1, 0.2)
    first, bad = crowd.first(Signal.ERROR), crowd.first_bad(Signal.ERROR)
    assert len(first.x) == crowd.users_in(canary=True) + crowd.users_in(canary=False) <= 1_200
    assert crowd.users_in(canary=True) / len(first.x) == pytest.approx(0.2, abs=0.05)
    assert first.x.sum() <= len(bad.x) < len(first.x) / 2
    assert crowd.coverage(canary=True) == pytest.approx(0.9, abs=0.05)
    assert crowd.misassigned() is None


def test_readings_of_a_crowd_are_those_of_its_metrics() -> None:
    crowd = Crowd(World(), 5, np.random.default_rng(2), outage=True)
    crowd.pass_minutes(5, 0.5)
    found = [assess_against(metric, crowd, policy()) for metric in policy().metrics]
    assert [one.metric for one in found] == [metric.metric for metric in policy().metrics]
    assert found[2].verdict is Verdict.INCONCLUSIVE, "no label is mature"


def test_a_catastrophe_is_aborted_at_the_first_look() -> None:
    found = play(Scenario("catastrophe", World(errors=0.2, times_errors=5.0), looks=3, outage_in=0.0), 0)
    assert (found.ended, found.minute) == ("abort", 1)


def test_a_healthy_canary_without_labels_waits() -> None:
    found = play(Scenario("quiet", World(), looks=4, outage_in=0.0), 0)
    assert found.ended == "waits"
    assert {scenario.name for scenario in SCENARIOS} >= {"errors 5 % to 10 %"}
