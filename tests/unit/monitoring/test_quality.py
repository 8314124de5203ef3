"""Whether quality fell: a fall is proven and as large as the margin, and nothing else is one."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import MonitorPolicy, Signal
from ml_platform.contracts.monitoring import Seen
from ml_platform.contracts.provenance import LoggedContract
from ml_platform.contracts.routing import Cohort
from ml_platform.contracts.windows import QualityChange, QualityReport
from ml_platform.errors import StorageError
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.monitoring.drawing import draw_changes
from ml_platform.monitoring.past import Past
from ml_platform.monitoring.quality import Period, compare, judge_quality, make_quality_report
from tests.samples.monitoring import MONITOR_POLICY, monitor_policy
from tests.samples.observed import make_answer, put, releases
from tests.samples.provenance import NOW, PRODUCT, RELEASES, make_outcome, response_id_of

HOUR = timedelta(hours=1)
METRICS = [
    {"kind": "rate", "metric": "error_rate", "signal": "error", "margin": 0.05, "at_most": 0.2},
    {"kind": "rate", "metric": "missed_rate", "signal": "missed", "margin": 0.1, "at_most": 0.5},
]
POLICY = monitor_policy(metrics=METRICS)


def period(bad: int, answers: int, *, users: int | None = None, labelled: float = 1.0) -> Period:
    """Answers of which so many missed something, each of a user of its own unless there are fewer `users`."""
    found = Period()
    for number in range(answers):
        known = number < labelled * answers
        signals = {Signal.MISSED: float(number < bad)} if known else {}
        found.add(
            Seen(
                response_id=response_id_of(number),
                release_id=RELEASES[0],
                cohort=Cohort.PRODUCTION,
                epoch=1,
                exposure=0.0,
                at=NOW,
                answered_at=NOW,
                user=str(number % (users or answers)),
                signals=signals,
                mature=True,
                labelled=known,
            )
        )
    return found


def change(before: Period, now: Period, policy: MonitorPolicy = POLICY) -> QualityChange:
    (one,) = compare(before, now, policy)
    return one


@pytest.mark.parametrize(
    ("before", "now", "verdict", "said"),
    [
        (period(100, 1000), period(300, 1000), Verdict.FAIL, "worse by 20.0%"),
        (period(100, 1000), period(100, 1000), Verdict.PASS, "worse by 2.3% at most"),
        (period(300, 1000), period(100, 1000), Verdict.PASS, "at most"),
        (period(100, 1000), period(185, 1000), Verdict.INCONCLUSIVE, "too few answers to tell"),
        (period(2, 20), period(6, 20), Verdict.INCONCLUSIVE, "too few answers to tell"),
        (Period(), period(100, 1000), Verdict.INCONCLUSIVE, "no earlier days"),
        (Period(), period(600, 1000), Verdict.FAIL, "above 50%"),
        (period(550, 1000), period(560, 1000), Verdict.FAIL, "above 50%"),
        (period(100, 1000), Period(), Verdict.INCONCLUSIVE, "no answer shows it"),
        (period(10, 1000, labelled=0.4), period(500, 1000), Verdict.INCONCLUSIVE, "400 of 1,000 mature answers in the"),
        (period(100, 1000), period(400, 1000, labelled=0.4), Verdict.INCONCLUSIVE, "answers now have a label"),
    ],
    ids=lambda value: "" if isinstance(value, Period) else str(value),
)
def test_a_fall_is_proven_and_large_or_it_is_none(before: Period, now: Period, verdict: Verdict, said: str) -> None:
    found = change(before, now)
    assert found.verdict is verdict, found.reason
    assert said in found.reason
    assert (found.effect >= 1.0) is (verdict is Verdict.FAIL) or verdict is Verdict.INCONCLUSIVE


def test_the_answers_of_a_few_users_prove_no_fall() -> None:
    many, few = period(100, 1000), period(300, 1000, users=4)
    # Three of four users had only bad answers, or so it looks: whole users count.
    assert change(many, few).verdict is not Verdict.PASS
    lonely = Period()
    for seen_by_one in range(50):
        lonely.add(_one(seen_by_one))
    assert change(many, lonely).verdict is Verdict.INCONCLUSIVE


def _one(number: int) -> Seen:
    return Seen(
        response_id_of(number), RELEASES[0], Cohort.PRODUCTION, 1, 0.0, NOW, NOW, "u", {Signal.MISSED: 1.0}, True, True
    )


def test_only_rates_of_quality_are_compared() -> None:
    assert [one.metric for one in compare(Period(), Period(), POLICY)] == ["missed_rate"]
    assert judge_quality(compare(Period(), Period(), monitor_policy(metrics=METRICS[:1])))[0] is Verdict.INCONCLUSIVE


@given(st.integers(1, 60), st.data())
def test_more_bad_answers_now_never_give_a_better_verdict(answers: int, data: st.DataObject) -> None:
    order = [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS]
    before = period(data.draw(st.integers(0, 40)), 40)
    fewer = data.draw(st.integers(0, answers - 1))
    better, worse = (change(before, period(bad, answers)) for bad in (fewer, data.draw(st.integers(fewer, answers))))
    assert order.index(worse.verdict) <= order.index(better.verdict)
    assert worse.effect >= better.effect


def test_without_a_fall_one_is_told_of_no_more_often_than_alpha() -> None:
    rng, policy, told = np.random.default_rng(7), monitor_policy(metrics=METRICS[1:]), 0
    for _ in range(200):
        before, now = (period(int(rng.binomial(150, 0.3)), 150) for _ in range(2))
        told += change(before, now, policy).verdict is Verdict.FAIL
    # alpha is 0.05, and a fall takes a margin of 0.1 on top.
    assert told <= 0.05 * 200


def test_one_fall_among_many_metrics_is_one_and_no_fall_takes_all() -> None:
    changes = [change(period(100, 1000), period(bad, 1000)) for bad in (100, 300)]
    assert judge_quality(changes)[0] is Verdict.FAIL
    assert judge_quality(changes[:1])[0] is Verdict.PASS
    unclear = change(period(2, 20), period(6, 20))
    assert judge_quality([changes[0], unclear])[0] is Verdict.INCONCLUSIVE
    assert judge_quality([*changes, unclear])[0] is Verdict.FAIL


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProvenanceStore]:
    opened = ProvenanceStore(f"sqlite:///{tmp_path / 'provenance.sqlite'}")
    yield opened
    opened.close()


DAILY = monitor_policy(metrics=METRICS[1:], drift=MONITOR_POLICY["drift"] | {"window_days": 1}, label_age_hours=6)
SINCE = datetime.fromisoformat("2013-04-01T00:00Z")


def answered(day: int, bad: int, count: int, **changes: Any) -> list[LoggedContract]:
    """Answers of a day about flights that all were late, of which so many were not called so."""
    values: list[LoggedContract] = []
    for number in range(count):
        name = 1000 * day + number
        at = SINCE + timedelta(days=day - 1) + HOUR + timedelta(seconds=number)
        entity = {"flight_id": f"flight {name}"}
        named: dict[str, Any] = {
            "answered_at": at,
            "entity": entity,
            "cohort": Cohort.PRODUCTION,
            "release_id": RELEASES[0],
            "user_sha256": f"{name:064x}",
        }
        values.append(make_answer(name, risk="low" if number < bad else "high", **named | changes))
        told = {"occurred_at": at + HOUR, "received_at": at + HOUR, "values": {"late": True}}
        values.append(make_outcome(name, entity=entity, **told))
    return values


def report(store: ProvenanceStore, day: int, release_id: str | None = RELEASES[0], hours: float = 0.0) -> QualityReport:
    """The report of a day, made so many hours after its end."""
    end = SINCE + timedelta(days=day)
    past = Past(store, PRODUCT, releases(), 6 * HOUR, wall=lambda: end + hours * HOUR)
    return make_quality_report(past, date(2013, 4, day), release_id, SINCE, DAILY)


def test_a_fall_after_the_first_days_is_found_and_kept_as_evidence(store: ProvenanceStore) -> None:
    put(store, *answered(1, 10, 100), *answered(4, 60, 100))
    good, fallen = report(store, 1), report(store, 4)
    assert good.verdict is Verdict.INCONCLUSIVE
    assert "no earlier days" in good.reason
    assert (fallen.verdict, fallen.fallen) == (Verdict.FAIL, ("missed_rate",))
    assert fallen.effect == pytest.approx(5.0)
    assert (fallen.labelled, fallen.release_id) == (100, RELEASES[0])
    assert fallen.before_from == SINCE
    assert draw_changes(fallen).startswith("<svg")
    assert draw_changes(good) == ""


def test_made_later_the_report_of_a_day_is_the_same(store: ProvenanceStore) -> None:
    put(store, *answered(1, 10, 100), *answered(4, 30, 100))
    first = report(store, 4)
    put(store, *answered(5, 90, 100))
    assert report(store, 4, hours=48.0) == first
    assert report(store, 4, hours=48.0).evidence_sha256 == first.evidence_sha256


def test_a_copy_for_the_shadow_brings_no_further_label(store: ProvenanceStore) -> None:
    put(store, *answered(3, 10, 30))
    copies = answered(3, 10, 30, cohort=Cohort.SHADOW, shadow_of=response_id_of(1))
    named = [one.model_copy(update={"response_id": f"copy-{n:08d}"}) for n, one in enumerate(copies[::2])]
    put(store, *named, segment="2-b.wal")
    assert report(store, 3).labelled == 30


def test_other_releases_and_arms_are_not_its_quality(store: ProvenanceStore) -> None:
    put(store, *answered(1, 10, 100), *answered(3, 10, 100))
    put(store, *answered(3, 100, 100, cohort=Cohort.CANARY, release_id=RELEASES[1], answered_at=SINCE + 50 * HOUR))
    found = report(store, 3)
    assert (found.verdict, found.metrics[0].now.answers) == (Verdict.PASS, 100)


def test_a_day_that_is_not_over_and_a_product_without_production_prove_nothing(store: ProvenanceStore) -> None:
    put(store, *answered(1, 10, 100), *answered(3, 90, 100))
    early = report(store, 3, hours=-1.0)
    assert early.verdict is Verdict.INCONCLUSIVE
    assert "not over" in early.reason
    nobody = report(store, 3, release_id=None)
    assert (nobody.verdict, nobody.reason) == (Verdict.INCONCLUSIVE, "No release is in production.")


def test_a_day_without_traffic_proves_nothing(store: ProvenanceStore) -> None:
    found = report(store, 4)
    assert (found.verdict, found.labelled, found.effect) == (Verdict.INCONCLUSIVE, 0, 0.0)


def test_a_store_that_is_down_is_an_error_and_no_report(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="provenance store"):
        report(ProvenanceStore(f"postgresql://nobody@/nothing?host={tmp_path}"), 3)
