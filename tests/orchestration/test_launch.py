"""launch.py as the command line starts it: a process whose standard output is events and nothing else."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance, DagsterRun, DagsterRunStatus

import launch
from assets.chain import CHAIN
from benchmarks.tiny_product import LAST_COMPLETE_DAY
from definitions import platform_definitions
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.lineage.ledger import Ledger
from resources.runs import open_instance
from resources.state import PROJECT

pytestmark = pytest.mark.early

Line = dict[str, Any]


@dataclass(frozen=True)
class Launcher:
    """Starts launch.py for a product in a home."""

    folder: Path
    home: Home

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            "ML_PLATFORM_HOME": str(self.home.root),
            "ML_PLATFORM_PRODUCTS": str(self.folder),
        }
        errors = (self.home.root / "errors.log").open("a")
        with errors:
            return subprocess.Popen(
                [sys.executable, str(PROJECT / "launch.py"), *arguments],
                env=environment,
                cwd=self.home.root,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def obey(self, *arguments: str) -> tuple[int, list[Line]]:
        """The same in this process, for what starts no run."""
        lines = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ML_PLATFORM_HOME", str(self.home.root))
            patch.setenv("ML_PLATFORM_PRODUCTS", str(self.folder))
            patch.chdir(self.home.root)
            code = launch.obey(launch.parse(arguments), lines)
        return code, [json.loads(line) for line in lines.getvalue().splitlines()]

    def runs(self) -> list[DagsterRun]:
        with open_instance(self.home) as instance:
            return list(instance.get_runs())


def finished(process: "subprocess.Popen[str]") -> tuple[int, list[Line]]:
    """The exit code and all lines; every one of them must be an event."""
    out, _ = process.communicate(timeout=300)
    return process.returncode, [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def launcher(tiny_product: Path, tmp_path: Path) -> Launcher:
    return Launcher(tiny_product, Home(tmp_path))


@dataclass(frozen=True)
class Twins:
    """Two launches of the same day at the same time, both finished."""

    launcher: Launcher
    first: tuple[int, list[Line]]
    second: tuple[int, list[Line]]


@pytest.fixture(scope="module")
def twins(tiny_product: Path, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    launcher = Launcher(tiny_product, Home(tmp_path_factory.mktemp("home")))
    processes = [launcher.start("run", tiny_product.name, "--as-of", LAST_COMPLETE_DAY) for _ in range(2)]
    first, second = (finished(process) for process in processes)
    return Twins(launcher, first, second)


def materialized(lines: list[Line]) -> dict[str, Line]:
    return {line["asset"]: line for line in lines if line["event"] == "materialization"}


def test_two_runs_of_the_same_day_at_once_both_succeed_and_train_once(twins: Twins) -> None:
    assert (twins.first[0], twins.second[0]) == (0, 0)
    made = [materialized(lines) for _, lines in (twins.first, twins.second)]
    assert made[0]["candidate"]["metadata"]["sha256"] == made[1]["candidate"]["metadata"]["sha256"]
    assert sorted(one["candidate"]["metadata"]["reused"] for one in made) == [False, True]
    ledger = Ledger(twins.launcher.home.ledger_url)
    (release_id,) = ledger.replay(twins.launcher.folder.name).releases
    assert ledger.state(twins.launcher.folder.name).slots == {SlotName.CANARY: release_id}
    assert {one["registered_release"]["metadata"]["release_id"] for one in made} == {release_id}


def test_the_lines_tell_the_whole_story_in_order(twins: Twins) -> None:
    _, lines = twins.first
    kinds = [line["event"] for line in lines]
    assert (kinds[0], kinds[-1]) == ("run_start", "run_success")
    assert list(materialized(lines)) == list(CHAIN)
    assert all({"event", "run_id", "asset", "message", "metadata"} <= set(line) for line in lines)
    checks = {line["check"]: line["passed"] for line in lines if line["event"] == "check"}
    assert checks == {"schema_valid": True, "no_leakage": True, "adapter_verifies": True, "gates_pass": True}
    sentences = [line["message"] for line in lines if line["event"] == "log" and line["asset"] == "training_set"]
    assert any(sentence.startswith("training set 100 %") for sentence in sentences)


def test_training_progress_comes_through_pipes_into_the_lines(twins: Twins) -> None:
    logs = [line["message"] for _, lines in (twins.first, twins.second) for line in lines if line["event"] == "log"]
    assert any(message.startswith("train 100 %") for message in logs)


def test_runs_are_in_the_instance_of_the_ui_where_they_can_be_run_again(twins: Twins) -> None:
    runs = twins.launcher.runs()
    assert {run.status for run in runs} == {DagsterRunStatus.SUCCESS}
    for run in runs:
        assert run.tags["dagster/partition"] == LAST_COMPLETE_DAY
        assert run.tags["ml_platform/product"] == twins.launcher.folder.name
        assert run.remote_job_origin is not None
        assert run.remote_job_origin.location_name == "ml_platform"
        assert run.job_code_origin is not None
        assert run.asset_selection is None


def test_a_backfill_passes_over_days_that_are_up_to_date(twins: Twins) -> None:
    process = twins.launcher.start(
        "backfill", twins.launcher.folder.name, "--from", LAST_COMPLETE_DAY, "--to", LAST_COMPLETE_DAY
    )
    code, lines = finished(process)
    assert code == 0
    assert [line["event"] for line in lines] == ["day", "skipped"]
    assert len(twins.launcher.runs()) == 2


@pytest.mark.parametrize("since", ["a snapshot that nothing was made of yet", "hyperparameters of a run's own"])
def test_a_backfill_makes_again_what_is_half_made_or_was_made_with_other_settings(
    twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    launcher = Launcher(twins.launcher.folder, Home(shutil.copytree(twins.launcher.home.root, tmp_path / "home")))
    product, made, prepare = launcher.folder.name, [], vars(launch)["_prepare"]
    defs = platform_definitions([launcher.folder]).get_repository_def()
    code = SimpleNamespace(get_definition=lambda: defs)  # this process may know the code location of another product
    asked = ("backfill", product, "--from", LAST_COMPLETE_DAY, "--to", LAST_COMPLETE_DAY)

    def run_day(_: launch.Launch, day: str, tags: Mapping[str, str]) -> DagsterRunStatus:
        made.append((day, *tags))
        return DagsterRunStatus.SUCCESS

    monkeypatch.setattr(launch.Launch, "run_day", run_day)
    monkeypatch.setattr(launch, "_prepare", lambda *given: replace(prepare(*given), repository=code))
    assert launcher.obey(*asked)[0] == 0
    assert made == []
    with open_instance(launcher.home) as instance:
        if since.startswith("a snapshot"):
            key = AssetKey([product, "snapshot"])
            newest = instance.get_latest_materialization_event(key)
            assert newest is not None
            assert newest.asset_materialization is not None
            instance.report_runless_asset_event(newest.asset_materialization)
        else:
            config = {"ops": {f"{product}__candidate": {"config": {"epochs": 2}}}}
            real = DagsterInstance.get_run_by_id
            monkeypatch.setattr(
                DagsterInstance,
                "get_run_by_id",
                lambda one, run_id: run and run._replace(run_config=config) if (run := real(one, run_id)) else None,
            )
    assert launcher.obey(*asked)[0] == 0
    assert [day for day, *_ in made] == [LAST_COMPLETE_DAY]


def test_a_killed_run_is_marked_as_failed_and_a_living_one_is_not(launcher: Launcher) -> None:
    process = launcher.start("run", launcher.folder.name, "--as-of", LAST_COMPLETE_DAY)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "run_start"
    assert launcher.obey("tidy") == (0, [])
    assert [run.status for run in launcher.runs()] == [DagsterRunStatus.STARTED]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    code, (line,) = launcher.obey("tidy")
    assert code == 0
    assert "had died and is marked as failed" in line["message"]
    assert [run.status for run in launcher.runs()] == [DagsterRunStatus.FAILURE]


def test_an_interrupt_ends_the_run_and_says_so(launcher: Launcher) -> None:
    process = launcher.start("run", launcher.folder.name, "--as-of", LAST_COMPLETE_DAY)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "run_start"
    process.send_signal(signal.SIGINT)
    code, _ = finished(process)
    assert code == 1
    assert launcher.runs()[0].status in {DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_backfill_starts_no_other_day(launcher: Launcher, number: signal.Signals) -> None:
    """It took the interrupt for a day that failed, went on, and opened the canary of the last one."""
    days = ("--from", "2024-01-29", "--to", LAST_COMPLETE_DAY)
    process = launcher.start("backfill", launcher.folder.name, *days)
    assert process.stdout is not None
    assert [json.loads(process.stdout.readline())["event"] for _ in range(2)] == ["day", "run_start"]
    process.send_signal(number)
    code, lines = finished(process)
    assert code == 1
    assert lines[-1]["message"] == "Interrupted in day 1 of 2, 2024-01-29. Run again to go on."
    assert len(launcher.runs()) == 1


def test_a_day_of_a_backfill_that_is_ended_in_the_ui_ends_alone(launcher: Launcher) -> None:
    days = ("--from", "2024-01-29", "--to", LAST_COMPLETE_DAY)
    process = launcher.start("backfill", launcher.folder.name, *days)
    assert process.stdout is not None
    starts = (line for line in map(json.loads, process.stdout) if line["event"] == "run_start")
    begun = next(starts)
    with open_instance(launcher.home) as instance:
        run = instance.get_run_by_id(begun["run_id"])
        assert run is not None
        instance.report_run_canceling(run)
    assert next(starts)["run_id"] != begun["run_id"]
    process.send_signal(signal.SIGINT)
    _, lines = finished(process)
    assert lines[-1]["message"].startswith("Interrupted in day 2 of 2")
    assert {run.status for run in launcher.runs()} & set(launch.CANCELLED)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "parcel_dsk", "--as-of", LAST_COMPLETE_DAY), "did you mean 'parcel_desk'?"),
        (("run", "parcel_desk", "--as-of", "2023-12-31"), "its days run from 2024-01-21 (first_as_of in product.yaml)"),
        (("backfill", "parcel_desk", "--from", "2024-01-30", "--to", "2024-01-29"), "--from lies after --to"),
        (("run", "parcel_desk", "--as-of", LAST_COMPLETE_DAY, "--config", "wrong.yaml"), "unknown hyperparameters rnk"),
        (("run", "parcel_desk", "--as-of", LAST_COMPLETE_DAY, "--config", "bad.yaml"), "key 'rank'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_any_run_starts(
    launcher: Launcher, arguments: tuple[str, ...], said: str
) -> None:
    (launcher.home.root / "wrong.yaml").write_text("rnk: 3")
    (launcher.home.root / "bad.yaml").write_text("rank: 0")
    code, (line,) = launcher.obey(*arguments)
    assert code == 1
    assert line["event"] == "run_failure"
    assert said in line["message"]
    assert launcher.runs() == []
