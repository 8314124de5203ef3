"""Feature tables: the same bytes again, the same rows in a later snapshot, and Feast's own view of them."""

import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ml_platform.contracts.home import Home
from ml_platform.errors import InvalidInputError
from ml_platform.features.build import build_features
from ml_platform.features.tables import newest_features
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.snapshots.extract import cutoff, load_table

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("view", ["carrier_week", "origin_now", "origin_weather", "route_history"])
def test_a_later_snapshot_tells_the_same_of_an_earlier_time(january_20: Any, january_25: Any, view: str) -> None:
    earlier = pq.read_table(january_20.features.file(f"{view}.parquet"))
    later = pq.read_table(january_25.features.file(f"{view}.parquet"))
    known = later.filter(pc.less_equal(later["created_timestamp"], cutoff(date(2013, 1, 20))))
    assert earlier.num_rows > 500
    assert known.equals(earlier)
    assert later.num_rows > earlier.num_rows


def test_building_again_gives_the_same_bytes_and_finds_what_is_there(january_20: Any, tmp_path: Path) -> None:
    elsewhere = build_features(january_20.product, january_20.snapshot, LocalArtifactStore(tmp_path))
    assert elsewhere.sha256 == january_20.features.sha256
    assert not elsewhere.reused
    assert build_features(january_20.product, january_20.snapshot, LocalArtifactStore(tmp_path)).reused


def test_trailing_features_of_real_flights_equal_a_plain_count(january_20: Any) -> None:
    departures = load_table(january_20.snapshot, "departures")
    table = pq.read_table(january_20.features.file("origin_now.parquet")).to_pandas()
    for row in table.sample(60, random_state=3).itertuples():
        age = row.event_timestamp - departures["known_at"]
        within = departures[(departures["origin"] == row.origin) & (age.dt.total_seconds() >= 0)]
        within = within[age[within.index].dt.total_seconds() < 3 * 3600]
        assert row.origin_departures_3h == within["departure_delay_min"].count()
        if len(within):
            assert row.origin_late_rate_3h == pytest.approx(within["late"].mean(), abs=1e-6)
            assert row.origin_delay_mean_3h == pytest.approx(
                within["departure_delay_min"].mean(), abs=1e-6, nan_ok=True
            )


def test_no_feature_row_is_younger_than_its_snapshot(january_20: Any) -> None:
    for name in january_20.product.features.views:
        created = pq.read_table(january_20.features.file(f"{name}.parquet"))["created_timestamp"]
        assert pc.max(created).as_py() <= cutoff(date(2013, 1, 20))
        assert str(created.type) == "timestamp[us, tz=UTC]"


def test_the_newest_features_are_those_with_the_latest_cutoff(january_20: Any, january_25: Any, tmp_path: Path) -> None:
    assert newest_features(january_20.product, january_20.home) == january_25.features.path
    assert not newest_features(january_20.product, Home(tmp_path)).exists()


def test_a_snapshot_of_another_product_is_refused(january_20: Any, plant: Any) -> None:
    built = plant({"at": 0, "known": 0})
    other = built.product.spec.model_copy(update={"name": "another"})
    product = type(built.product)(**{**vars(built.product), "spec": other})
    with pytest.raises(InvalidInputError, match="belongs to flight_assistant, expected another"):
        build_features(product, january_20.snapshot, LocalArtifactStore(built.home.artifacts))


def test_feasts_command_line_shows_every_product(january_20: Any, january_25: Any, tmp_path: Path) -> None:
    repository = tmp_path / "feature_repo"
    shutil.copytree(ROOT / "feature_repo", repository, ignore=shutil.ignore_patterns("data", "__pycache__"))
    (tmp_path / "products").symlink_to(ROOT / "products")
    applied = subprocess.run(
        [Path(sys.executable).with_name("feast"), "-c", "feature_repo", "apply"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ML_PLATFORM_HOME": str(january_25.home.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert applied.returncode == 0, applied.stderr
    assert "FileSource path does not exist" not in applied.stderr
    from feast import FeatureStore

    service = FeatureStore(repo_path=str(repository)).get_feature_service("flight_assistant__flight_facts")
    assert service.tags["definitions_sha256"] == january_25.features.facts["definitions_sha256"]
    shown = [feature.name for view in service.feature_view_projections for feature in view.features]
    assert sorted(shown) == list(january_25.product.features.feature_names)
