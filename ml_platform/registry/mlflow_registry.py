"""MLflow as the place where people look: versions, links, tags and aliases that mirror the ledger."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.release import Release
from ml_platform.errors import MlPlatformError
from ml_platform.lineage.exclusive import PATIENCE_SECONDS, exclusively
from ml_platform.registry.aliases import AliasEdit, Mirrored, log_edit, mirror_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

LOG = logging.getLogger(__name__)

MAX_TAG = 5000
"""Characters that every MLflow store takes in a tag; longer releases are in release.json alone."""

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}

CREDENTIALS = re.compile(r"//[^/@\s]+@")

T = TypeVar("T")


@dataclass(frozen=True)
class Registration:
    """What MLflow holds of a release now; without a version, `warning` says why."""

    version: str | None
    run_id: str | None
    warning: str = ""


@dataclass(frozen=True)
class MlflowRegistry:
    """MLflow's registry at a tracking URI; its experiments keep their files below `artifact_root`.

    Nothing here decides anything, and nothing raises because MLflow is down: the ledger has it all, and a later call
    catches up.
    """

    tracking_uri: str
    artifact_root: Path

    def register(
        self,
        release: Release,
        candidate: Path,
        verdict: str,
        state: DeploymentState,
        attachments: Sequence[Path] = (),
    ) -> Registration:
        """The version of a release, made unless it is there, its tags brought up to date.

        `candidate` is the folder of the artifact, `verdict` is `eligible` or `held: <gates>`, `attachments` are files
        for the run: reports and pictures. The run is the training run of that candidate, or a new one.
        """

        def work() -> Registration:
            with self._alone():
                run_id = self._run_of(release)
                version = self._version_of(release) or self._create(release, candidate, run_id)
                self._tag(release, version, run_id, verdict, state)
                self._attach(release, run_id, attachments)
            return Registration(str(version.version), run_id)

        done, warning = self._unless_down(f"register release {release.release_id[:12]}", work)
        return done or Registration(None, None, warning)

    def mirror(
        self, product: str, read_state: Callable[[], DeploymentState], report: Callable[[AliasEdit], None] = log_edit
    ) -> Mirrored:
        """Makes the aliases `production`, `canary` and `shadow` say what the slots hold, whoever changed them.

        The state is read once this process is alone, so that an older state never comes last. Each edit by hand is
        reported before it is put back; what `report` raises of our own errors leaves it as it was, for the next time.
        """

        def work() -> Mirrored:
            with self._alone():
                return mirror_aliases(self._client, product, self._known(product), read_state(), report)

        done, warning = self._unless_down(f"mirror the slots of {product}", work)
        return done or Mirrored(warning=warning)

    def versions(self, product: str) -> Mapping[str, str]:
        """Versions by release id; {} when MLflow is down or knows none."""
        return self._unless_down(f"list the versions of {product}", lambda: self._known(product))[0] or {}

    @cached_property
    def _client(self) -> "MlflowClient":
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        return MlflowClient(self.tracking_uri, registry_uri=self.tracking_uri)

    def _run_of(self, release: Release) -> str:
        """The newest run that trained this candidate, or a new one in the product's experiment."""
        experiments = [one.experiment_id for one in self._client.search_experiments()]
        trained = f"tags.candidate_sha256 = '{release.model.candidate_sha256}'"
        if found := self._client.search_runs(experiments, trained, max_results=1):
            return str(found[0].info.run_id)
        tags = {"candidate_sha256": release.model.candidate_sha256}
        run = self._client.create_run(
            self._experiment(release.product), run_name=f"{release.product} {release.data.as_of}", tags=tags
        )
        self._client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def _experiment(self, product: str) -> str:
        if found := self._client.get_experiment_by_name(product):
            return str(found.experiment_id)
        location = None if self._remote else (self.artifact_root / product).resolve().as_uri()
        return str(self._client.create_experiment(product, artifact_location=location))

    def _known(self, product: str) -> dict[str, str]:
        """Versions by release id; of several with one release id, the first that was made."""
        found = self._client.search_model_versions(f"name = '{product}'")
        newest_first = sorted(found, key=lambda one: int(one.version), reverse=True)
        return {one.tags["release_id"]: str(one.version) for one in newest_first if "release_id" in one.tags}

    def _version_of(self, release: Release) -> "ModelVersion | None":
        query = f"name = '{release.product}' and tags.release_id = '{release.release_id}'"
        return min(self._client.search_model_versions(query), key=lambda one: int(one.version), default=None)

    def _create(self, release: Release, candidate: Path, run_id: str) -> "ModelVersion":
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(release.product)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = str(candidate)
        if self._remote:
            # A server takes only sources below a run's artifacts.
            self._client.log_artifacts(run_id, str(candidate), "candidate")
            source = f"{self._client.get_run(run_id).info.artifact_uri}/candidate"
        # The tag is part of the creation, so that a crash leaves no version that is found by no release.
        tags = {"release_id": release.release_id}
        return self._client.create_model_version(release.product, source, run_id, tags=tags)

    def _tag(
        self, release: Release, version: "ModelVersion", run_id: str, verdict: str, state: DeploymentState
    ) -> None:
        text = release.canonical_bytes().decode()
        tags = {
            "as_of": release.data.as_of.isoformat(),
            "snapshot_sha256": release.data.snapshot_sha256,
            "training_set_sha256": release.data.training_set_sha256,
            "candidate_sha256": release.model.candidate_sha256,
            "adapter_sha256": release.model.adapter_sha256,
            "policy_version": release.promotion_policy.version,
            "verdict": verdict,
            "ledger_epoch": str(state.epoch),
            "ledger_sequence": str(state.sequence),
            "ledger_head_sha256": state.head_sha256,
            **({"release": text} if len(text) <= MAX_TAG else {}),
        }
        for name, value in tags.items():
            if version.tags.get(name) != value:
                self._client.set_model_version_tag(release.product, str(version.version), name, value)
        links = {"release_id": release.release_id, "model_version": str(version.version), "verdict": verdict}
        for name, value in links.items():
            self._client.set_tag(run_id, name, value)

    def _attach(self, release: Release, run_id: str, attachments: Sequence[Path]) -> None:
        folder = f"release/{release.release_id[:12]}"
        there = {Path(one.path).name for one in self._client.list_artifacts(run_id, folder)}
        if "release.json" not in there:
            self._client.log_text(run_id, release.canonical_bytes().decode(), f"{folder}/release.json")
        for path in attachments:
            if path.name not in there:
                self._client.log_artifact(run_id, str(path), folder)

    @property
    def _remote(self) -> bool:
        return self.tracking_uri.startswith(("http://", "https://"))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process of this machine at a time: MLflow creates its tables and its versions without a lock.

        One that is stopped or hangs in there is MLflow being down, and holds up nobody for longer than that.
        """
        self.artifact_root.mkdir(parents=True, exist_ok=True)
        with exclusively(self.artifact_root / ".lock", within_seconds=PATIENCE_SECONDS):
            yield

    def _unless_down(self, what: str, work: Callable[[], T]) -> tuple[T | None, str]:
        try:
            return work(), ""
        except MlPlatformError:
            raise  # not MLflow's
        except Exception as error:  # noqa: BLE001 - MLflow fails in the ways of its stores: requests, SQLAlchemy, files
            reason = CREDENTIALS.sub("//", next(iter(str(error).splitlines()), type(error).__name__))
            warning = (
                f"MLflow ({self._shown}) could not {what}: {reason} The ledger has recorded it; MLflow catches up "
                "with the next run."
            )
            LOG.warning(warning)
            return None, warning

    @property
    def _shown(self) -> str:
        return CREDENTIALS.sub("//", self.tracking_uri)
