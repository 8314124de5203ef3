"""MLflow sees every training run: hyperparameters, each step's numbers, the loss curve, environment and data."""

import importlib.metadata
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_platform.contracts.home import Home
from ml_platform.families.lora.request import TrainingRequest
from ml_platform.lineage.artifacts import Artifact
from ml_platform.lineage.exclusive import PATIENCE_SECONDS, exclusively

SECONDS_BETWEEN_WRITES = 5.0
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}
_MAX_DIGEST = 36
"""Characters that MLflow keeps of a dataset's digest; the whole one is a tag."""


class Tracker:
    """The MLflow run of one training request, in the product's experiment.

    A training that was killed goes on in the run that it began. Whatever MLflow does, training is not
    lost: the first failure is told through `warn`, and nothing more is sent.
    """

    def __init__(self, home: Home, request: TrainingRequest, warn: Callable[[str], None]) -> None:
        self.home, self.request, self.warn = home, request, warn
        self.run_id: str | None = None
        self._client: Any = None
        self._down = False
        self._waiting: list[tuple[int, dict[str, float], int]] = []
        self._written = 0.0

    def listen(self, step: int, values: dict[str, float]) -> None:
        """Takes the numbers of a step; they are sent every few seconds."""
        self._waiting.append((step, values, int(time.time() * 1000)))
        if time.monotonic() - self._written >= SECONDS_BETWEEN_WRITES:
            self._unless_down("log metrics", self._flush)

    def finish(self, candidate: Artifact) -> str | None:
        """Completes the run with what the candidate is made of; its id, or None when MLflow is down.

        A candidate that was there before keeps the run that trained it.
        """
        self._unless_down(f"log candidate {candidate.sha256[:12]}", lambda: self._finish(candidate))
        return None if self._down else self.run_id

    def fail(self, reason: str) -> None:
        """Says in the run why training ended; a later attempt goes on in the same run."""

        def work() -> None:
            self._flush()
            self._client.set_tag(self.run_id, "failure", reason[:5000])
            self._client.set_terminated(self.run_id, "FAILED")

        if self.run_id is not None:
            self._unless_down("log a failure", work)

    def _finish(self, candidate: Artifact) -> None:
        client = self._connect()
        trained = f"tags.candidate_sha256 = '{candidate.sha256}'"
        if found := client.search_runs([self._experiment()], trained, max_results=1):
            self.run_id = str(found[0].info.run_id)
            return
        self._flush()
        run_id = self._run()
        if candidate.reused:
            self._log_losses(candidate)
        self._log_candidate(candidate)
        client.set_terminated(run_id)

    def _unless_down(self, what: str, work: Callable[[], None]) -> None:
        if self._down:
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001 - MLflow fails in the ways of its stores: requests, SQLAlchemy, files
            self._down = True
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            self.warn(f"MLflow could not {what}: {reason} Training goes on without it; the candidate holds the losses.")

    def _connect(self) -> Any:
        if self._client is None:
            os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
            self.home.mlflow_artifacts.mkdir(parents=True, exist_ok=True)
            # MLflow creates the tables of a new database without a lock of its own.
            with exclusively(self.home.mlflow_artifacts / ".lock", within_seconds=PATIENCE_SECONDS):
                from mlflow import MlflowClient

                logging.getLogger("alembic").setLevel(logging.WARNING)
                client = MlflowClient(self.home.mlflow_url)
                self._client = client
                self._experiment()
        return self._client

    def _experiment(self) -> str:
        product, uri = self.request.product, self.home.mlflow_url
        if found := self._client.get_experiment_by_name(product):
            return str(found.experiment_id)
        remote = uri.startswith(("http://", "https://"))
        location = None if remote else (self.home.mlflow_artifacts / product).resolve().as_uri()
        return str(self._client.create_experiment(product, artifact_location=location))

    def _run(self) -> str:
        """The run of this request: the unfinished one of an earlier attempt, or a new one."""
        if self.run_id is None:
            client = self._connect()
            begun = f"tags.request_sha256 = '{self.request.sha256}' and attributes.status != 'FINISHED'"
            found = client.search_runs([self._experiment()], begun, max_results=1)
            if found:
                self.run_id = str(found[0].info.run_id)
                client.update_run(self.run_id, status="RUNNING")
            else:
                self.run_id = self._begin(client)
        return self.run_id

    def _begin(self, client: Any) -> str:
        from mlflow.entities import Dataset, DatasetInput

        request = self.request
        tags = {"request_sha256": request.sha256, "training_set_sha256": request.training_set_sha256}
        name = f"{request.product} {request.as_of.isoformat()}"
        run_id = str(client.create_run(self._experiment(), run_name=name, tags=tags).info.run_id)
        for parameter, value in sorted(request.training.model_dump(mode="json").items()):
            client.log_param(run_id, parameter, value)
        client.log_param(run_id, "as_of", request.as_of.isoformat())
        client.log_param(run_id, "prompt_version", request.prompt.version)
        client.log_text(run_id, _environment(), "environment.txt")
        client.log_dict(run_id, request.model_dump(mode="json"), "request.json")
        sha256 = request.training_set_sha256
        source = json.dumps({"artifact": f"training_set/{sha256}"})
        dataset = Dataset(f"{request.product} training set", sha256[:_MAX_DIGEST], "artifact", source)
        client.log_inputs(run_id, [DatasetInput(dataset)])
        return run_id

    def _flush(self) -> None:
        from mlflow.entities import Metric

        if self._waiting:
            run_id = self._run()
            metrics = [
                Metric(name, value, moment, step)
                for step, values, moment in self._waiting
                for name, value in values.items()
            ]
            for start in range(0, len(metrics), 500):
                self._client.log_batch(run_id, metrics=metrics[start : start + 500])
            self._waiting.clear()
        self._written = time.monotonic()

    def _log_losses(self, candidate: Artifact) -> None:
        losses = json.loads(candidate.file("loss.json").read_bytes())
        for point in [*losses["train"], *losses["validation"]]:
            values = {name: value for name, value in point.items() if name != "step"}
            self._waiting.append((int(point["step"]), values, int(time.time() * 1000)))
        self._flush()

    def _log_candidate(self, candidate: Artifact) -> None:
        client, run_id = self._client, self._run()
        client.log_figure(run_id, loss_figure(json.loads(candidate.file("loss.json").read_bytes())), "loss.png")
        for name in ("loss.json", "pack_plan.json", "adapter/adapter_config.json"):
            client.log_artifact(run_id, str(candidate.file(name)), Path(name).parent.as_posix().strip("."))
        client.log_dict(run_id, candidate.facts, "candidate.json")
        for name in ("adapter_sha256", "base_sha256"):
            client.set_tag(run_id, name, candidate.facts[name])
        client.set_tag(run_id, "candidate_sha256", candidate.sha256)


def loss_figure(losses: dict[str, Any]) -> Any:
    """The training and validation loss by step, and which adapter was kept, as a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    train, validation = losses["train"], losses["validation"]
    axes.plot([p["step"] for p in train], [p["loss"] for p in train], label="training", linewidth=1)
    if validation:
        axes.plot([p["step"] for p in validation], [p["validation_loss"] for p in validation], "o-", label="validation")
    axes.axvline(losses["kept_step"], color="grey", linestyle=":", label="adapter kept")
    axes.set(xlabel="optimizer step", ylabel="loss per supervised token", ylim=(0, None))
    axes.legend()
    return figure


def _environment() -> str:
    """Python, platform and every installed distribution, as `pip freeze` would list them."""
    installed = sorted(
        {f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions()}, key=str.lower
    )
    return "\n".join([f"# Python {platform.python_version()}", f"# {platform.platform()}", *installed, ""])
