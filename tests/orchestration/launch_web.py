"""Ways to start a run that lead through the webserver: what the UI's buttons send, and its report endpoints."""

import json
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ml_platform.lineage.ledger import Ledger
from tests.e2e.conftest import Deployment
from tests.e2e.test_launch_from_the_ui import (
    BACKFILL,
    FAILED_STEPS,
    LAUNCH_BACKFILL,
    LAUNCH_RUN,
    finished_run,
)
from tests.orchestration.launch_columns import CANARY, COLUMNS, DAY, DAYS, GATED, Prepared

REEXECUTE = """
mutation LaunchRunReexecution($executionParams: ExecutionParams, $reexecutionParams: ReexecutionParams) {
  launchRunReexecution(executionParams: $executionParams, reexecutionParams: $reexecutionParams) {
    __typename
    ... on LaunchRunSuccess { run { id } }
    ... on PythonError { message }
  }
}
"""
PRODUCTS = tuple(column.product for column in COLUMNS)
ALL_ASSETS = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "ml_platform",
    "pipelineName": "__ASSET_JOB",
}


@dataclass(frozen=True)
class Web:
    """A running webserver and daemon on a home of one's own."""

    prepared: Prepared
    deployment: Deployment

    def launched(self, names: Iterable[str], partition: str = DAY) -> str:
        """The run that the button "Materialize selected" starts, with all checks deselected; waits for its end."""
        params = {
            "mode": "default",
            "selector": self._selector(names),
            "runConfigData": {},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
        }
        return self._ended(self.deployment.ask(LAUNCH_RUN, executionParams=params)["launchPipelineExecution"])

    def repeated(self, parent: str, names: Sequence[str], steps: Sequence[str]) -> str:
        """The run that "Re-execute selected" starts on the page of a run."""
        params = {
            "mode": "default",
            "selector": self._selector(names),
            "runConfigData": {},
            "stepKeys": list(steps),
            "executionMetadata": {
                "parentRunId": parent,
                "rootRunId": parent,
                "tags": [{"key": "dagster/partition", "value": DAY}],
            },
        }
        return self._ended(self.deployment.ask(REEXECUTE, executionParams=params)["launchRunReexecution"])

    def resumed(self, parent: str) -> str:
        """The run that "Re-execute from failure" starts."""
        params = {"parentRunId": parent, "strategy": "FROM_FAILURE"}
        return self._ended(self.deployment.ask(REEXECUTE, reexecutionParams=params)["launchRunReexecution"])

    def failed_steps(self, run_id: str) -> dict[str, str]:
        events = self.deployment.ask(FAILED_STEPS, runId=run_id)["logsForRun"]["events"]
        failed = [event for event in events if event["__typename"] == "ExecutionStepFailureEvent"]
        return {event["stepKey"]: event["error"]["message"] for event in failed}

    def report(self, what: str, product: str, asset: str, **body: Any) -> None:
        """Posts to a report endpoint, without credentials, as anybody can who reaches the webserver."""
        address = f"{self.deployment.url}/report_asset_{what}/{product}/{asset}"
        content = json.dumps({"partition": DAY, **body}).encode()
        request = urllib.request.Request(address, content, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            assert response.status == 200

    def _selector(self, names: Iterable[str]) -> dict[str, Any]:
        selection = [{"path": [product, name]} for name in names for product in PRODUCTS]
        return {**ALL_ASSETS, "assetSelection": selection, "assetCheckSelection": []}

    def _ended(self, launched: dict[str, Any]) -> str:
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id = str(launched["run"]["id"])
        self.deployment.wait_for(f"the end of run {run_id}", lambda: finished_run(self.deployment, run_id))
        return run_id


def single_asset(web: Web) -> None:
    """The canaries alone, from the UI."""
    assert web.failed_steps(web.launched([CANARY])) == {}


def reexecution_of_steps(web: Web) -> None:
    """A run of gates and canaries, and then its canaries again, without the gates."""
    names = [*GATED, CANARY]
    parent = web.launched(names)
    assert web.failed_steps(parent) == {}
    web.prepared.rewind(web.deployment.home)
    again = web.repeated(parent, names, [f"{product}__{CANARY}" for product in PRODUCTS])
    assert web.failed_steps(again) == {}


def reexecution_from_failure(web: Web) -> None:
    """The canaries fail, for no release was handed to them; somebody puts one there and goes on from the failure."""
    for product in PRODUCTS:
        (web.deployment.home.manifests / product / "registered_release" / f"{DAY}.json").unlink()
    failed = web.launched([CANARY])
    said = web.failed_steps(failed)
    assert set(said) == {f"{product}__{CANARY}" for product in PRODUCTS}
    web.prepared.rewind(web.deployment.home)
    assert web.failed_steps(web.resumed(failed)) == {}


def backfill(web: Web) -> None:
    """The canaries of several days at once."""
    params = {
        "partitionNames": [*DAYS],
        "assetSelection": [{"path": [product, CANARY]} for product in PRODUCTS],
        "fromFailure": False,
        "tags": [],
    }
    started = web.deployment.ask(LAUNCH_BACKFILL, backfillParams=params)["launchPartitionBackfill"]
    assert started["__typename"] == "LaunchBackfillSuccess", started
    identity = started["backfillId"]
    # The daemon looks at backfills every 30 s: long before it calls this one complete, its runs have ended.
    runs = web.deployment.wait_for("the end of the backfill's runs", lambda: ended_runs(web.deployment, identity))
    assert [run["status"] for run in runs] == ["SUCCESS"] * len(DAYS)


def ended_runs(deployment: Deployment, backfill_id: str) -> list[dict[str, Any]] | None:
    """The runs of a backfill once there is one a day and all have ended."""
    runs: list[dict[str, Any]] = deployment.ask(BACKFILL, id=backfill_id)["partitionBackfillOrError"]["runs"]
    ended = [run for run in runs if run["status"] in {"SUCCESS", "FAILURE", "CANCELED"}]
    return ended if len(ended) == len(DAYS) else None


def forged_events(web: Web) -> None:
    """Verdicts, releases, canaries and checks that never were, reported to Dagster; then the canaries, from the UI."""
    ledger = Ledger(web.deployment.home.ledger_url)
    heads = {product: ledger.state(product).head_sha256 for product in PRODUCTS}
    for product in PRODUCTS:
        web.report("materialization", product, "gate_verdict", metadata={"verdict": "accepted"})
        web.report("materialization", product, "registered_release", metadata={"release_id": "0" * 64})
        web.report("materialization", product, CANARY, metadata={"outcome": "canary open at 100 %", "exposure": 1.0})
        web.report("check", product, "eval_report", check_name="gates_pass", passed=True)
        web.report("check", product, "snapshot", check_name="schema_valid", passed=True)
    assert {product: ledger.state(product).head_sha256 for product in PRODUCTS} == heads
    assert web.failed_steps(web.launched([CANARY])) == {}
