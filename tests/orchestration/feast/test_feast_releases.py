"""Going online with releases, each by the definitions that it was judged with; `mlp skew` over what was answered."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_platform.cli.app import run as mlp
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product, load_product
from ml_platform.contracts.provenance import FeaturesRead
from ml_platform.contracts.release import DataPart, FeaturesPart, Release, VersionedPart
from ml_platform.contracts.routing import RouteReason
from ml_platform.features.definitions import definitions_sha256
from ml_platform.features.reading import OnlineReader
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.lineage.contents import keep_contents
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.provenance.frames import Frame, Kind
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.writing import Progress
from ml_platform.release.controller import Controller
from ml_platform.release.publishing import WentOnline, publish_releases
from tests.samples.online import ROW, minute
from tests.samples.provenance import make_record
from tests.samples.releases import PRODUCER, make_release

NAME = "flight_assistant"
LOOKUPS = {"reading": {"source": "readings", "key": ["sensor", "site"], "columns": ["value"]}}
MIDNIGHT = minute(4 * 24 * 60)


@dataclass(frozen=True)
class Desk:
    """A product folder that a test rewrites, and the home of its releases."""

    folder: Path
    home: Home
    snapshot_of: Callable[[], Artifact]

    @property
    def store(self) -> LocalArtifactStore:
        return LocalArtifactStore(self.home.artifacts)

    @property
    def product(self) -> Product:
        return load_product(self.folder)

    def rewrite(self, file: str, change: Callable[[dict[str, Any]], None]) -> None:
        content = yaml.safe_load((self.folder / file).read_text())
        change(content)
        (self.folder / file).write_text(yaml.safe_dump(content, sort_keys=False))

    def register(self, seed: int) -> Release:
        """A release of the folder as it is now, in the ledger."""
        product = self.product
        made = make_release(seed=seed, policy=product.promotion_policy, product=NAME)
        release = made.model_copy(
            update={
                "data": DataPart(
                    as_of=made.data.as_of, snapshot_sha256=self.snapshot_of().sha256, training_set_sha256="2" * 64
                ),
                "features": FeaturesPart(service="everything", definitions_sha256=definitions_sha256(product)),
                "serving": VersionedPart(version="1.0.0", content_sha256=product.serving_content.sha256),
            }
        )
        keep_contents(self.store, product)
        controller = Controller(Ledger(self.home.ledger_url), {}, PRODUCER, {})
        controller.register_release(release, product.promotion_policy, datetime.now(UTC), "a test")
        return release

    def publish(self, *releases: Release) -> tuple[WentOnline, ...]:
        return publish_releases(self.product, releases, self.snapshot_of(), self.store, self.home)

    def reader(self, release: Release, product: Product) -> OnlineReader:
        assert release.features is not None
        sha256 = release.features.definitions_sha256
        return OnlineReader(self.home, NAME, product.features, sha256, product.serving.lookups)


@pytest.fixture
def desk(plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    built = plant({"at": 0, "known": 0, "value": 1.0}, {"at": 5000, "known": 5000, "value": 2.0})
    folder = Path(shutil.copytree(Path(__file__).parents[3] / "products" / NAME, tmp_path / "products" / NAME))
    shutil.copy(built.product.folder / "readings.csv", folder)

    def planted(content: dict[str, Any]) -> None:
        content["sources"] = {"readings": built.product.spec.sources["readings"].model_dump(mode="json")}
        content["max_staleness_days"] = None
        content["files"]["serving"] = "serving.yaml"
        del content["files"]["expectations"]

    (folder / "features.yaml").write_text(yaml.safe_dump(built.product.features.model_dump(mode="json")))
    (folder / "serving.yaml").write_text(
        yaml.safe_dump({"version": "1.0.0", "given": ["sensor", "site"], "lookups": LOOKUPS})
    )
    desk = Desk(folder, built.home, lambda: built.snapshot)
    desk.rewrite("product.yaml", planted)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(built.home.root))
    monkeypatch.setenv("ML_PLATFORM_PRODUCTS", str(folder.parent))
    monkeypatch.chdir(tmp_path / "home")
    return desk


def longer_ttl(features: dict[str, Any]) -> None:
    features["views"]["as_known"]["ttl_hours"] = 1000


def no_lookups(serving: dict[str, Any]) -> None:
    serving["lookups"] = {}


def test_a_release_goes_online_as_it_was_judged_whatever_its_folder_says_now(desk: Desk) -> None:
    release, judged = desk.register(1), desk.product
    desk.rewrite("features.yaml", longer_ttl)
    desk.rewrite("serving.yaml", no_lookups)
    (online,) = desk.publish(release)
    assert online.sentence == "online as known at 2013-03-13 00:00Z"
    assert online.publication is not None
    assert online.publication.at == MIDNIGHT
    reader = desk.reader(release, judged)
    assert reader.read(ROW, None).values["value"] == 2.0
    assert reader.look_up("reading", ROW) == {"value": 2.0}


def test_what_serves_beside_a_new_release_stays_fresh_by_its_own_definitions(desk: Desk) -> None:
    old, old_product = desk.register(1), desk.product
    desk.rewrite("features.yaml", longer_ttl)
    new, new_product = desk.register(2), desk.product
    found = desk.publish(new, old)
    assert [one.release_id for one in found] == [new.release_id, old.release_id]
    much_later = minute(5000 + 25 * 60)
    assert desk.reader(old, old_product).read(ROW, much_later).values["value"] is None
    assert desk.reader(new, new_product).read(ROW, much_later).values["value"] == 2.0


def test_releases_with_the_same_definitions_share_a_publication(desk: Desk) -> None:
    first, second = desk.register(1), desk.register(2)
    assert [one.release_id for one in desk.publish(second, first)] == [second.release_id]


def test_a_release_that_this_code_cannot_compute_keeps_what_it_has(desk: Desk) -> None:
    release = desk.register(1)
    foreign = FeaturesPart(service="everything", definitions_sha256="f" * 64)
    gone = release.model_copy(update={"features": foreign})
    new, kept = desk.publish(release, gone)
    assert new.publication is not None
    assert kept.publication is None
    assert "keeps what is online: it was judged with features by definitions ffffffffffff" in kept.sentence


def test_data_that_does_not_meet_its_expectations_stays_offline(desk: Desk) -> None:
    release, product = desk.register(1), desk.product
    desk.publish(release)
    spec = {
        "expect": "column_values_to_be_between",
        "arguments": {"column": "value", "min_value": 100, "max_value": 200},
        "why": "a test",
    }
    suite = {"version": "1.0.0", "tables": {"readings": [spec]}}
    (desk.folder / "expectations.yaml").write_text(yaml.safe_dump(suite))
    desk.rewrite("product.yaml", lambda content: content["files"].update(expectations="expectations.yaml"))
    (held,) = desk.publish(release)
    assert held.publication is None
    assert held.sentence.startswith("held: schema_valid: readings: ")
    assert desk.reader(release, product).published_at() == MIDNIGHT


def answered(desk: Desk, release: Release, *reads: FeaturesRead) -> None:
    """Puts records of answers into the provenance store, as the shipper does."""
    now, frames, end = datetime.now(UTC), [], 0
    for number, features in enumerate(reads):
        of_release = {"release_id": release.release_id, "route_reason": RouteReason.ASSIGNED}
        payload = make_record(number, features=features, answered_at=now, **of_release).log_bytes()
        frames.append(Frame(Kind.RESPONSE, payload, end, end + len(payload), 0))
        end += len(payload)
    store = ProvenanceStore(desk.home.provenance_url)
    store.write(Progress(f"{now.timestamp()}-a.wal", tuple(frames), (), end))
    store.close()


def test_mlp_skew_passes_honest_answers_and_fails_planted_ones(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    release, product = desk.register(1), desk.product
    desk.publish(release)
    reader = desk.reader(release, product)
    honest = [reader.read({"sensor": sensor, "site": 7}, None) for sensor in "ab"]
    answered(desk, release, *honest)
    assert mlp(["skew", NAME, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["records"], told["compared"], told["rate"], told["passed"]) == (2, 2, 0.0, True)

    spoilt = honest[0].model_copy(update={"values": {**honest[0].values, "value": 3.0}})
    answered_wrong = [honest[1], honest[1], spoilt]
    records = ProvenanceStore(desk.home.provenance_url)
    assert len(list(records.scan(NAME, minute(0), datetime(2100, 1, 1, tzinfo=UTC)))) == 2
    records.close()
    (desk.home.root / "provenance.sqlite").unlink()
    answered(desk, release, *answered_wrong)
    assert mlp(["skew", NAME, "--json"]) == 1
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["features"]["value"]["rate"] == pytest.approx(1 / 3)
    (example,) = told["features"]["value"]["examples"]
    assert (example["logged"], example["joined"]) == (3.0, 2.0)
    assert "1 of 6 features of flight_assistant differ" in captured.err
    assert mlp(["skew", NAME, "--at-most", "0.5", "--release", release.release_id[:8]]) == 0
    assert "logged 3.0" in capsys.readouterr().out


def test_mlp_skew_of_no_answers_is_a_failure_that_says_why(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    release = desk.register(1)
    assert mlp(["skew", NAME]) == 1
    assert "nothing of flight_assistant could be compared: 0 answers" in capsys.readouterr().err
    desk.publish(release)
    honest = desk.reader(release, desk.product).read(ROW, None)
    unnamed = honest.model_copy(update={"features_sha256": None})
    lost = honest.model_copy(update={"features_sha256": "9" * 64})
    other = honest.model_copy(update={"definitions_sha256": "8" * 64})
    answered(desk, release, unnamed, lost, other)
    assert mlp(["skew", NAME]) == 1
    said = capsys.readouterr().err
    assert "1: the record does not say which features were online" in said
    assert "1: definitions 888888888888 cannot be computed" in said
    assert "features 999999999999 is missing" in said
    assert mlp(["skew", NAME, "--from", "2020-01-02", "--to", "2020-01-01"]) == 2
