"""Skew: an honest gateway shows none, and every planted divergence between serving and training is found."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_platform.contracts.feature_spec import FeatureSpec, FeatureViewSpec
from ml_platform.contracts.provenance import FeaturesRead
from ml_platform.features import online, tables
from ml_platform.features.definitions import definitions_sha256
from ml_platform.features.reading import OnlineReader
from ml_platform.features.skew import SkewReport, Source, replay_features, same_value
from tests.samples.online import ROW, minute, publish, read, reader_of
from tests.samples.provenance import make_record


def replayed(built: Any, *reads: FeaturesRead | None) -> SkewReport:
    """What `mlp skew` finds in these readings."""
    records = [make_record(number, features=features) for number, features in enumerate(reads)]
    source = Source(built.product, built.features)
    return replay_features(built.product.name, records, lambda _: source, built.home)


def mismatched(report: SkewReport) -> dict[str, int]:
    return {name: one.mismatches for name, one in report.features.items() if one.mismatches}


ROWS = (
    {"at": 0, "known": 0, "value": 1.0, "label": "fine"},
    {"at": 30, "known": 200, "value": 50.0, "label": "late to be known"},
    {"at": 100, "known": 100, "value": 2.5, "label": "newest", "works": False},
    {"at": 100, "known": 100, "sensor": "b", "value": None},
)
ENTITIES = (ROW, {"sensor": "b", "site": 7}, {"sensor": "nobody", "site": 7})


@pytest.mark.parametrize("later", [0, 1, 59, 700, 1341, 5000])
def test_an_honest_gateway_has_no_skew_however_long_after_the_publication(plant: Any, later: float) -> None:
    built = plant(*ROWS)
    publish(built, minute(4 * 24 * 60))
    publish(built, minute(150), going_back=True)
    report = replayed(built, *(read(built, row, minute(150 + later)) for row in ENTITIES))
    assert (report.records, report.compared, report.n) == (3, 3, 18)
    assert mismatched(report) == {}
    assert report.rate == 0.0


def test_a_late_publication_is_told_from_a_wrong_value(plant: Any) -> None:
    built = plant({"at": 0, "known": 0, "value": 1.0}, {"at": 60, "known": 60, "value": 2.0})
    publish(built, minute(30))
    report = replayed(built, read(built, ROW, minute(90)))
    assert report.features["value"].outdated == report.features["reading_number"].outdated == 1
    assert report.features["label"].outdated == 0, "it is the same in both rows"
    assert mismatched(report) == {}


def wrong(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    def latest(view: FeatureViewSpec, file: Path, at: datetime) -> pd.DataFrame:
        return change(tables.latest_known(view, file, at))

    return latest


def test_an_online_aggregate_that_is_computed_differently_is_found(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built = plant(*ROWS)

    def rounded(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(mean_3h=frame["mean_3h"].round()) if "mean_3h" in frame else frame

    monkeypatch.setattr(online, "latest_known", wrong(rounded))
    publish(built, minute(150))
    report = replayed(built, *(read(built, row) for row in ENTITIES))
    assert mismatched(report) == {"mean_3h": 1}
    assert report.features["mean_3h"].rate == pytest.approx(1 / 3)
    (example,) = report.features["mean_3h"].examples
    assert (example.logged, example.joined, example.keys) == (2.0, 1.75, ROW)
    assert (example.event_at, example.read_at, example.published_at) == (minute(120), minute(150), minute(150))


def test_a_value_that_leaks_from_the_future_is_found(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serving looks at the event's time alone, as Feast does without its created-time filter."""
    built = plant({"at": 0, "known": 0, "value": 1.0}, {"at": 90, "known": 400, "value": 99.0})

    def leaking(view: FeatureViewSpec, file: Path, at: datetime) -> pd.DataFrame:
        found = tables.latest_known(view, file, minute(24 * 60))
        return found if "value" in found else tables.latest_known(view, file, at)

    monkeypatch.setattr(online, "latest_known", leaking)
    publish(built, minute(150))
    assert mismatched(replayed(built, read(built, ROW))) == {"value": 1, "reading_number": 1}


@pytest.mark.parametrize("hours", [1.0, 1000.0])
def test_a_reader_with_another_ttl_is_found(plant: Any, hours: float) -> None:
    built = plant(*ROWS)
    publish(built, minute(150))
    data = built.product.features.model_dump()
    data["views"]["as_known"]["ttl_hours"] = hours
    other = FeatureSpec.parse(data, where="another ttl")
    reader = OnlineReader(built.home, built.product.name, other, definitions_sha256(built.product), {})
    now = minute(200 if hours == 1.0 else 100 + 24 * 60 + 1)
    assert mismatched(replayed(built, reader.read(ROW, now))) == dict.fromkeys(
        ("label", "reading_number", "value", "works"), 1
    )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("value", round),
        ("value", lambda v: v * (1 + 1e-6)),
        ("label", lambda v: v.upper()),
        ("works", lambda v: not v),
        ("works", int),
        ("count_3h", lambda v: v + 1),
        ("mean_3h", lambda v: None),  # noqa: ARG005
    ],
)
def test_preprocessing_that_differs_after_reading_is_found(plant: Any, name: str, change: Any) -> None:
    built = plant(*ROWS)
    publish(built, minute(150))
    honest = read(built, ROW)
    changed = honest.model_copy(update={"values": {**honest.values, name: change(honest.values[name])}})
    report = replayed(built, honest, changed, honest)
    assert mismatched(report) == {name: 1}
    assert report.features[name].rate == pytest.approx(1 / 3)


def test_a_value_of_an_event_that_lay_ahead_is_found_though_it_is_right(plant: Any) -> None:
    built = plant(*ROWS)
    publish(built, minute(150))
    honest = read(built, ROW)
    ahead = honest.model_copy(update={"event_at": {**honest.event_at, "value": minute(151)}})
    assert mismatched(replayed(built, ahead)) == {"value": 1}


def test_a_feature_that_was_not_read_is_found(plant: Any) -> None:
    built = plant(*ROWS)
    publish(built, minute(150))
    honest = read(built, ROW)
    fewer = {"values": dict(honest.values), "event_at": dict(honest.event_at)}
    for part in fewer.values():
        del part["label"]
    assert mismatched(replayed(built, honest.model_copy(update=fewer))) == {"label": 1}


def test_what_cannot_be_compared_is_counted_and_nothing_compared_is_no_good_news(plant: Any) -> None:
    built = plant(*ROWS)
    publish(built, minute(150))
    records = [make_record(0, features=None), make_record(1, features=read(built, ROW))]
    report = replay_features("flight_assistant", records, lambda _: "its release is gone", built.home)
    assert report.not_compared == {"no features were read": 1, "its release is gone": 1}
    assert (report.records, report.compared, report.rate) == (2, 0, None)


def test_many_records_are_compared_a_part_at_a_time(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_platform.features.skew.READINGS_A_JOIN", 4)
    built = plant(*ROWS)
    publish(built, minute(150))
    reader = reader_of(built)
    honest = [reader.read(row, minute(150 + n)) for n in range(3) for row in ENTITIES]
    spoilt = honest[0].model_copy(update={"values": {**honest[0].values, "value": 7.0}})
    report = replayed(built, *honest, spoilt)
    assert (report.compared, report.features["value"].n, mismatched(report)) == (10, 10, {"value": 1})


@pytest.mark.parametrize(
    ("logged", "joined", "same"),
    [
        (1.0, 1.0 + 1e-12, True),
        (1.0, 1.0 + 1e-8, False),
        (0.0, 1e-300, False),
        (5, 5.0, True),
        (5, 6, False),
        (2**60, 2**60 + 1, False),
        (True, 1, False),
        (False, None, False),
        (None, None, True),
        ("a", "a", True),
        ("5", 5, False),
    ],
)
def test_numbers_match_to_the_tolerance_and_everything_else_exactly(logged: Any, joined: Any, same: bool) -> None:
    assert same_value(logged, joined) is same
    assert same_value(joined, logged) is same


MINUTES = st.integers(0, 600)
PLANTED = st.lists(
    st.fixed_dictionaries(
        {
            "sensor": st.sampled_from("ab"),
            "site": st.sampled_from([7, 8]),
            "at": MINUTES,
            "value": st.one_of(st.none(), st.floats(-1e6, 1e6)),
            "works": st.booleans(),
        }
    ).flatmap(lambda row: st.integers(row["at"], 700).map(lambda known: {**row, "known": known})),
    min_size=1,
    max_size=12,
)
ASKED = [{"sensor": sensor, "site": site} for sensor in "abc" for site in (7, 8)]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=PLANTED, at=st.integers(0, 1500), later=st.sampled_from([0, 1, 720, 1440, 4000]))
def test_published_and_read_equals_the_join_at_that_moment(
    plant_anywhere: Callable[[], Any], rows: list[dict[str, Any]], at: int, later: int
) -> None:
    """Promise 6, for any history: what serving reads is what training sees of that moment."""
    built = plant_anywhere()(*rows)
    publish(built, minute(at))
    reader = reader_of(built)
    now: Sequence[FeaturesRead] = [reader.read(row, None) for row in ASKED]
    report = replayed(built, *now)
    assert (report.n, report.rate) == (len(ASKED) * 6, 0.0)
    assert all(one.outdated == 0 for one in report.features.values())
    assert replayed(built, *(reader.read(row, minute(at + later)) for row in ASKED)).rate == 0.0
