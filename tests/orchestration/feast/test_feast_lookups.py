"""Lookups: rows of a source by key, as they were known at the moment of the publication."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_platform.contracts.serving import LookupSpec, ServingSpec
from ml_platform.errors import ContractError, InvalidInputError, OperationError
from ml_platform.features.lookups import checked_lookups
from ml_platform.features.online import publish_online
from ml_platform.snapshots.extract import load_table
from tests.samples.online import ROW, minute, publish, reader_of, shelf


def lookup(**spec: Any) -> dict[str, LookupSpec]:
    plain = {"source": "readings", "key": ["sensor", "site"], "columns": ["value", "label", "works", "at"], **spec}
    return {"reading": LookupSpec.parse(plain, where="a test")}


def test_a_row_is_found_by_its_key_with_plain_values(plant: Any) -> None:
    built = plant({"at": 5, "known": 5, "value": 2.5, "label": "naïve", "works": False}, lookups=lookup())
    publish(built, minute(30))
    reader = reader_of(built)
    found = reader.look_up("reading", {**ROW, "more": 1})
    assert found == {"value": 2.5, "label": "naïve", "works": False, "at": "2013-03-09T00:05:00Z"}
    assert reader.look_up("reading", {"sensor": "b", "site": 7}) is None
    assert reader.pinned().publication.lookup_rows == {"reading": 1}
    assert reader.read(ROW, None).values["count_3h"] is None, "a grid point has not come yet"


def test_the_newest_row_that_was_known_counts(plant: Any) -> None:
    built = plant(
        {"at": 0, "known": 0, "value": 1.0},
        {"at": 60, "known": 60, "value": None},
        {"at": 30, "known": 300, "value": 99.0},
        lookups=lookup(),
    )
    for at, value in ((59, 1.0), (60, None), (299, None), (300, 99.0)):
        publish(built, minute(at))
        found = reader_of(built).look_up("reading", ROW)
        assert found is not None
        assert found["value"] == value


def test_rows_whose_event_lies_too_far_back_are_not_published(plant: Any) -> None:
    built = plant({"at": 0, "known": 0}, {"at": 60, "known": 60, "sensor": "b"}, lookups=lookup(keep_hours=2.0))
    publish(built, minute(120))
    assert reader_of(built).look_up("reading", ROW) is not None
    publish(built, minute(121))
    assert reader_of(built).look_up("reading", ROW) is None
    assert reader_of(built).look_up("reading", {**ROW, "sensor": "b"}) is not None


def test_a_plan_is_found_before_its_event(january_20: Any) -> None:
    spec = LookupSpec(source="schedule", key=("flight_id",), columns=("route", "scheduled_departure"), keep_hours=24)
    serving = ServingSpec(version="1.0.0", lookups={"flight": spec})
    built = replace(january_20, product=replace(january_20.product, serving=serving))
    at = datetime(2013, 1, 15, tzinfo=UTC)
    publish(built, at)
    schedule, reader = load_table(built.snapshot, "schedule"), reader_of(built)
    due = schedule["scheduled_departure"] >= at - timedelta(hours=24)
    known = schedule["known_at"] <= at
    assert reader.pinned().publication.lookup_rows == {"flight": int((due & known).sum())}
    for flight in schedule[due & known].iloc[::500].itertuples():
        departs = f"{flight.scheduled_departure:%Y-%m-%dT%H:%M:%SZ}"
        found = reader.look_up("flight", {"flight_id": flight.flight_id})
        assert found == {"route": flight.route, "scheduled_departure": departs}
    assert reader.look_up("flight", {"flight_id": schedule[~due].iloc[0].flight_id}) is None


def test_a_product_without_features_has_lookups_alone(plant: Any) -> None:
    planted = plant({"at": 0, "known": 0, "value": 3.0}, lookups=lookup())
    built = replace(planted, product=replace(planted.product, features=None), features=None)
    publication = publish(built, minute(30))
    reader = reader_of(built)
    assert (publication.features_sha256, publication.definitions_sha256) == (None, None)
    found = reader.look_up("reading", ROW)
    assert found is not None
    assert found["value"] == 3.0
    assert reader.published_at() == minute(30)
    with pytest.raises(InvalidInputError, match="has no features to read"):
        reader.read(ROW, None)


def test_other_lookups_have_a_publication_of_their_own(plant: Any) -> None:
    built = plant({"at": 0, "known": 0}, lookups=lookup())
    publish(built, minute(30))
    changed = replace(built, product=replace(built.product, serving=ServingSpec(version="1.0.0")))
    with pytest.raises(OperationError, match="online yet"):
        reader_of(changed).published_at()
    publish(changed, minute(40))
    assert reader_of(built).published_at() == minute(30)
    assert shelf(built) != shelf(changed)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sensor": "a"}, "the key 'site' of lookup 'reading' is missing"),
        ({"sensor": "a", "site": None}, "'site' .* is None"),
        ({"sensor": "a", "site": 7.0}, "'site' .* is 7.0"),
        ({"sensor": "a", "site": True}, "'site' .* is True"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused(plant: Any, row: dict[str, Any], message: str) -> None:
    built = plant({"at": 0, "known": 0}, lookups=lookup())
    publish(built, minute(30))
    with pytest.raises(InvalidInputError, match=message):
        reader_of(built).look_up("reading", row)


def test_a_key_of_another_type_finds_nothing(plant: Any) -> None:
    """SQLite would take "7" for 7."""
    built = plant({"at": 0, "known": 0}, lookups=lookup())
    publish(built, minute(30))
    assert reader_of(built).look_up("reading", {"sensor": "a", "site": "7"}) is None
    with pytest.raises(InvalidInputError, match="there is no lookup 'raeding'; known: reading"):
        reader_of(built).look_up("raeding", ROW)


@pytest.mark.parametrize(
    "row", [{"sensor": "\ud800", "site": 7}, {"sensor": "a", "site": 2**70}, {"sensor": "\0", "site": -1}]
)
def test_a_key_that_no_store_can_hold_finds_nothing(plant: Any, row: dict[str, Any]) -> None:
    built = plant({"at": 0, "known": 0}, lookups=lookup())
    publish(built, minute(60))
    reader = reader_of(built)
    for _ in range(2):
        assert reader.look_up("reading", row) is None
        if row["sensor"] == "\ud800":
            with pytest.raises(InvalidInputError, match="surrogate"):
                reader.read(row, None)
        else:
            assert reader.read(row, None).values["value"] is None
    assert reader.look_up("reading", ROW) is not None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"source": "reading"}, "unknown source 'reading': did you mean 'readings'"),
        ({"key": ["sensr"]}, "unknown column 'sensr': did you mean 'sensor'"),
        ({"columns": ["labels"]}, "unknown column 'labels': did you mean 'label'"),
        ({"key": ["value"]}, "key 'value' is number, expected one of string, integer"),
    ],
)
def test_a_lookup_that_does_not_fit_its_source_is_named(plant: Any, spec: dict[str, Any], message: str) -> None:
    built = plant({"at": 0, "known": 0})
    wrong = replace(built.product, serving=ServingSpec(version="1.0.0", lookups=lookup(**spec)))
    with pytest.raises(ContractError, match=f"lookup 'reading': .*{message}"):
        checked_lookups(wrong)


def test_what_is_missing_or_does_not_belong_together_cannot_be_published(plant: Any) -> None:
    built = plant({"at": 0, "known": 0}, lookups=lookup())
    product, home = built.product, built.home
    with pytest.raises(InvalidInputError, match=r"lookups of flight_assistant .reading. need the snapshot"):
        publish_online(product, built.features, home, minute(30))
    with pytest.raises(InvalidInputError, match="none were passed"):
        publish_online(product, None, home, minute(30), snapshot=built.snapshot)
    bare = replace(product, features=None, serving=ServingSpec(version="1.0.0"))
    with pytest.raises(InvalidInputError, match="nothing to publish"):
        publish_online(bare, None, home, minute(30))


MINUTES = st.integers(0, 600)
ROWS = st.lists(
    st.fixed_dictionaries({"sensor": st.sampled_from("ab"), "site": st.sampled_from([7, 8]), "at": MINUTES})
    .flatmap(lambda row: st.integers(row["at"], 700).map(lambda known: {**row, "known": known})),
    min_size=1,
    max_size=12,
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=ROWS, at=st.integers(0, 720))
def test_lookups_equal_the_plain_program(plant_anywhere: Callable[[], Any], rows: list[Any], at: int) -> None:
    built = plant_anywhere()(*rows, lookups=lookup(columns=["number"], keep_hours=5.0))
    publish(built, minute(at))
    reader = reader_of(built)
    for sensor in "ab":
        for site in (7, 8):
            there = [
                (row["known"], row["at"], number)
                for number, row in enumerate(rows)
                if (row["sensor"], row["site"]) == (sensor, site) and row["known"] <= at and row["at"] >= at - 300
            ]
            found = reader.look_up("reading", {"sensor": sensor, "site": site})
            assert found == ({"number": max(there)[2]} if there else None)
