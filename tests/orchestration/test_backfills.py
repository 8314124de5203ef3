"""Backfills: what a day would have been, however it is filled in and however often that is interrupted."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance
from dagster._core.execution.backfill import PartitionBackfill

from assets.chain import CHAIN
from assets.continuous_training import job_name
from benchmarks.tiny_product import write_tiny_product
from definitions import platform_definitions
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import InvalidInputError, OperationError
from ml_platform.lineage.ledger import Ledger
from resources.backfills import backfill_tag, backfilled_to
from resources.manifests import ManifestIOManager, Value
from resources.state import PROJECT
from tests.samples.trained_here import definitions_training_here

DAYS = ("2024-01-26", "2024-01-27", "2024-01-28")
BACKFILLED = DAYS[1:]
SAME_ANYWHERE = ("snapshot", "training_set", "candidate", "registered_release")
"""The report is not among them: it holds latencies, which are measured anew where nothing was measured before."""


def run_day(folder: Path, home: Path, day: str, tags: dict[str, str] | None = None) -> None:
    home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        patch.setenv("ML_PLATFORM_HOME", str(home))
        job = definitions_training_here([folder]).resolve_job_def(job_name(folder.name))
        assert job.execute_in_process(instance=instance, partition_key=day, tags=tags or {}).success


def digests(home: Path, product: str, day: str) -> dict[str, str]:
    manager = ManifestIOManager(home_path=str(home))
    return {name: manager.read(f"{product}/{name}", day).value_sha256 for name in SAME_ANYWHERE}


def outcome(home: Path, product: str, day: str) -> str:
    value: Value = ManifestIOManager(home_path=str(home)).read(f"{product}/canary_alias", day)
    return str(value.facts["outcome"])


def as_it_was(folder: Path, to: Path, day: str) -> Path:
    """The product as it stood at the end of a day: its source has no later rows yet."""
    then = shutil.copytree(folder, to / folder.name)
    with (folder / "parcels.csv").open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    asked = header.index("asked_at")
    kept = [row for row in rows if datetime.fromisoformat(row[asked]).date() <= date.fromisoformat(day)]
    assert 0 < len(kept) < len(rows)
    with (then / "parcels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *kept])
    return then


def test_a_day_that_is_filled_in_later_has_the_digests_that_a_live_run_would_have_given_it(tmp_path: Path) -> None:
    """In two homes, so that neither finds what the other made."""
    folder, day, live, later = write_tiny_product(tmp_path / "now"), DAYS[0], tmp_path / "live", tmp_path / "later"
    run_day(as_it_was(folder, tmp_path / "then", day), live, day)
    run_day(folder, later, day, backfill_tag(date.fromisoformat(day), date.fromisoformat(DAYS[-1])))
    assert digests(later, folder.name, day) == digests(live, folder.name, day)
    assert outcome(live, folder.name, day).startswith("canary open")
    assert outcome(later, folder.name, day) == f"held: a past day of a backfill, {DAYS[-1]} is newer"
    assert Ledger(Home(later).ledger_url).state(folder.name).epoch == 0


class Backfill:
    """`launch.py backfill`, as the command line starts it."""

    def __init__(self, folder: Path, home: Home) -> None:
        self.folder, self.home = folder, home

    def start(self, *more: str) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            "ML_PLATFORM_HOME": str(self.home.root),
            "ML_PLATFORM_PRODUCTS": str(self.folder),
        }
        with (self.home.root / "errors.log").open("a") as errors:
            asked = ["backfill", self.folder.name, "--from", BACKFILLED[0], "--to", BACKFILLED[-1], *more]
            return subprocess.Popen(
                [sys.executable, str(PROJECT / "launch.py"), *asked],
                env=environment,
                cwd=self.home.root,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def finished(self, process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
        return [*self.lines(process)]

    def lines(self, process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                yield json.loads(line)


def test_a_backfill_that_is_killed_goes_on_where_it_was_and_opens_one_canary(tmp_path: Path) -> None:
    folder, home, (first, last) = write_tiny_product(tmp_path / "products"), Home(tmp_path / "home"), BACKFILLED
    home.root.mkdir()
    backfill = Backfill(folder, home)
    process = backfill.start()
    for line in backfill.lines(process):
        if line["event"] == "materialization" and line["asset"] == "training_set" and line["partition"] == last:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.wait()
    done = digests(home.root, folder.name, first)
    second = backfill.start()
    told = backfill.finished(second)
    assert second.wait() == 0
    assert [line["message"][:10] for line in told if line["event"] == "skipped"] == [first]
    materialized = [line["asset"] for line in told if line["event"] == "materialization"]
    assert materialized == [*CHAIN]
    assert digests(home.root, folder.name, first) == done
    ledger = Ledger(home.ledger_url)
    ledger.verify()
    replay = ledger.replay(folder.name)
    newest = max(replay.releases.values(), key=lambda release: release.data.as_of)
    assert (replay.epoch, replay.slots) == (1, {SlotName.CANARY: newest.release_id})
    assert [str(release.data.as_of) for release in replay.releases.values()] == [first, last]
    assert outcome(home.root, folder.name, first) == f"held: a past day of a backfill, {last} is newer"


# What Dagster 1.13 itself uses for this.
@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated:DeprecationWarning")
def test_the_last_day_of_a_backfill_of_the_ui_is_known_whatever_its_order(tmp_path: Path) -> None:
    folder = write_tiny_product(tmp_path)
    defs = platform_definitions([folder])
    with DagsterInstance.ephemeral() as instance:
        assets = PartitionBackfill.from_asset_partitions(
            asset_graph=defs.resolve_asset_graph(),
            backfill_id="assets",
            tags={},
            backfill_timestamp=1_710_000_000.0,
            asset_selection=[AssetKey([folder.name, name]) for name in CHAIN],
            partition_names=[DAYS[2], DAYS[0], DAYS[1]],
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(assets)
        assert backfilled_to(instance, {"dagster/backfill": "assets"}) == date.fromisoformat(DAYS[2])
        with pytest.raises(OperationError, match="backfill unknown, of which this Dagster instance knows no days"):
            backfilled_to(instance, {"dagster/backfill": "unknown"})
        assert backfilled_to(instance, {"dagster/partition": DAYS[0]}) is None
        with pytest.raises(InvalidInputError, match="expected '<first day>"):
            backfilled_to(instance, {"ml_platform/backfill": "yesterday"})
