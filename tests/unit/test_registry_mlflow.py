"""MLflow mirrors what the ledger says, and its absence costs nothing else."""

import logging
from datetime import date, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.events import EventKind
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.errors import StorageError
from ml_platform.lineage.exclusive import exclusively
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.story import tell
from ml_platform.registry import mlflow_registry
from ml_platform.registry.mlflow_registry import MlflowRegistry
from ml_platform.release.controller import Controller, Move
from ml_platform.release.mirroring import mirror_slots
from tests.samples.releases import (
    NOW,
    PRODUCT,
    inputs_of,
    make_controller,
    make_policy,
    make_release,
    make_results,
    pin,
)

LATER = NOW + timedelta(hours=1)
RELEASE = make_release()
NEWER = make_release(date(2013, 4, 7))
STATE = DeploymentState(product=PRODUCT, epoch=3, sequence=12)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which take two seconds to make."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowRegistry(f"sqlite:///{folder / 'mlflow.sqlite'}", folder / "files").versions(PRODUCT)
    return folder / "mlflow.sqlite"


@pytest.fixture
def registry(template: Path, tmp_path: Path) -> MlflowRegistry:
    path = tmp_path / "mlflow.sqlite"
    path.write_bytes(template.read_bytes())
    return MlflowRegistry(f"sqlite:///{path}", tmp_path / "files")


@pytest.fixture
def client(registry: MlflowRegistry) -> MlflowClient:
    return MlflowClient(registry.tracking_uri, registry_uri=registry.tracking_uri)


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    folder = tmp_path / "candidate"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def aliases_of(client: MlflowClient) -> dict[str, str]:
    """Versions by alias; a server gives texts, a database numbers."""
    return {name: str(version) for name, version in client.get_registered_model(PRODUCT).aliases.items()}


def serving(**slots: Release) -> DeploymentState:
    """A state with releases in slots."""
    held = {SlotName(name): release.release_id for name, release in slots.items()}
    return STATE.model_copy(update={"slots": held})


def test_a_release_is_registered_with_the_whole_tuple_and_links_both_ways(
    registry: MlflowRegistry, client: MlflowClient, candidate: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text("<p>report</p>")
    done = registry.register(RELEASE, candidate, "eligible", STATE, [page])
    assert (done.version, done.warning) == ("1", "")
    version = client.get_model_version(PRODUCT, "1")
    assert (version.source, version.run_id) == (str(candidate), done.run_id)
    assert Release.model_validate_json(version.tags["release"]) == RELEASE
    told = {name: version.tags[name] for name in ("release_id", "as_of", "verdict", "ledger_epoch", "candidate_sha256")}
    assert told == {
        "release_id": RELEASE.release_id,
        "as_of": "2013-03-31",
        "verdict": "eligible",
        "ledger_epoch": "3",
        "candidate_sha256": RELEASE.model.candidate_sha256,
    }
    run = client.get_run(str(done.run_id))
    assert run.data.tags["release_id"] == RELEASE.release_id
    assert run.data.tags["model_version"] == "1"
    folder = f"release/{RELEASE.release_id[:12]}"
    assert {file.path for file in client.list_artifacts(str(done.run_id), folder)} == {
        f"{folder}/release.json",
        f"{folder}/report.html",
    }
    assert list((tmp_path / "files").rglob("report.html"))


def test_registering_again_gives_the_same_version_with_the_newest_verdict(
    registry: MlflowRegistry, client: MlflowClient, candidate: Path
) -> None:
    registry.register(RELEASE, candidate, "held: late_recall", STATE)
    assert client.get_model_version(PRODUCT, "1").tags["verdict"] == "held: late_recall"
    again = registry.register(RELEASE, candidate, "eligible", STATE)
    assert again.version == "1"
    assert client.get_model_version(PRODUCT, "1").tags["verdict"] == "eligible"
    assert len(client.search_model_versions(f"name = '{PRODUCT}'")) == 1


def test_the_training_run_of_the_candidate_is_found(
    registry: MlflowRegistry, client: MlflowClient, candidate: Path
) -> None:
    location = (registry.artifact_root / "training").as_uri()
    experiment = client.create_experiment("training", artifact_location=location)
    run = client.create_run(experiment, tags={"candidate_sha256": RELEASE.model.candidate_sha256})
    assert registry.register(RELEASE, candidate, "eligible", STATE).run_id == run.info.run_id


def test_versions_are_found_by_release_id(registry: MlflowRegistry, candidate: Path) -> None:
    registry.register(RELEASE, candidate, "eligible", STATE)
    registry.register(NEWER, candidate, "held: safe", STATE)
    assert registry.versions(PRODUCT) == {RELEASE.release_id: "1", NEWER.release_id: "2"}
    assert registry.versions("other") == {}


def test_aliases_follow_the_slots(registry: MlflowRegistry, client: MlflowClient, candidate: Path) -> None:
    registry.register(RELEASE, candidate, "eligible", STATE)
    registry.register(NEWER, candidate, "eligible", STATE)
    done = registry.mirror(PRODUCT, lambda: serving(production=RELEASE, canary=NEWER))
    assert done.changes == ("production is version 1 (was unset)", "canary is version 2 (was unset)")
    assert aliases_of(client)["canary"] == "2"
    assert registry.mirror(PRODUCT, lambda: serving(production=RELEASE, canary=NEWER)).changes == ()
    done = registry.mirror(PRODUCT, lambda: serving(production=NEWER))
    assert done.changes == ("production is version 2 (was 1)", "canary is empty (was version 2)")
    assert aliases_of(client) == {"production": "2"}
    done = registry.mirror(PRODUCT, lambda: serving(production=RELEASE, shadow=NEWER))
    assert done.changes == ("production is version 1 (was 2)", "shadow is version 2 (was unset)")
    done = registry.mirror(PRODUCT, lambda: serving(production=RELEASE, canary=NEWER))
    assert done.changes == ("canary is version 2 (was unset)", "shadow is empty (was version 2)")


def test_an_alias_moved_by_hand_is_put_back(registry: MlflowRegistry, client: MlflowClient, candidate: Path) -> None:
    registry.register(RELEASE, candidate, "eligible", STATE)
    registry.register(NEWER, candidate, "held: safe", STATE)
    registry.mirror(PRODUCT, lambda: serving(canary=RELEASE))
    client.set_registered_model_alias(PRODUCT, "canary", "2")
    client.set_registered_model_alias(PRODUCT, "production", "2")
    done = registry.mirror(PRODUCT, lambda: serving(canary=RELEASE))
    assert done.changes == ("production is empty (was version 2)", "canary is version 1 (was 2)")
    assert aliases_of(client) == {"canary": "1"}


def test_a_version_made_by_hand_for_the_same_release_does_not_take_the_alias(
    registry: MlflowRegistry, client: MlflowClient, candidate: Path
) -> None:
    registry.register(RELEASE, candidate, "eligible", STATE)
    client.create_model_version(PRODUCT, "/elsewhere", tags={"release_id": RELEASE.release_id})
    registry.mirror(PRODUCT, lambda: serving(canary=RELEASE))
    assert aliases_of(client) == {"canary": "1"}


def test_a_slot_whose_release_mlflow_does_not_know_is_a_warning_and_no_alias(
    registry: MlflowRegistry, client: MlflowClient, candidate: Path
) -> None:
    assert "knows no release" in registry.mirror(PRODUCT, lambda: serving(canary=NEWER)).warning
    registry.register(RELEASE, candidate, "eligible", STATE)
    client.set_registered_model_alias(PRODUCT, "canary", "1")
    done = registry.mirror(PRODUCT, lambda: serving(canary=NEWER))
    assert "is not registered in MLflow" in done.warning
    assert aliases_of(client) == {}


@pytest.fixture
def quick_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.usefixtures("quick_refusal")
def test_a_server_that_is_down_is_a_warning_and_nothing_more(
    tmp_path: Path, candidate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = MlflowRegistry("http://user:secret@127.0.0.1:9", tmp_path / "files")
    with caplog.at_level(logging.WARNING):
        done = registry.register(RELEASE, candidate, "eligible", STATE)
        mirrored = registry.mirror(PRODUCT, lambda: serving(canary=RELEASE))
    assert (done.version, done.run_id, mirrored.changes) == (None, None, ())
    assert registry.versions(PRODUCT) == {}
    assert "could not register release" in done.warning
    assert "The ledger has recorded it" in done.warning
    assert "could not mirror the slots" in mirrored.warning
    assert done.warning in caplog.text
    assert "secret" not in caplog.text


def test_whoever_hangs_in_there_holds_up_nobody_for_longer_than_the_patience(
    registry: MlflowRegistry, candidate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_registry, "PATIENCE_SECONDS", 0.2)
    (tmp_path / "files").mkdir()
    with exclusively(tmp_path / "files" / ".lock"):
        done = registry.register(RELEASE, candidate, "eligible", STATE)
        assert registry.mirror(PRODUCT, lambda: serving(canary=RELEASE)).warning
    assert (done.version, "another process has held" in done.warning) == (None, True)
    assert registry.register(RELEASE, candidate, "eligible", STATE).version == "1"


def test_a_damaged_database_is_a_warning_and_nothing_more(tmp_path: Path, candidate: Path) -> None:
    (tmp_path / "mlflow.sqlite").write_bytes(b"no database" * 1000)
    registry = MlflowRegistry(f"sqlite:///{tmp_path / 'mlflow.sqlite'}", tmp_path / "files")
    assert "not a database" in registry.register(RELEASE, candidate, "eligible", STATE).warning


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    """A controller whose ledger has RELEASE in the canary slot."""
    key = SigningKey.generate()
    made = make_controller(tmp_path, key)
    pin(made)
    for release in (RELEASE, NEWER):
        made.register_release(release, make_policy(), NOW, "run")
    made.record_verdicts(RELEASE, make_results(make_policy()), inputs_of(RELEASE), key, NOW, "run")
    assert isinstance(made.open_canary(PRODUCT, RELEASE.release_id, NOW, "run"), Move)
    return made


def alerts(controller: Controller) -> list[dict[str, object]]:
    return [event.payload for event in controller.ledger.events() if event.kind is EventKind.ALIAS_RESTORED]


def test_each_edit_by_hand_is_put_back_and_becomes_one_alert_in_the_ledger(
    registry: MlflowRegistry,
    client: MlflowClient,
    candidate: Path,
    controller: Controller,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for release in (RELEASE, NEWER):
        registry.register(release, candidate, "eligible", STATE)
    epoch = controller.state(PRODUCT).epoch

    def mirror() -> None:
        assert not mirror_slots(controller, registry, PRODUCT, LATER, "dagster run 7").warning
        assert aliases_of(client) == {"canary": "1"}

    mirror()
    assert alerts(controller) == [], "following the slots is no alert"
    client.set_registered_model_alias(PRODUCT, "canary", "2")
    client.set_registered_model_alias(PRODUCT, "production", "2")
    client.set_registered_model_tag(PRODUCT, "mlflow.user", "mallory")
    mirror()
    mirror()
    edited = {"found": "2", "found_release": NEWER.release_id, "edited_by": "mallory"}
    assert alerts(controller) == [
        {"alias": "production", "expected": None, **edited},
        {"alias": "canary", "expected": RELEASE.release_id, **edited},
    ]
    client.delete_registered_model_alias(PRODUCT, "canary")
    mirror()
    assert len(alerts(controller)) == 3
    event = controller.ledger.replay(PRODUCT).alert
    assert event is not None
    assert (event.actor, event.recorded_at) == ("dagster run 7", LATER)
    assert tell(event) == "ALERT: the alias canary was removed in MLflow by hand (mallory) and is put back"
    assert caplog.text.count("ALERT: the alias") == 3
    assert controller.state(PRODUCT).epoch == epoch
    controller.abort_canary(PRODUCT, RELEASE.release_id, "errors", LATER, "c")
    mirror_slots(controller, registry, PRODUCT, LATER, "c")
    assert aliases_of(client) == {}
    assert len(alerts(controller)) == 3


def test_a_version_made_by_hand_with_a_false_release_id_is_an_alert_like_any(
    registry: MlflowRegistry, client: MlflowClient, candidate: Path, controller: Controller
) -> None:
    registry.register(RELEASE, candidate, "eligible", STATE)
    mirror_slots(controller, registry, PRODUCT, LATER, "c")
    client.create_model_version(PRODUCT, "/elsewhere", tags={"release_id": "'; no release"})
    client.set_registered_model_alias(PRODUCT, "canary", "2")
    mirror_slots(controller, registry, PRODUCT, LATER, "c")
    client.set_registered_model_tag(PRODUCT, "mirrored_canary", "2")
    alert = alerts(controller)[0]
    assert (alert["found"], alert["found_release"], alert["edited_by"]) == ("2", None, "unknown")
    client.set_registered_model_alias(PRODUCT, "canary", "2")
    mirror_slots(controller, registry, PRODUCT, LATER, "c")
    assert len(alerts(controller)) == 2, "a forged tag of the mirror hides no unproven version"
    assert aliases_of(client) == {"canary": "1"}


def test_an_alert_that_cannot_be_recorded_leaves_the_edit_for_the_next_time(
    registry: MlflowRegistry, client: MlflowClient, candidate: Path, controller: Controller
) -> None:
    registry.register(RELEASE, candidate, "eligible", STATE)
    mirror_slots(controller, registry, PRODUCT, LATER, "c")
    client.set_registered_model_alias(PRODUCT, "production", "1")

    def fail(_: object) -> None:
        raise StorageError("the ledger's disk is full.")

    with pytest.raises(StorageError, match="disk is full"):
        registry.mirror(PRODUCT, lambda: controller.state(PRODUCT), fail)
    assert aliases_of(client)["production"] == "1"
    mirror_slots(controller, registry, PRODUCT, LATER, "c")
    assert len(alerts(controller)) == 1


@pytest.mark.usefixtures("quick_refusal")
def test_mlflow_being_down_delays_the_mirror_and_nothing_else(controller: Controller, tmp_path: Path) -> None:
    before = controller.ledger.events()
    registry = MlflowRegistry("http://127.0.0.1:9", tmp_path / "files")
    assert "could not mirror" in mirror_slots(controller, registry, PRODUCT, LATER, "c").warning
    assert controller.ledger.events() == before
    assert controller.advance_canary(PRODUCT, RELEASE.release_id, LATER, "c").sentence.startswith("canary went on")
