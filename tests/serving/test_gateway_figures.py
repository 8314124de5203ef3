"""The page of figures says how things are now, whatever is gone or hangs."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from ml_platform.contracts.provenance import ProvenanceRecord, RecordedError
from ml_platform.contracts.routing import Cohort, RouteReason
from ml_platform.serving.gateway.metrics import GatewayMetrics, WorkerState
from ml_platform.serving.question import Reply, ReplyStatus
from tests.samples.provenance import RELEASES, make_record

QUIET = {"in_flight": 0, "unrecorded": 0, "shadow_dropped": 0, "ledger_age_seconds": None}


def breakers_shown(given: list[Mapping[str, float]]) -> dict[str, float | None]:
    """What the page says of each release once the worker's breakers were as given, one after the other."""
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    for opened in given:
        breakers = tuple(("assistant", release, how_far) for release, how_far in opened.items())
        metrics.state(WorkerState(**QUIET, engine_up=True, tables=(), breakers=breakers))  # type: ignore[arg-type]
    names = {release for opened in given for release in opened}
    return {
        one: registry.get_sample_value("mlp_breaker_open", {"product": "assistant", "release": one}) for one in names
    }


def test_the_breaker_of_a_canary_that_was_aborted_is_open_no_more() -> None:
    both, gone = {"canary": 1.0, "production": 0.5}, {"production": 0.5}
    assert breakers_shown([both]) == both
    assert breakers_shown([both, gone]) == {"canary": 0.0, "production": 0.5}


def test_a_release_that_comes_back_shows_its_breaker_again() -> None:
    assert breakers_shown([{"canary": 1.0}, {}, {"canary": 1.0}]) == {"canary": 1.0}


def test_refusals_are_shown_as_none_before_the_first_so_that_an_alert_sees_it_rise() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    state = WorkerState(**QUIET, engine_up=True, tables=(("assistant", 7, 0.1),), breakers=())  # type: ignore[arg-type]

    def refusals() -> float | None:
        return registry.get_sample_value("mlp_admission_refusals_total", {"product": "assistant"})

    metrics.state(state)
    assert refusals() == 0.0
    metrics.admission_refused("assistant")
    metrics.state(state)
    assert refusals() == 1.0


def failed(record: ProvenanceRecord, status: ReplyStatus = ReplyStatus.ANSWERED) -> float | None:
    """What the page says of failures in the arm of this one answer."""
    registry = CollectorRegistry()
    GatewayMetrics(registry).answered(Reply(record, record.answer, status))
    arm = {"product": record.product, "release": (record.release_id or "none")[:12], "cohort": record.cohort.value}
    return registry.get_sample_value("mlp_answers_failed_total", arm)


def test_a_canary_that_production_answers_for_has_failed() -> None:
    broke = (RecordedError(kind="unparsable", message=f"release {RELEASES[1][:12]}: no JSON"),)
    stepped_in = {"release_id": RELEASES[0], "route_reason": RouteReason.FELL_BACK}
    assert failed(make_record(1, cohort=Cohort.CANARY, errors=broke, **stepped_in)) == 1.0


def test_a_fallback_reply_is_a_failure_of_the_assigned_release() -> None:
    nobody = {"release_id": None, "adapter": None, "prompt": None, "route_reason": RouteReason.NOTHING_SERVES}
    assert failed(make_record(1, **nobody), ReplyStatus.FALLBACK) == 1.0


def test_failures_are_shown_from_the_first_answer_on_so_that_the_first_failure_counts() -> None:
    assert failed(make_record(1)) == 0.0
    assert failed(make_record(10)) == 0.0
