"""A day of live traffic, arm by arm: what is counted, what is not, and what is said about it."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.guardrails import GuardrailVerdict, Stage
from ml_platform.contracts.provenance import FeedbackKind, LoggedContract, RecordedError
from ml_platform.contracts.routing import Cohort, RouteReason
from ml_platform.contracts.serving import ServingTime
from ml_platform.contracts.windows import ArmWindow, WindowReport
from ml_platform.errors import StorageError
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.monitoring.past import Past
from ml_platform.monitoring.windows import make_window_report
from tests.samples.observed import AGE, answer, make_answer, put, releases, without_features
from tests.samples.provenance import NOW, PRODUCT, RELEASES, make_feedback, make_outcome, response_id_of

DAY, HOUR = date(2013, 4, 1), timedelta(hours=1)


def report(store: ProvenanceStore, hours: float = 24.0, time: str = "clock", **options: Any) -> WindowReport:
    """The report of the day as it is known so many hours after its noon."""
    past = Past(store, PRODUCT, releases(time), AGE, wall=lambda: NOW + hours * HOUR, **options)
    return make_window_report(past, DAY)


def arm(found: WindowReport, cohort: Cohort) -> ArmWindow:
    (one,) = [one for one in found.arms if one.cohort is cohort]
    return one


def value(found: ArmWindow, name: str) -> float | None:
    measure = found.measure(name)
    assert measure is not None
    return measure.value


def test_arms_are_measured_each_for_itself(store: ProvenanceStore) -> None:
    bad: dict[str, Any] = {"route_reason": RouteReason.FELL_BACK, "release_id": RELEASES[0]}
    values: list[LoggedContract] = [make_answer(n) for n in range(1, 20) if n != 10]
    put(store, *values, make_answer(10, **bad), make_answer(20))
    found = report(store)
    # Nobody has a ledger here: who answered is who was assigned.
    assert [(one.cohort, one.answers) for one in found.arms] == [
        (Cohort.PRODUCTION, 18),
        (Cohort.CANARY, 1),
        (Cohort.CANARY, 1),
    ]
    assert [value(one, "error_rate") for one in found.arms] == [0.0, 1.0, 0.0]
    assert value(found.arms[0], "latency_p95") == 403.7
    assert value(found.arms[0], "cost_per_answer") == pytest.approx(0.000041)
    assert found.arms[0].said == {"intent": {"risk": 1.0}, "risk": {"low": 1.0}}
    assert (found.answers, found.longest_gap_seconds, found.notes) == (20, 1.0, ())


def test_a_user_who_asks_often_does_not_make_bounds_narrow(store: ProvenanceStore) -> None:
    everybody = [make_answer(n, cohort=Cohort.PRODUCTION, release_id=RELEASES[0]) for n in range(40)]
    alike: dict[str, Any] = {
        "product": "another",
        "cohort": Cohort.PRODUCTION,
        "release_id": RELEASES[0],
        "user_sha256": "f" * 64,
    }
    one = [make_answer(n, **alike) for n in range(100, 140)]
    put(store, *everybody, *one)
    wide = make_window_report(Past(store, "another", releases(), AGE, wall=lambda: NOW + 24 * HOUR), DAY)
    narrow = report(store).arms[0].measure("error_rate")
    measure = wide.arms[0].measure("error_rate")
    assert narrow is not None
    assert measure is not None
    assert (measure.users, measure.answers) == (1, 40)
    assert (narrow.high or 1.0) < 0.1 < 0.9 < (measure.high or 0.0)


def test_labels_are_counted_by_what_became_of_them(store: ProvenanceStore) -> None:
    def outcome(number: int, hours: float, late: object, key: str = "") -> LoggedContract:
        at = NOW + timedelta(seconds=number) + hours * HOUR
        named = {"idempotency_key": key or f"{number}", "values": {"late": late}}
        return make_outcome(number, occurred_at=at, received_at=at, **named)

    put(store, *(make_answer(n, risk="high" if n == 1 else "low") for n in range(1, 9)))
    put(store, outcome(1, 2, True), outcome(2, 2, True), outcome(2, 3, True, "again"), outcome(3, 7, True))
    put(store, outcome(4, 2, True), outcome(4, 3, False, "no"), outcome(5, -2, True), outcome(6, 2, "who knows"))
    put(store, make_answer(9, answered_at=NOW + 6 * HOUR))
    found = arm(report(store, hours=9), Cohort.PRODUCTION)
    assert (found.labels.mature, found.labels.labelled, found.labels.waiting) == (8, 2, 1)
    assert found.labels.coverage == 0.25
    assert found.labels.flaws == {"late": 1, "duplicate": 1, "contradictory": 2, "before_answer": 1, "unusable": 1}
    assert value(found, "missed_rate") == 0.5
    assert value(found, "false_alarm_rate") is None
    assert value(found, "warnings_that_came_true") == 1.0
    assert value(found, "cost_per_correct") == pytest.approx(2 * 0.000041)


def test_what_was_recorded_and_said_is_counted_by_kind(store: ProvenanceStore) -> None:
    note = RecordedError(kind="features_unknown", message="")
    put(store, make_answer(1, errors=(note,)), make_answer(2), make_feedback(1), make_feedback(2, idempotency_key="x"))
    put(store, make_feedback(2, kind=FeedbackKind.THUMBS_DOWN, given_at=NOW + 5 * HOUR))
    of_all = make_feedback(3, response_id=None, entity=make_answer(1).entity, kind=FeedbackKind.THUMBS_DOWN)
    put(store, of_all)
    found = report(store)
    (one,) = found.arms
    assert one.errors == {"features_unknown": 1}
    assert one.feedback == {"thumbs_down": 1, "thumbs_up": 2}
    assert value(one, "dislike_rate") == 0.5
    assert found.skewed == 1


def test_answers_of_other_days_and_products_are_not_in_the_window(store: ProvenanceStore) -> None:
    midnight = datetime.fromisoformat("2013-04-02T00:00Z")
    put(
        store,
        make_answer(1, answered_at=midnight),
        make_answer(2, answered_at=midnight - timedelta(microseconds=1)),
        make_answer(3, answered_at=midnight - timedelta(days=1)),
        make_answer(4, answered_at=midnight - timedelta(days=1, microseconds=1)),
        make_answer(5, product="another"),
    )
    assert report(store).answers == 2


def test_where_history_is_replayed_the_day_is_that_of_the_features(store: ProvenanceStore) -> None:
    spring = datetime.fromisoformat("2013-04-01T18:00Z")
    put(store, make_answer(1, published_at=spring - 24 * HOUR), make_answer(2, published_at=spring))
    put(store, without_features(make_answer(3)), make_answer(4, published_at=spring + 6 * HOUR))
    found = report(store, time="features")
    assert (found.time, found.answers, found.known_until) == (ServingTime.FEATURES, 2, spring + 6 * HOUR)
    assert found.notes == ()


def test_features_that_were_published_tell_that_a_day_is_over_though_nobody_asked(store: ProvenanceStore) -> None:
    spring = datetime.fromisoformat("2013-04-01T18:00Z")
    put(store, make_answer(2, published_at=spring))
    assert "not over" in report(store, time="features").notes[0]
    assert report(store, time="features", published=spring + 6 * HOUR).notes == ()


def test_a_day_without_traffic_says_so_and_one_that_is_not_over_too(store: ProvenanceStore) -> None:
    assert report(store).notes == ("Nobody asked.",)
    assert report(store).arms == ()
    put(store, make_answer(1))
    assert "not over" in report(store, hours=1).notes[0]


def test_shadows_and_operators_are_shown_beside_the_arms(store: ProvenanceStore) -> None:
    put(store, make_answer(1), make_answer(2, cohort=Cohort.SHADOW, shadow_of=response_id_of(1)))
    put(store, make_answer(3, cohort=Cohort.OPERATOR, route_reason=RouteReason.OVERRIDE))
    assert [one.cohort for one in report(store).arms] == [Cohort.PRODUCTION, Cohort.SHADOW, Cohort.OPERATOR]


def test_of_too_many_answers_the_same_are_drawn_each_time(store: ProvenanceStore) -> None:
    put(store, *(make_answer(number) for number in range(50)))
    first, second = (report(store, most=20) for _ in range(2))
    assert first == second
    assert (first.answers, first.sampled) == (20, True)
    assert "drawn" in first.notes[0]


def test_blocked_answers_say_nothing_of_what_people_were_told(store: ProvenanceStore) -> None:
    stopped = GuardrailVerdict(guardrail="toxicity", stage=Stage.OUTPUT, verdict=Verdict.FAIL)
    put(store, make_answer(1, answer=answer("high")), make_answer(2, answer=answer("none"), verdicts=(stopped,)))
    assert arm(report(store), Cohort.PRODUCTION).said["risk"] == {"high": 1.0}


def test_what_the_store_refused_of_this_product_is_counted(store: ProvenanceStore) -> None:
    put(store, make_answer(1), make_answer(2, product="another"))
    put(store, make_answer(1, answer="another"), make_answer(2, product="another", answer="other"), segment="2-b.wal")
    assert report(store).conflicts == 1


def test_a_store_that_is_down_is_no_day_without_traffic(tmp_path: Path) -> None:
    gone = ProvenanceStore(f"postgresql://nobody@/nothing?host={tmp_path}")
    with pytest.raises(StorageError, match="provenance store"):
        report(gone)
