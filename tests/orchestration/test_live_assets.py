"""The assets beside the chain that look at live traffic: what they show, and what they keep for the sensors."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from dagster import ExecuteInProcessResult, materialize

from assets.chain import Chain
from assets.live_window import live_window_asset
from assets.monitoring import MONITORED, monitoring_job_name
from assets.quality_report import quality_report_asset
from definitions import platform_definitions
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import load_product
from ml_platform.contracts.routing import Cohort
from ml_platform.contracts.windows import QualityReport, WindowReport
from ml_platform.lineage.provenance.store import ProvenanceStore
from resources.manifests import ManifestIOManager
from resources.state import PROJECT, StoreResource
from tests.samples.followed import World
from tests.samples.observed import make_answer, put
from tests.samples.provenance import make_outcome

FOLDER = PROJECT / "products" / "flight_assistant"
FIRST, NEWEST = datetime(2013, 4, 1, tzinfo=UTC), date(2013, 6, 1)
SAID = '{"intent":"delay_risk","risk":"%s","reply":"It may be late."}'


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain(load_product(FOLDER))


@pytest.fixture
def world(tmp_path: Path, chain: Chain) -> World:
    """A release of the product in production."""
    home = Home(tmp_path / "home")
    made = World(home, home.ledger_url, product=chain.product.name, serving=chain.product.serving_content)
    release = made.prove(made.release(1))
    made.open(release)
    made.promote(release)
    return made


@pytest.fixture
def store(world: World) -> Iterator[ProvenanceStore]:
    opened = ProvenanceStore(world.home.provenance_url)
    yield opened
    opened.close()


def answer_day(world: World, store: ProvenanceStore, day: int, bad: int, count: int) -> None:
    """Answers of a day of the product's time about flights that left late, so many of which were called low."""
    replay = world.controller.state(world.product)
    (release_id,) = replay.slots.values()
    at = FIRST + timedelta(days=day)
    for number in range(count):
        name = 1000 * day + number
        entity = {"flight_id": f"flight {name}"}
        record = make_answer(
            name,
            published_at=at,
            answered_at=world.now + timedelta(seconds=name),
            cohort=Cohort.PRODUCTION,
            release_id=release_id,
            epoch=replay.epoch,
            entity=entity,
            user_sha256=f"{name:064x}",
            answer=SAID % ("low" if number < bad else "high"),
        )
        happened = make_outcome(name, entity=entity, occurred_at=at + timedelta(hours=5), values={"late": True})
        put(store, record, happened)


def made(world: World, chain: Chain, day: date) -> ExecuteInProcessResult:
    root = str(world.home.root)
    resources = {"store": StoreResource(home_path=root), "io_manager": ManifestIOManager(home_path=root)}
    assets = [live_window_asset(chain), quality_report_asset(chain)]
    return materialize(assets, partition_key=day.isoformat(), resources=resources)


def facts(world: World, asset: str, day: date) -> dict[str, object]:
    """What the sensors read."""
    path = world.home.manifests / world.product / asset / f"{day}.json"
    found: dict[str, object] = json.loads(path.read_bytes())["value"]["facts"]
    return found


def test_a_fall_of_quality_is_in_the_manifest_that_the_sensor_reads(
    world: World, store: ProvenanceStore, chain: Chain
) -> None:
    answer_day(world, store, 0, 10, 60)
    answer_day(world, store, 40, 55, 60)
    answer_day(world, store, 50, 0, 1)
    day = (FIRST + timedelta(days=42)).date()
    result = made(world, chain, day)
    assert result.success
    report = QualityReport.parse(facts(world, "quality_report", day), where="the manifest")
    assert (report.verdict, report.release_id) == (
        Verdict.FAIL,
        world.controller.state(world.product).slots["production"],  # type: ignore[index]
    )
    assert "missed_late_rate" in report.fallen
    (shown,) = result.asset_materializations_for_node(f"{world.product}__quality_report")
    assert shown.metadata["verdict"].value == "FAIL"
    assert "svg" in str(shown.metadata["changes"].value)


def test_a_day_of_traffic_is_shown_and_kept(world: World, store: ProvenanceStore, chain: Chain) -> None:
    answer_day(world, store, 0, 5, 20)
    answer_day(world, store, 3, 0, 1)
    result = made(world, chain, FIRST.date())
    report = WindowReport.parse(facts(world, "live_window", FIRST.date()), where="the manifest")
    (arm,) = report.arms
    assert (arm.cohort, arm.answers, arm.labels.coverage) == (Cohort.PRODUCTION, 20, 1.0)
    (shown,) = result.asset_materializations_for_node(f"{world.product}__live_window")
    assert "missed_rate" in str(shown.metadata["measures"].value)
    again = made(world, chain, FIRST.date())
    (second,) = again.asset_materializations_for_node(f"{world.product}__live_window")
    assert second.tags == shown.tags


def test_a_day_on_which_nobody_asked_proves_nothing(world: World, chain: Chain) -> None:
    assert made(world, chain, NEWEST).success
    assert facts(world, "live_window", NEWEST)["notes"]
    assert facts(world, "quality_report", NEWEST)["verdict"] == "INCONCLUSIVE"


def test_the_job_of_reports_moves_nothing_and_waits_for_no_training() -> None:
    job = platform_definitions([FOLDER]).resolve_job_def(monitoring_job_name("flight_assistant"))
    assert {key.path[-1] for key in job.asset_layer.selected_asset_keys} == set(MONITORED)
    assert "ml_platform/product" not in job.tags
