"""Runs a product's chain through Dagster, in this process, and tells about it one JSON line at a time.

    python launch.py run PRODUCT --as-of 2013-03-31 [--config overrides.yaml]
    python launch.py backfill PRODUCT --from 2013-03-25 --to 2013-03-31 [--again]
    python launch.py tidy

`mlp run` and `mlp backfill` start this as a child. Runs are made in the instance that the UI shows, so
that everybody sees them and can run them again there. Standard output holds the lines and nothing else:
`event`, `run_id`, `asset`, `message`, `metadata`, and `check` and `passed` where a check spoke. Exit code 0
when every run succeeded, 1 otherwise.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TextIO

from dagster import AssetKey, AssetRecordsFilter, DagsterInstance, DagsterRunStatus, EventLogEntry
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.api import execute_run_iterator
from dagster._core.remote_origin import RemoteRepositoryOrigin
from dagster._core.utils import make_new_run_id
from dagster._core.workspace.load import location_origins_from_yaml_paths
from dagster._utils.interrupts import setup_interrupt_handlers

from assets.candidate import TrainingOverrides
from assets.chain import CHAIN, Chain
from assets.continuous_training import job_name
from ml_platform.contracts.base import read_mapping
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import find_product
from ml_platform.errors import AsOfOutsideDataError, InvalidInputError, MlPlatformError
from resources.backfills import backfill_tag
from resources.event_lines import EventLines
from resources.interrupts import interrupts_heard
from resources.runs import LAUNCHED_BY, alive, open_instance, report_abandoned_runs, stopped_from_outside
from resources.state import PROJECT, home_at

CANCELLED = (DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED)


@dataclass(frozen=True)
class Launch:
    """What one command runs: a job of the code location, in an instance, telling to a stream."""

    home: Home
    instance: DagsterInstance
    repository: ReconstructableRepository
    origin: RemoteRepositoryOrigin
    chain: Chain
    overrides: Mapping[str, Any]
    lines: TextIO

    def run_day(self, day: str, tags: Mapping[str, str]) -> DagsterRunStatus:
        """Runs the whole chain for one day and returns how that ended."""
        job = self.repository.get_reconstructable_job(job_name(self.chain.product.name))
        lines, run_id = EventLines(job.get_definition()), make_new_run_id()
        with alive(self.home, run_id):
            run = self.instance.create_run_for_job(
                job.get_definition(),
                run_id=run_id,
                run_config=self._run_config(),
                tags={**job.get_definition().run_tags, **tags, **LAUNCHED_BY, "dagster/partition": day},
                remote_job_origin=self.origin.get_job_origin(job.job_name),
                job_code_origin=job.get_python_origin(),
            )
            self.instance.add_event_listener(run_id, lambda entry: self._tell(lines, entry))
            with stopped_from_outside(self.instance, run_id):
                for _ in execute_run_iterator(job, run, self.instance):
                    pass
        ended = self.instance.get_run_by_id(run_id)
        return ended.status if ended else DagsterRunStatus.FAILURE

    def say(self, event: str, message: str, **more: Any) -> None:
        """Writes a line of our own."""
        _say(self.lines, event, message, **more)

    def _run_config(self) -> dict[str, Any]:
        if not self.overrides:
            return {}
        return {"ops": {f"{self.chain.product.name}__candidate": {"config": dict(self.overrides)}}}

    def _tell(self, lines: EventLines, entry: EventLogEntry) -> None:
        line = lines.line(entry)
        if line is not None:
            _write(self.lines, line)


def main() -> int:
    """The command; see the module's own words."""
    asked = parse(sys.argv[1:])
    setup_interrupt_handlers()
    with _lines_alone_on_stdout() as lines:
        return obey(asked, lines)


def obey(asked: argparse.Namespace, lines: TextIO) -> int:
    """Does what was asked and tells it as lines; the exit code."""
    home = home_at()
    with open_instance(home) as instance:
        for run in report_abandoned_runs(instance, home):
            _say(lines, "log", f"run {run.run_id} had died and is marked as failed")
        if asked.command == "tidy":
            return 0
        try:
            launch = _prepare(asked, home, instance, lines)
            days = [asked.as_of] if asked.command == "run" else list(_days(asked.first, asked.last))
            _require_partitions(launch.chain, days)
        except MlPlatformError as error:
            _say(lines, "run_failure", str(error), metadata={"error": type(error).__name__})
            return 1
        if asked.command == "run":
            return 0 if launch.run_day(days[0].isoformat(), {}) is DagsterRunStatus.SUCCESS else 1
        return _backfill(launch, days, again=asked.again)


def _say(lines: TextIO, event: str, message: str, **more: Any) -> None:
    content = {"event": event, "run_id": None, "asset": None, "message": message, "metadata": {}, **more}
    _write(lines, json.dumps(content, ensure_ascii=False))


def _write(lines: TextIO, line: str) -> None:
    """The line, unless nobody reads any more: a run does not end because its reader did."""
    with contextlib.suppress(BrokenPipeError):
        lines.write(line + "\n")
        lines.flush()


def _backfill(launch: Launch, days: list[date], *, again: bool) -> int:
    """One day after the other; a day that failed does not stop the rest, a day that is up to date is passed over.

    Whoever interrupts the process ends the rest too; whoever ends a day in the UI, that day.
    """
    tags = backfill_tag(days[0], days[-1])
    failed = []
    with interrupts_heard() as heard:
        for number, day in enumerate(days, start=1):
            launch.say(
                "day", f"{day}: {number} of {len(days)}", metadata={"day": str(day), "number": number, "of": len(days)}
            )
            if not again and _is_up_to_date(launch, day.isoformat()):
                launch.say("skipped", f"{day} is up to date: code and settings of the chain have not changed since.")
                continue
            ended = launch.run_day(day.isoformat(), tags)
            if ended is not DagsterRunStatus.SUCCESS:
                failed.append(str(day))
            # The end of a day in the UI comes as one signal, from the thread that looks for it.
            if heard() > (ended in CANCELLED):
                launch.say("run_failure", f"Interrupted in day {number} of {len(days)}, {day}. Run again to go on.")
                return 1
    if failed:
        launch.say("run_failure", f"{len(failed)} of {len(days)} days failed: {', '.join(failed)}. Run again to go on.")
    return 1 if failed else 0


def _is_up_to_date(launch: Launch, day: str) -> bool:
    """Whether every asset of the chain was last materialized for the day by the present code and settings.

    Each one after what it is made of, for a day may have failed halfway through; and with the hyperparameters of the
    product, not with those that a run brought.
    """
    graph = launch.repository.get_definition().asset_graph
    made_as: dict[AssetKey, int] = {}
    for key in map(launch.chain.key, CHAIN):
        records = AssetRecordsFilter(asset_key=key, asset_partitions=[day])
        found = launch.instance.fetch_materializations(records, limit=1).records
        made = found[0].asset_materialization if found else None
        if made is None or (made.tags or {}).get("dagster/code_version") != graph.get(key).code_version:
            return False
        run = launch.instance.get_run_by_id(found[0].run_id)
        if run is not None and run.run_config.get("ops"):
            return False
        made_as[key] = found[0].storage_id
    return all(
        made_as[parent] <= made for key, made in made_as.items() for parent in graph.get(key).parent_keys & set(made_as)
    )


def _prepare(asked: argparse.Namespace, home: Home, instance: DagsterInstance, lines: TextIO) -> Launch:
    """Reads the product first, so that what is wrong in its folder is said in the words of the library."""
    chain = Chain(find_product(asked.product, PROJECT / "products"))
    overrides = read_mapping(asked.config) if asked.command == "run" and asked.config else {}
    if overrides:
        unknown = sorted(set(overrides) - set(TrainingOverrides.model_fields))
        if unknown:
            raise InvalidInputError(
                f"{asked.config}: unknown hyperparameters {', '.join(unknown)}; "
                f"known: {', '.join(TrainingOverrides.model_fields)}."
            )
        TrainingOverrides(**overrides).applied_to(chain.product.spec.training)
    location = location_origins_from_yaml_paths([str(PROJECT / "workspace.yaml")])[0]
    repository = ReconstructableRepository.for_file(str(PROJECT / "definitions.py"), "defs", str(PROJECT))
    origin = RemoteRepositoryOrigin(location, repository.get_definition().name)
    return Launch(home, instance, repository, origin, chain, overrides, lines)


def _require_partitions(chain: Chain, days: list[date]) -> None:
    if not days:
        raise InvalidInputError("the backfill holds no day: --from lies after --to. Exchange them.")
    wrong = [day for day in days if not chain.partitions.has_partition_key(day.isoformat())]
    if wrong:
        first, last = chain.product.spec.first_as_of, chain.partitions.get_last_partition_key()
        raise AsOfOutsideDataError(
            f"{chain.product.name} has no day {wrong[0]}: its days run from {first} (first_as_of in product.yaml) to "
            f"{last}, the last complete day. Choose one of these."
        )


def _days(first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)


@contextmanager
def _lines_alone_on_stdout() -> Iterator[TextIO]:
    """The real standard output as a stream; whatever else this process or its children print goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as lines:
        os.dup2(2, 1)
        yield lines


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line as values; ends the process with exit code 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="launch.py", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="the whole chain for one day")
    run.add_argument("product")
    run.add_argument("--as-of", required=True, type=date.fromisoformat)
    run.add_argument("--config", type=Path, help="YAML or JSON: hyperparameters for this run only")
    backfill = commands.add_parser("backfill", help="the whole chain for every day from the first to the last")
    backfill.add_argument("product")
    backfill.add_argument("--from", dest="first", required=True, type=date.fromisoformat)
    backfill.add_argument("--to", dest="last", required=True, type=date.fromisoformat)
    backfill.add_argument("--again", action="store_true", help="also days that are up to date")
    commands.add_parser("tidy", help="mark runs whose process has died as failed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
