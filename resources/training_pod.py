"""The pod that trains on Kubernetes: a file of configuration, and the pod spec that code makes of it.

A GPU request in run tags gets lost when people launch from the UI or backfill. Here it is part of the
spec that every launch uses, and `gpus` has no default, so that no launch path can lose it.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ml_platform.contracts.base import Contract
from ml_platform.lineage.object_store import URL_VARIABLE

CONTAINER = "train"
ENTRY = "ml_platform.families.lora.entry"

SEEN = {
    "work/requests": True,
    "work/candidates": False,
    "artifacts": False,
    "base_models": False,
    "mlflow_artifacts": False,
}
"""The folders of the home that a pod sees, and whether it may only read them.

Never the whole home: the keys that sign lie in it, as the same user, and so do staged adapters and the ledger.
"""


class Toleration(Contract):
    """A taint that the pod may run beside, in the words of Kubernetes."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class SecretKey(Contract):
    """Where a secret value lives; the value itself never stands in a file of this project."""

    secret: str
    key: str


class Volume(Contract):
    """A persistent volume claim and where the pod sees it."""

    claim: str
    path: str
    read_only: bool = False


class TrainingPod(Contract):
    """deploy/training_pod.yaml.

    `home` is the claim that holds ML_PLATFORM_HOME; it must be the volume that the Dagster run sees, for
    the request is read from it, and the candidate is stored in it unless there is an object store. The pod sees the
    folders of it that training needs, `SEEN`. Memory and storage are Kubernetes quantities, times are in minutes.
    """

    namespace: str
    image: str
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str | None = None
    gpus: Annotated[int, Field(ge=1)]
    gpu_resource: str
    cpu: str
    memory: str
    ephemeral_storage: str
    shared_memory: str
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    home: Volume
    volumes: dict[str, Volume] = {}
    env: dict[str, str] = {}
    secrets: dict[str, SecretKey] = {}
    labels: dict[str, str] = {}
    run_as_user: Annotated[int, Field(ge=1)]
    start_within_minutes: Annotated[float, Field(gt=0.0)]
    finish_within_minutes: Annotated[float, Field(gt=0.0)]
    kubeconfig: str | None = None
    kube_context: str | None = None
    poll_seconds: Annotated[float, Field(gt=0.0)] = 10.0

    @model_validator(mode="after")
    def _mounts_the_home_by_its_folders_only(self) -> Self:
        if whole := [name for name, volume in self.volumes.items() if volume.claim == self.home.claim]:
            raise ValueError(
                f"volumes: {', '.join(whole)} is the claim of the home, whose keys a training pod must not see. Leave "
                "it out: the pod gets the folders that it needs."
            )
        return self

    def command(self, request: PurePosixPath) -> list[str]:
        """The training process for a request file below the home; one process a GPU.

        `request` is relative to the home.
        """
        path = str(PurePosixPath(self.home.path) / request)
        if self.gpus == 1:
            return ["python", "-m", ENTRY, path]
        return ["torchrun", "--standalone", f"--nproc-per-node={self.gpus}", "-m", ENTRY, path]

    def pod_spec(self, request: PurePosixPath, artifact_url: str | None = None) -> dict[str, Any]:
        """The whole pod spec, GPU request included, in the words of Kubernetes.

        `artifact_url` is the object store of whoever launches, None for the home: the candidate has to lie where it
        is looked for.
        """
        limits = {
            "cpu": self.cpu,
            "memory": self.memory,
            "ephemeral-storage": self.ephemeral_storage,
            self.gpu_resource: str(self.gpus),
        }
        claims = {"home": self.home, **self.volumes}
        return {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": round(60 * self.finish_within_minutes),
            "automountServiceAccountToken": False,
            "serviceAccountName": self.service_account,
            "imagePullSecrets": [{"name": name} for name in self.image_pull_secrets],
            "nodeSelector": self.node_selector,
            "tolerations": [toleration.model_dump(exclude_none=True) for toleration in self.tolerations],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": self.run_as_user,
                "fsGroup": self.run_as_user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": CONTAINER,
                    "image": self.image,
                    "command": self.command(request),
                    "env": self._environment(artifact_url),
                    "resources": {"requests": limits, "limits": limits},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [*self._mounts(), {"name": "shared-memory", "mountPath": "/dev/shm"}],  # noqa: S108
                }
            ],
            "volumes": [
                *({"name": name, "persistentVolumeClaim": _claim(volume)} for name, volume in claims.items()),
                {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": self.shared_memory}},
            ],
        }

    def _mounts(self) -> list[dict[str, Any]]:
        home = PurePosixPath(self.home.path)
        return [
            *(
                {"name": "home", "mountPath": str(home / folder), "subPath": folder, "readOnly": only_read}
                for folder, only_read in SEEN.items()
            ),
            *({"name": name, "mountPath": v.path, "readOnly": v.read_only} for name, v in self.volumes.items()),
        ]

    def _environment(self, artifact_url: str | None) -> list[dict[str, Any]]:
        fixed = {"ML_PLATFORM_HOME": self.home.path, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        # One that stands in the file counts: it may be the name by which pods reach the same store.
        inherited = {URL_VARIABLE: artifact_url} if artifact_url else {}
        plain: Mapping[str, str] = {**inherited, **self.env, **fixed}
        return [
            *({"name": name, "value": value} for name, value in sorted(plain.items())),
            *(
                {"name": name, "valueFrom": {"secretKeyRef": {"name": place.secret, "key": place.key}}}
                for name, place in sorted(self.secrets.items())
            ),
        ]


def _claim(volume: Volume) -> dict[str, Any]:
    return {"claimName": volume.claim, "readOnly": volume.read_only}
