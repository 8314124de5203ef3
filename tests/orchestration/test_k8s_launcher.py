"""Training on Kubernetes, against an API server that speaks HTTP and runs pods as processes."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dagster import AssetExecutionContext, DagsterInstance, ExecuteInProcessResult, asset, materialize

from ml_platform.contracts.home import Home
from ml_platform.errors import ContractError
from ml_platform.lineage.object_store import URL_VARIABLE
from resources.launcher import (
    POD_VARIABLE,
    KubernetesLauncher,
    SubprocessLauncher,
    TrainingLauncher,
    launcher_from_environment,
)
from resources.state import PROJECT
from resources.training_pod import TrainingPod
from tests.orchestration.cluster import Cluster

POD_FILE = PROJECT / "deploy" / "training_pod.yaml"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture
def full_cluster() -> Iterator[Cluster]:
    with Cluster(schedulable=False) as running:
        yield running


def train(cluster: Cluster, home: Path, request: Path, **changes: object) -> ExecuteInProcessResult:
    """Launches the training of a request on the cluster, from an asset, as the chain does."""
    here = {"kubeconfig": str(cluster.kubeconfig(home)), "poll_seconds": 0.05}
    settings = yaml.safe_load(POD_FILE.read_text()) | here | {"home": {"claim": "home", "path": str(home)}} | changes
    pod_file = home / "training_pod.yaml"
    pod_file.write_text(yaml.safe_dump(settings))
    launcher = KubernetesLauncher(home_path=str(home), pod_file=str(pod_file))

    @asset
    def trained(context: AssetExecutionContext, launcher: TrainingLauncher) -> None:
        launcher.launch(context, request)

    with DagsterInstance.ephemeral() as instance:
        return materialize([trained], resources={"launcher": launcher}, instance=instance, raise_on_error=False)


def failure(result: ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    error = event.step_failure_data.error
    assert error is not None
    return " ".join(part.message for part in (error, error.cause) if part is not None)


def a_request(home: Path) -> Path:
    path = home / "work" / "requests" / "r.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    return path


def test_the_shipped_configuration_asks_for_a_gpu_and_keeps_secrets_out(cluster: Cluster, tmp_path: Path) -> None:
    train(cluster, tmp_path, a_request(tmp_path))
    (pod,) = cluster.created
    spec, container = pod.body["spec"], pod.container
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["resources"]["requests"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert spec["nodeSelector"] == {"node-pool": "gpu"}
    assert spec["restartPolicy"] == "Never"
    assert spec["activeDeadlineSeconds"] == 360 * 60
    assert {mount["name"] for mount in container["volumeMounts"]} == {"home", "shared-memory"}
    assert spec["volumes"][0]["persistentVolumeClaim"]["claimName"] == "home"
    password = next(entry for entry in container["env"] if entry["name"] == "MLFLOW_TRACKING_PASSWORD")
    assert password["valueFrom"] == {"secretKeyRef": {"name": "mlflow", "key": "password"}}
    assert "value" not in password
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_a_pod_sees_what_training_needs_of_the_home_and_none_of_its_keys(cluster: Cluster, tmp_path: Path) -> None:
    train(cluster, tmp_path, a_request(tmp_path))
    (pod,) = cluster.created
    home = Home(tmp_path)
    mounts = [mount for mount in pod.container["volumeMounts"] if mount["name"] == "home"]
    assert {Path(mount["mountPath"]) for mount in mounts} == {
        home.work / "requests",
        home.work / "candidates",
        home.artifacts,
        home.base_models,
        home.mlflow_artifacts,
    }
    assert all(tmp_path / mount["subPath"] == Path(mount["mountPath"]) for mount in mounts)
    assert all(Path(mount["mountPath"]).is_dir() for mount in mounts), "or Kubernetes makes them, as root"
    assert [mount["subPath"] for mount in mounts if mount["readOnly"]] == ["work/requests"]


def test_the_volume_of_the_home_is_not_mounted_whole_under_another_name() -> None:
    settings = yaml.safe_load(POD_FILE.read_text())
    volumes = {"all": {"claim": settings["home"]["claim"], "path": "/all"}}
    with pytest.raises(ContractError, match="all is the claim of the home, whose keys"):
        TrainingPod.parse(settings | {"volumes": volumes}, where="test")


def variables_of(cluster: Cluster) -> dict[str, str | None]:
    """What stands in the environment of the one pod; None for what a secret holds."""
    (pod,) = cluster.created
    return {entry["name"]: entry.get("value") for entry in pod.container["env"]}


def test_a_candidate_goes_to_the_object_store_in_which_dagster_looks_for_it(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "s3://candidates/ml")
    train(cluster, tmp_path, a_request(tmp_path))
    assert variables_of(cluster)[URL_VARIABLE] == "s3://candidates/ml"


def test_without_an_object_store_the_pod_has_none_either(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    train(cluster, tmp_path, a_request(tmp_path))
    assert URL_VARIABLE not in variables_of(cluster)


def test_pods_may_reach_the_object_store_by_a_name_of_their_own(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "s3://candidates/ml")
    train(cluster, tmp_path, a_request(tmp_path), env={URL_VARIABLE: "s3://inside/ml"})
    assert variables_of(cluster)[URL_VARIABLE] == "s3://inside/ml"


def test_the_request_reaches_the_training_script_by_the_path_that_the_pod_sees(
    cluster: Cluster, tmp_path: Path
) -> None:
    train(cluster, tmp_path, a_request(tmp_path))
    (pod,) = cluster.created
    command = ["python", "-m", "ml_platform.families.lora.entry", f"{tmp_path}/work/requests/r.json"]
    assert pod.container["command"] == command


def test_several_gpus_are_trained_on_by_torchrun_with_one_process_each(tmp_path: Path) -> None:
    pod = TrainingPod.parse(yaml.safe_load(POD_FILE.read_text()) | {"gpus": 4}, where="test")
    command = pod.command(Path("work/r.json"))
    assert command[:3] == ["torchrun", "--standalone", "--nproc-per-node=4"]
    assert pod.pod_spec(Path("work/r.json"))["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"


@pytest.mark.parametrize("gpus", [None, 0, -1])
def test_a_configuration_cannot_lose_the_gpu_request(gpus: int | None) -> None:
    settings = yaml.safe_load(POD_FILE.read_text())
    settings.pop("gpus")
    with pytest.raises(ContractError, match="gpus"):
        TrainingPod.parse(settings if gpus is None else settings | {"gpus": gpus}, where="test")


def test_a_pod_that_failed_is_kept_and_the_failure_tells_how_to_find_it(cluster: Cluster, tmp_path: Path) -> None:
    result = train(cluster, tmp_path, a_request(tmp_path))
    assert not result.success
    assert len(cluster.pods) == 1
    said = failure(result)
    assert f"kubectl -n ml-training get pods -l ml-platform/run={result.run_id}" in said


def test_a_pod_that_is_deleted_from_outside_fails_the_step_instead_of_waiting_a_day(tmp_path: Path) -> None:
    with Cluster() as cluster:
        removed = threading.Event()

        def remove_the_first_pod(body: dict[str, object]) -> object:
            pod = Cluster.create(cluster, body)
            threading.Thread(target=lambda: (pod.log_from(0), cluster.delete(pod.name), removed.set())).start()
            return pod

        cluster.create = remove_the_first_pod  # type: ignore[method-assign,assignment]
        result = train(cluster, tmp_path, a_request(tmp_path), start_within_minutes=0.2)
        assert removed.wait(30)
    assert not result.success
    assert "training pod did not finish" in failure(result)


def test_a_pod_that_finds_no_node_in_time_fails_the_step(full_cluster: Cluster, tmp_path: Path) -> None:
    result = train(full_cluster, tmp_path, a_request(tmp_path), start_within_minutes=0.01)
    assert "Timed out while waiting for pod to become ready" in failure(result)


def test_a_request_outside_the_shared_home_is_refused_before_a_pod_is_made(cluster: Cluster, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    result = train(cluster, home, tmp_path / "elsewhere.json")
    assert "must lie below the home" in failure(result)
    assert not cluster.created


def test_kubernetes_is_chosen_by_one_variable_and_checked_when_the_code_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(POD_VARIABLE, raising=False)
    assert isinstance(launcher_from_environment(), SubprocessLauncher)
    monkeypatch.setenv(POD_VARIABLE, str(POD_FILE))
    assert isinstance(launcher_from_environment(), KubernetesLauncher)
    (tmp_path / "pod.yaml").write_text(POD_FILE.read_text().replace("gpus:", "gpu:"))
    monkeypatch.setenv(POD_VARIABLE, str(tmp_path / "pod.yaml"))
    with pytest.raises(ContractError, match="did you mean 'gpus'"):
        launcher_from_environment()


def test_what_the_training_process_says_of_its_failure_is_what_people_read(cluster: Cluster, tmp_path: Path) -> None:
    said = failure(train(cluster, tmp_path, a_request(tmp_path)))
    assert f"{tmp_path}/work/requests/r.json" in said
    assert "key 'product' is missing" in said
