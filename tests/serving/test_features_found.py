"""When a worker found its newest features: whoever publishes waits for that."""

from types import SimpleNamespace
from typing import Any

from ml_platform.serving.gateway.measuring import look_for_features


def serving(publication: str | None) -> Any:
    """A deployment whose production has this publication in memory."""
    loaded = SimpleNamespace(facts=SimpleNamespace(publication=publication))
    table = SimpleNamespace(product="desk", production="r")
    return SimpleNamespace(table=table, releases={"r": loaded})


def test_another_publication_of_the_same_moment_is_found_too() -> None:
    found: dict[str, tuple[str, float]] = {}
    times = iter([10.0, 20.0, 30.0])
    for publication in ("20130401T000000-a", "20130401T000000-a", "20130401T000000-b", None):
        look_for_features(serving(publication), found, now=lambda: next(times))
    assert found == {"desk": ("20130401T000000-b", 20.0)}


def test_features_that_are_not_at_hand_were_not_found() -> None:
    found: dict[str, tuple[str, float]] = {}
    look_for_features(serving(None), found)
    assert found == {}
