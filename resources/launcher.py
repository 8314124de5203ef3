"""Where training runs: in a process beside Dagster, or in a pod with GPUs; one script in both, through Pipes."""

import functools
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetExecutionContext,
    ConfigurableResource,
    DagsterExecutionInterruptedError,
    OpExecutionContext,
    PipesMessageReader,
    PipesSubprocessClient,
    PipesTempFileMessageReader,
)
from dagster._core.errors import DagsterPipesExecutionError
from dagster._core.pipes.context import PipesMessageHandler
from dagster_pipes import PipesParams

from ml_platform.contracts.home import Home
from ml_platform.errors import InvalidInputError, TrainingError
from ml_platform.lineage.object_store import URL_VARIABLE
from resources.state import PROJECT, home_at
from resources.training_pod import ENTRY, SEEN, TrainingPod

if TYPE_CHECKING:
    from dagster_k8s import PipesK8sClient

POD_VARIABLE = "ML_PLATFORM_TRAINING_POD"
LAUNCH_LABEL = "ml-platform/run"

Messages = list[Mapping[str, Any]]
"""What the training process said through `report_custom_message`, in order."""


class TrainingLauncher(ConfigurableResource[Any], ABC):
    """Runs the training script for a request file; whatever the place, progress streams into the event log."""

    home_path: str = ""

    @abstractmethod
    def launch(self, context: AssetExecutionContext, request: Path) -> Messages:
        """Trains as `request`, a file below the home, says, and returns the messages of the process.

        Raises TrainingError when the process fails.
        """


class SubprocessLauncher(TrainingLauncher):
    """Training in a process of its own on this machine."""

    def launch(self, context: AssetExecutionContext, request: Path) -> Messages:
        """See TrainingLauncher."""
        home = home_at(self.home_path)
        environment = {"ML_PLATFORM_HOME": str(home.root), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
        reader = _LocalReader()
        client = PipesSubprocessClient(env=environment, cwd=str(PROJECT), message_reader=reader)
        try:
            done = client.run(context=context.op_execution_context, command=[sys.executable, "-m", ENTRY, str(request)])
        except DagsterPipesExecutionError as error:
            raise TrainingError(
                f"training failed: {reader.reason(error)} What was trained up to the last checkpoint is kept; run "
                "again to go on from there."
            ) from error
        return list(done.get_custom_messages())


class KubernetesLauncher(TrainingLauncher):
    """Training in a pod; `pod_file` describes it.

    A pod that succeeded or was cancelled is deleted, a pod that failed is kept for its logs.
    """

    pod_file: str

    def launch(self, context: AssetExecutionContext, request: Path) -> Messages:
        """See TrainingLauncher."""
        from dagster_k8s.client import DagsterK8sError

        pod = TrainingPod.read(Path(self.pod_file))
        home = home_at(self.home_path)
        inside = _below_home(request, home)
        for folder in SEEN:  # Kubernetes would make what is not there, as root
            (home.root / folder).mkdir(parents=True, exist_ok=True)
        reader = _pod_reader()
        client = _watchful_client(pod, reader)
        try:
            done = client.run(
                context=context.op_execution_context,
                namespace=pod.namespace,
                base_pod_meta={"labels": {**pod.labels, LAUNCH_LABEL: context.run.run_id}},
                base_pod_spec=pod.pod_spec(inside, os.environ.get(URL_VARIABLE)),
                pod_wait_timeout=60 * (pod.start_within_minutes + pod.finish_within_minutes),
                delete_pod_on_completion=False,
            )
        except DagsterExecutionInterruptedError:
            _delete_pods(pod, context.run.run_id)
            raise
        except DagsterK8sError as error:
            raise TrainingError(
                f"the training pod did not finish: {reader.reason(error)} It is kept, if it is still there: "
                f"kubectl -n {pod.namespace} get pods -l {LAUNCH_LABEL}={context.run.run_id}"
            ) from error
        _delete_pods(pod, context.run.run_id)
        return list(done.get_custom_messages())


def launcher_from_environment() -> TrainingLauncher:
    """The launcher of this deployment: Kubernetes when ML_PLATFORM_TRAINING_POD names a file, else a process.

    Raises ContractError at once when that file is wrong, not at the first training.
    """
    pod_file = os.environ.get(POD_VARIABLE)
    if not pod_file:
        return SubprocessLauncher()
    TrainingPod.read(Path(pod_file))
    return KubernetesLauncher(pod_file=str(Path(pod_file).resolve()))


class _Remembering(PipesMessageReader):
    """A message reader that still knows what the process said when its client has raised."""

    _heard: PipesMessageHandler | None = None

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        self._heard = handler
        with super().read_messages(handler) as params:  # type: ignore[safe-super] # mixed into a reader that has it
            yield params

    def reason(self, error: Exception) -> str:
        """The error that the process reported of itself, or else what its client saw."""
        said = self._heard.get_custom_messages() if self._heard else ()
        told = [str(message["error"]) for message in said if isinstance(message, dict) and "error" in message]
        return told[-1] if told else f"{error}. The step's standard error says more."


class _LocalReader(_Remembering, PipesTempFileMessageReader):
    pass


def _pod_reader() -> _Remembering:
    from dagster_k8s import PipesK8sPodLogsMessageReader

    class PodReader(_Remembering, PipesK8sPodLogsMessageReader):
        pass

    return PodReader()


def _below_home(request: Path, home: Home) -> PurePosixPath:
    if not request.is_relative_to(home.root):
        raise InvalidInputError(
            f"{request}: the request must lie below the home {home.root}, which the pod sees as its volume."
        )
    return PurePosixPath(request.relative_to(home.root).as_posix())


def _watchful_client(pod: TrainingPod, reader: "_Remembering") -> "PipesK8sClient":
    """A client that notices a pod which never starts, or which somebody deletes.

    dagster_k8s takes a pod that is not there for one that is still to come, and waits a day.
    """
    from dagster_k8s import PipesK8sClient
    from dagster_k8s.client import DagsterK8sError, DagsterKubernetesClient

    class WatchfulClient(PipesK8sClient):
        @contextmanager
        def consume_pod_logs(
            self,
            context: OpExecutionContext | AssetExecutionContext,
            client: DagsterKubernetesClient,
            namespace: str,
            pod_name: str,
            enable_multi_container_logs: bool = False,
            ignore_containers: set[Any] | None = None,
        ) -> Iterator[None]:
            seconds = 60 * pod.start_within_minutes
            waiting = functools.partial(client.wait_for_pod, pod_launch_timeout=seconds)
            client.wait_for_pod = waiting  # type: ignore[method-assign]
            options = (enable_multi_container_logs, ignore_containers)
            with super().consume_pod_logs(context, client, namespace, pod_name, *options):
                selector = f"metadata.name={pod_name}"
                if not client.core_api.list_namespaced_pod(namespace=namespace, field_selector=selector).items:
                    raise DagsterK8sError(f"Pod {pod_name} was deleted from outside while it ran")
                yield

    return WatchfulClient(
        message_reader=reader,
        kubeconfig_file=pod.kubeconfig,
        kube_context=pod.kube_context,
        poll_interval=pod.poll_seconds,
    )


def _delete_pods(pod: TrainingPod, run_id: str) -> None:
    import kubernetes

    api = kubernetes.client.CoreV1Api()
    for found in api.list_namespaced_pod(pod.namespace, label_selector=f"{LAUNCH_LABEL}={run_id}").items:
        api.delete_namespaced_pod(found.metadata.name, pod.namespace)
