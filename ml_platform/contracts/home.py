"""Where local state lives."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """The folder of all local state, `ML_PLATFORM_HOME`; no path is created by asking for it."""

    root: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Home":
        """The home that `ML_PLATFORM_HOME` names, or `.ml_platform` below the working directory."""
        values = os.environ if environment is None else environment
        return cls(Path(values.get("ML_PLATFORM_HOME") or ".ml_platform").resolve())

    @property
    def artifacts(self) -> Path:
        """The content-addressed store of snapshots, training sets, adapters and reports."""
        return self.root / "artifacts"

    @property
    def base_models(self) -> Path:
        """Base models as safetensors, each below its digest."""
        return self.root / "base_models"

    @property
    def ledger_url(self) -> str:
        """The SQLAlchemy URL of the ledger; `ML_PLATFORM_LEDGER_URL` may name PostgreSQL instead."""
        return os.environ.get("ML_PLATFORM_LEDGER_URL") or f"sqlite:///{self.root / 'ledger.sqlite'}"

    @property
    def provenance_log(self) -> Path:
        """Records of answers that are durable here and not yet in the store; one folder for all gateway workers."""
        return self.root / "provenance_log"

    @property
    def provenance_url(self) -> str:
        """The SQLAlchemy URL of the provenance store; `ML_PLATFORM_PROVENANCE_URL` may name PostgreSQL instead."""
        return os.environ.get("ML_PLATFORM_PROVENANCE_URL") or f"sqlite:///{self.root / 'provenance.sqlite'}"

    @property
    def monitoring_url(self) -> str:
        """The SQLAlchemy URL of the controller's looks and lease; `ML_PLATFORM_MONITORING_URL` may name PostgreSQL."""
        return os.environ.get("ML_PLATFORM_MONITORING_URL") or f"sqlite:///{self.root / 'monitoring.sqlite'}"

    @property
    def incidents(self) -> Path:
        """Post-mortems that the controller wrote, Markdown, one an incident."""
        return self.root / "incidents"

    @property
    def keys(self) -> Path:
        """Signing keys (0600) and the public keys that are trusted."""
        return self.root / "keys"

    @property
    def mlflow_url(self) -> str:
        """The tracking and registry store of MLflow; `MLFLOW_TRACKING_URI` may name a server."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.sqlite'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Where MLflow keeps plots and model files."""
        return self.root / "mlflow_artifacts"

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME: runs, events and schedules."""
        return self.root / "dagster"

    @property
    def manifests(self) -> Path:
        """The values of Dagster assets: `<asset key>/<partition>.json`."""
        return self.root / "manifests"

    @property
    def features(self) -> Path:
        """Feast's registry and online stores, one folder a product."""
        return self.root / "features"

    @property
    def work(self) -> Path:
        """Unfinished work: checkpoints, temporary folders and locks; safe to delete when nothing runs."""
        return self.root / "work"
