"""The join against the slowest and plainest program that says the same, and against Feast's own store."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_platform.features.join import join_features
from ml_platform.features.tables import latest_known

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

TTL_MINUTES = 24 * 60
MINUTES = st.integers(0, 8).map(lambda n: n * 60) | st.integers(0, 3000)
ENTITIES = [("a", 1), ("a", 2), ("ab", 1)]
PLANTED = st.lists(
    st.builds(
        lambda entity, at, delay, value: {
            "sensor": entity[0],
            "site": entity[1],
            "at": at,
            "known": at + delay,
            "value": value,
        },
        st.sampled_from(ENTITIES),
        MINUTES,
        st.sampled_from([0, 0, 1, 60, 240, 2000]),
        st.integers(0, 9).map(float) | st.none(),
    ),
    min_size=1,
    max_size=25,
)


def telling_moments(rows: list[dict[str, Any]]) -> list[int]:
    """Every minute at which an answer may change, and its neighbours."""
    changes = {m for row in rows for m in (row["at"], row["known"], row["at"] + TTL_MINUTES)}
    return sorted({minute + step for minute in changes for step in (-1, 0, 1)})


def plain_answer(rows: list[dict[str, Any]], sensor: str, site: int, minute: int) -> int | None:
    """The number of the row that answers: newest event, then newest knowledge, then last in the file."""
    known = [
        (row["at"], row["known"], number)
        for number, row in enumerate(rows)
        if (row["sensor"], row["site"]) == (sensor, site) and row["at"] <= minute and row["known"] <= minute
    ]
    if not known or max(known)[0] + TTL_MINUTES < minute:
        return None
    return max(known)[2]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=PLANTED)
def test_the_join_equals_the_plain_program_and_feasts_own_store(
    plant_anywhere: Callable[[], Any], rows: list[dict[str, Any]]
) -> None:
    plant = plant_anywhere()
    built = plant(*rows)
    asked = [(*entity, minute) for entity in [*ENTITIES, ("unknown", 1)] for minute in telling_moments(rows)]
    sensors, sites, minutes = zip(*asked, strict=True)
    questions = plant.asking(*minutes).assign(sensor=list(sensors), site=list(sites))
    joined = join_features(built.product, built.features, questions, built.home)
    feasts = join_features(built.product, built.features, questions, built.home, offline_store="duckdb")
    pd.testing.assert_frame_equal(joined, feasts)
    found = [None if pd.isna(number) else int(number) for number in joined["reading_number"]]
    assert found == [plain_answer(rows, *question) for question in asked]
    values = [None if number is None else rows[number]["value"] for number in found]
    assert [None if pd.isna(value) else value for value in joined["value"]] == values


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=PLANTED)
def test_the_latest_known_rows_equal_the_plain_program(
    plant_anywhere: Callable[[], Any], rows: list[dict[str, Any]]
) -> None:
    built = plant_anywhere()(*rows)
    view, file = built.product.features.views["as_known"], built.features.file("as_known.parquet")
    for minute in telling_moments(rows)[:: max(1, len(rows) // 3)]:
        at = datetime(2013, 3, 9, tzinfo=UTC) + timedelta(minutes=minute)
        found = {(row.sensor, row.site): row.reading_number for row in latest_known(view, file, at).itertuples()}
        answers = {entity: plain_answer(rows, *entity, minute) for entity in ENTITIES}
        assert found == {entity: number for entity, number in answers.items() if number is not None}
