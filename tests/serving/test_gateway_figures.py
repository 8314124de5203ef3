"""The page of figures says how things are now, whatever is gone or hangs."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from ml_platform.serving.gateway.metrics import GatewayMetrics, WorkerState

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
