"""Production watched for ever: what is held stays bounded, and who starts anew decides on the same."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.home import Home
from ml_platform.contracts.monitor_policy import MonitorPolicy, Signal
from ml_platform.contracts.monitoring import Seen
from ml_platform.release.monitor_policies import MonitorPolicies
from ml_platform.release.stretches import DAY, Stretches, counts_since, stretch_of
from ml_platform.release.subject import subject_of
from ml_platform.release.traffic import Traffic
from tests.samples.monitoring import monitor_policy
from tests.samples.rollouts import WATCHED, Rollout
from tests.samples.seen import BEGIN, EPOCH, PRODUCTION, make_seen

POLICY = monitor_policy(metrics=[{"kind": "rate", "metric": "e", "signal": "error", "margin": 0.05, "at_most": 0.2}])
STRETCH = stretch_of(timedelta(hours=12))


def days(first: int, last: int) -> Iterator[Seen]:
    """Fifty users of production every day."""
    for number in range(50 * first, 50 * last):
        one = make_seen(number, canary=False, exposure=0.0, signals={Signal.ERROR: float(number % 10 == 0)})
        yield replace(one, answered_at=BEGIN + number * DAY / 50)


def watched_since(wall: datetime) -> Traffic:
    return Traffic(EPOCH, None, POLICY, EPOCH, Stretches(EPOCH, STRETCH, wall))


def alone(traffic: Traffic, wall: datetime) -> tuple[Any, ...]:
    return tuple(traffic.findings(None, PRODUCTION, wall).alone)


def test_who_watched_for_a_month_decides_on_what_one_sees_who_starts_now() -> None:
    long = watched_since(BEGIN)
    alone(long, BEGIN)
    for day in range(30):
        wall = BEGIN + (day + 1) * DAY
        long.add(days(day, day + 1))
        found = alone(long, wall)
        new = watched_since(wall)
        new.add(one for one in days(0, day + 1) if one.answered_at >= counts_since(wall, STRETCH))
        assert found == alone(new, wall)
    assert STRETCH <= wall - counts_since(wall, STRETCH) < 2 * STRETCH
    (reading,) = found
    assert 50 < reading.production.users <= 150
    assert reading.production.value == pytest.approx(0.1, abs=0.02)


def test_what_no_longer_counts_is_forgotten_though_nobody_asks_any_more_and_only_by_our_own_clock() -> None:
    traffic = watched_since(BEGIN)
    traffic.add(days(0, 1))
    ahead = make_seen(1_000, canary=False, exposure=0.0, signals={Signal.ERROR: 1.0})
    traffic.add([replace(ahead, answered_at=BEGIN + 400 * DAY)])
    assert alone(traffic, BEGIN + DAY)[0].production.users == 51
    traffic.add(days(1, 2))
    assert alone(traffic, BEGIN + 20 * DAY)[0].production.users in (0, 1)
    assert alone(traffic, BEGIN)[0].production.users in (0, 1)


@pytest.mark.parametrize("hours", [1, 72])
def test_who_starts_anew_reads_so_far_back_that_labels_of_a_day_are_mature(tmp_path: Path, hours: int) -> None:
    home, wall = Home(tmp_path / "home"), datetime.now(UTC)
    aged = MonitorPolicy.parse(WATCHED | {"label_age_hours": hours}, where="a sample")
    world = Rollout(home, home.ledger_url, watched=aged, now=wall - timedelta(days=30))
    world.serve(1)
    asked: list[tuple[timedelta, datetime | None]] = []

    def feed(age: timedelta, since: datetime | None) -> Any:
        asked.append((age, since))

    subject_of(world.controller.ledger.replay(world.product), MonitorPolicies(world.store), feed)
    ((age, since),) = asked
    assert since is not None
    assert age == timedelta(hours=hours)
    assert age + DAY <= datetime.now(UTC) - since < 2 * (age + DAY) + timedelta(minutes=1)
