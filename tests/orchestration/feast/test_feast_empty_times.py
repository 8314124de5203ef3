"""Empty times: a row means offline, online and in a lookup what its snapshot took it for."""

from typing import Any

import pytest

from ml_platform.contracts.serving import LookupSpec
from ml_platform.features.join import join_features
from tests.orchestration.feast.conftest import PLANTED_FEATURES, Plant
from tests.samples.online import ROW, minute, publish, read, reader_of

LOOKUP = {"reading": LookupSpec(source="readings", key=("sensor", "site"), columns=("value",))}
AGELESS = {
    "service": "everything",
    "views": {"as_known": PLANTED_FEATURES["views"]["as_known"] | {"ttl_hours": None}},
}
NAMES = ("value", "count_3h", "mean_3h")


def everywhere(plant: Plant, built: Any, at: float) -> dict[str, Any]:
    """What the join, the online store and the lookup say at a moment; the first two must agree."""
    names = [name for name in NAMES if name in built.product.features.feature_names]
    (joined,) = join_features(built.product, built.features, plant.asking(at), built.home).to_dict("records")
    publish(built, minute(at))
    online = read(built, ROW, minute(at)).values
    assert {name: online[name] for name in names} == pytest.approx({name: joined[name] for name in names})
    looked_up = reader_of(built).look_up("reading", {"sensor": "a", "site": 7})
    return {**{name: online[name] for name in names}, "lookup": looked_up and looked_up["value"]}


def test_a_row_without_a_known_time_is_known_when_its_event_happens(plant: Plant) -> None:
    rows = ({"at": 0, "known": 0, "value": 1.0}, {"at": 60, "known": None, "value": 2.0})
    built = plant(*rows, lookups=LOOKUP)
    assert everywhere(plant, built, 59) == {"value": 1.0, "count_3h": 1, "mean_3h": 1.0, "lookup": 1.0}
    assert everywhere(plant, built, 60) == {"value": 2.0, "count_3h": 2, "mean_3h": 1.5, "lookup": 2.0}


def test_a_row_without_an_event_is_about_the_moment_when_it_became_known(plant: Plant) -> None:
    rows = ({"at": 0, "known": 0, "value": 1.0}, {"at": None, "known": 60, "value": 2.0})
    built = plant(*rows, lookups=LOOKUP)
    assert everywhere(plant, built, 59) == {"value": 1.0, "count_3h": 1, "mean_3h": 1.0, "lookup": 1.0}
    assert everywhere(plant, built, 60) == {"value": 2.0, "count_3h": 2, "mean_3h": 1.5, "lookup": 2.0}


def test_a_row_without_any_time_was_always_known_and_every_other_is_newer(plant: Plant) -> None:
    rows = ({"at": None, "known": None, "value": 1.0}, {"at": 60, "known": 60, "value": 2.0})
    built = plant(*rows, features=AGELESS, lookups=LOOKUP)
    assert everywhere(plant, built, 0) == {"value": 1.0, "lookup": 1.0}
    assert everywhere(plant, built, 60) == {"value": 2.0, "lookup": 2.0}


def test_a_plan_without_a_known_time_was_always_known(plant: Plant) -> None:
    rows = ({"at": 600, "known": None, "value": 1.0}, {"at": 600, "known": 60, "value": 2.0})
    built = plant(*rows, features=AGELESS, lookups=LOOKUP, planned=True)
    assert everywhere(plant, built, 0) == {"value": 1.0, "lookup": 1.0}
    assert everywhere(plant, built, 60) == {"value": 2.0, "lookup": 2.0}
