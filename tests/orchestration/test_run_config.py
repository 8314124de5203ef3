"""What run config may say, for whoever reaches the webserver may write it: hyperparameters, and no other home."""

from pathlib import Path

import pytest
from dagster import DagsterInvalidConfigError, Definitions, JobDefinition, validate_run_config

from assets.continuous_training import job_name
from definitions import platform_definitions
from resources.launcher import POD_VARIABLE
from resources.state import PROJECT

PRODUCT = "flight_assistant"


@pytest.fixture
def on_kubernetes(monkeypatch: pytest.MonkeyPatch) -> Definitions:
    """The code location with all that resources have to set, the pod's file among it."""
    monkeypatch.setenv(POD_VARIABLE, str(PROJECT / "deploy" / "training_pod.yaml"))
    return platform_definitions([PROJECT / "products" / PRODUCT])


def jobs_of(defs: Definitions) -> list[JobDefinition]:
    """The product's own job, and the one of Dagster behind every other selection."""
    return [defs.resolve_job_def(job_name(PRODUCT)), defs.resolve_implicit_global_asset_job_def()]


@pytest.mark.parametrize(
    ("resource", "setting"),
    [("store", "home_path"), ("io_manager", "home_path"), ("launcher", "home_path"), ("launcher", "pod_file")],
)
def test_no_run_takes_place_in_another_home_or_pod(
    on_kubernetes: Definitions, tmp_path: Path, resource: str, setting: str
) -> None:
    """With the ledger elsewhere, keys made in a home of one's own would sign evidence for the real one."""
    asked = {"resources": {resource: {"config": {setting: str(tmp_path)}}}}
    for job in jobs_of(on_kubernetes):
        with pytest.raises(DagsterInvalidConfigError, match=f'unexpected config entry "{setting}"'):
            validate_run_config(job, asked)


def test_hyperparameters_may_be_set_for_one_run(on_kubernetes: Definitions) -> None:
    asked = {"ops": {f"{PRODUCT}__candidate": {"config": {"seed": 7}}}}
    assert validate_run_config(jobs_of(on_kubernetes)[0], asked)
