"""From a click in the UI to a canary: the real webserver and daemon, asked through GraphQL as the browser asks."""

from typing import Any

import pytest

from assets.chain import CHAIN
from assets.continuous_training import job_name
from benchmarks.tiny_product import LAST_COMPLETE_DAY
from ml_platform.contracts.policy import SlotName
from ml_platform.lineage.ledger import Ledger
from tests.e2e.conftest import Deployment

pytestmark = pytest.mark.early

LAUNCH_RUN = """
mutation LaunchPipelineExecution($executionParams: ExecutionParams!) {
  launchPipelineExecution(executionParams: $executionParams) {
    __typename
    ... on LaunchRunSuccess { run { id } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PythonError { message }
  }
}
"""
LAUNCH_BACKFILL = """
mutation LaunchPartitionBackfill($backfillParams: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfillParams) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
RUN = """
query Run($runId: ID!) {
  runOrError(runId: $runId) { ... on Run { status assetMaterializations { assetKey { path } partition } } }
}
"""
FAILED_STEPS = """
query Failures($runId: ID!) {
  logsForRun(runId: $runId) {
    ... on EventConnection { events { __typename ... on ExecutionStepFailureEvent { stepKey error { message } } } }
  }
}
"""
BACKFILL = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status runs { id status } } }
}
"""


def finished_run(deployment: Deployment, run_id: str) -> dict[str, Any] | None:
    run: dict[str, Any] = deployment.ask(RUN, runId=run_id)["runOrError"]
    return run if run["status"] in {"SUCCESS", "FAILURE", "CANCELED"} else None


def why(deployment: Deployment, run_id: str) -> list[Any]:
    events = deployment.ask(FAILED_STEPS, runId=run_id)["logsForRun"]["events"]
    return [event for event in events if event["__typename"] == "ExecutionStepFailureEvent"]


def finished_backfill(deployment: Deployment, backfill_id: str) -> dict[str, Any] | None:
    found: dict[str, Any] = deployment.ask(BACKFILL, id=backfill_id)["partitionBackfillOrError"]
    return found if found["status"].startswith(("COMPLETED", "FAILED", "CANCELED")) else None


@pytest.fixture(scope="module")
def launched(deployment: Deployment) -> dict[str, Any]:
    """The run of the whole chain for the last day, started as the UI starts it, once it has succeeded."""
    product = deployment.product
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "ml_platform",
        "pipelineName": job_name(product),
    }
    answer = deployment.ask(
        LAUNCH_RUN,
        executionParams={
            "mode": "default",
            "selector": selector,
            "runConfigData": {"ops": {f"{product}__candidate": {"config": {"learning_rate": 0.02}}}},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": LAST_COMPLETE_DAY}]},
        },
    )["launchPipelineExecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    run_id = answer["run"]["id"]
    run: dict[str, Any] = deployment.wait_for("the end of the run", lambda: finished_run(deployment, run_id))
    assert run["status"] == "SUCCESS", why(deployment, run_id)
    return run


def test_a_day_launched_from_the_ui_becomes_a_canary(deployment: Deployment, launched: dict[str, Any]) -> None:
    made = {(found["assetKey"]["path"][-1], found["partition"]) for found in launched["assetMaterializations"]}
    assert made == {(name, LAST_COMPLETE_DAY) for name in CHAIN}
    ledger = Ledger(deployment.home.ledger_url)
    serving = ledger.state(deployment.product).slots
    assert set(serving) == {SlotName.CANARY}
    release = ledger.replay(deployment.product).releases[serving[SlotName.CANARY]]
    assert release.data.as_of.isoformat() == LAST_COMPLETE_DAY
    assert release.model.training["learning_rate"] == 0.02


@pytest.mark.full_size
def test_a_past_day_backfilled_from_the_ui_moves_nothing(deployment: Deployment, launched: dict[str, Any]) -> None:
    assert launched["status"] == "SUCCESS"
    product, past, ledger = deployment.product, "2024-01-28", Ledger(deployment.home.ledger_url)
    serving = ledger.state(product).slots
    started = deployment.ask(
        LAUNCH_BACKFILL,
        backfillParams={
            "partitionNames": [past],
            "assetSelection": [{"path": [product, name]} for name in CHAIN],
            "fromFailure": False,
            "tags": [],
        },
    )["launchPartitionBackfill"]
    assert started["__typename"] == "LaunchBackfillSuccess", started
    backfill_id = started["backfillId"]
    done = deployment.wait_for("the end of the backfill", lambda: finished_backfill(deployment, backfill_id))
    assert done["status"] == "COMPLETED_SUCCESS", [why(deployment, run["id"]) for run in done["runs"]]
    known = {found.data.as_of.isoformat() for found in ledger.replay(product).releases.values()}
    assert known == {LAST_COMPLETE_DAY, past}
    assert ledger.state(product).slots == serving
