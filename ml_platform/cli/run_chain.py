"""`mlp run` and `mlp backfill`: the chain of a product, launched through Dagster, told as it goes on."""

import time
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.cli.chain_events import ChainStory
from ml_platform.cli.output import AsJson, console, print_json, print_pairs, short
from ml_platform.errors import OperationError

if TYPE_CHECKING:
    from ml_platform.cli.dossier import Dossier
    from ml_platform.cli.launching import Launched
    from ml_platform.contracts.home import Home

Product = Annotated[str, typer.Argument(help="The product's name: its folder below products/.")]
KEPT = "What was finished is kept: run the same command again to go on."
LONGEST_REASON = 240
"""Characters of a reason in the table at the end; `mlp show` has all of them."""
DAY = ["%Y-%m-%d"]


def run(
    product: Product,
    as_of: Annotated[datetime, typer.Option("--as-of", formats=DAY, help="Learn from what was known that day.")],
    config: Annotated[
        Path | None, typer.Option(help="YAML or JSON with hyperparameters for this run only.", exists=True)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take a product from its sources to a canary, for one day.

    Ends with a table of the gates. A candidate that a gate holds is a result, not an error: exit code 0.
    """
    arguments = ["run", product, "--as-of", as_of.date().isoformat()]
    _run(product, arguments + (["--config", str(config.resolve())] if config else []), as_of.date(), as_json=as_json)


def backfill(
    product: Product,
    first: Annotated[datetime, typer.Option("--from", formats=DAY, help="The first day.")],
    last: Annotated[datetime, typer.Option("--to", formats=DAY, help="The last day, included.")],
    again: Annotated[bool, typer.Option("--again", help="Also the days that are up to date.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the chain for every day from the first to the last; days that are up to date are passed over."""
    days = ["--from", first.date().isoformat(), "--to", last.date().isoformat()]
    _run(product, ["backfill", product, *days, *(["--again"] if again else [])], None, as_json=as_json)


def _run(product: str, arguments: Sequence[str], as_of: date | None, *, as_json: bool) -> None:
    from ml_platform.cli.environment import find_checkout
    from ml_platform.cli.launching import launch
    from ml_platform.cli.progress_view import view
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.products import find_product

    home, story, started = Home.from_environment(), ChainStory(), time.monotonic()
    find_product(product, find_checkout() / "products")
    try:
        with launch(home, arguments) as launched:
            with view(as_json=as_json) as shown:
                for event in launched.events():
                    story.add(event)
                    shown.show(event)
            _raise_failure(home, story, launched)
    except KeyboardInterrupt:
        typer.echo(f"mlp: interrupted, and the run with it. {KEPT}", err=True)
        raise
    dossier = _dossier(home, product, story, as_of)
    seconds = time.monotonic() - started
    if as_json:
        print_json(_json(product, as_of, story, dossier, seconds))
    else:
        _print_outcome(story, dossier, seconds)


def _raise_failure(home: "Home", story: ChainStory, launched: "Launched") -> None:
    """Raises OperationError with the steps that failed, in their own words, and what to do."""
    if launched.exit_code == 0:
        return
    told = [f"{event.asset}: {event.check or 'step'} failed: {event.message}" for event in story.failures]
    if not told:
        told = [story.refusal or f"the run ended with exit code {launched.exit_code}.\n{launched.last_words}"]
    if story.run_ids:
        logs = home.dagster / "storage" / story.run_ids[-1] / "compute_logs"
        told.append(KEPT)
        told.append(f"More is in the Dagster UI (`make up`), run {story.run_ids[-1]}, and in {logs}.")
    raise OperationError("\n".join(told))


def _dossier(home: "Home", product: str, story: ChainStory, as_of: date | None) -> "Dossier | None":
    """The release that the run registered: as its events name it, else the newest of that day."""
    from ml_platform.cli.dossier import has_ledger, open_ledger, read_dossier
    from ml_platform.release.history import release_history

    release_id = story.release_id
    if release_id is None and has_ledger(home):
        history = release_history(open_ledger(home), product)
        release_id = next((one.release_id for one in history if as_of in (None, one.as_of)), None)
    return read_dossier(home, release_id) if release_id else None


def _json(
    product: str, as_of: date | None, story: ChainStory, dossier: "Dossier | None", seconds: float
) -> dict[str, Any]:
    return {
        "product": product,
        "as_of": as_of and as_of.isoformat(),
        "runs": story.run_ids,
        "seconds": round(seconds, 1),
        "reused": story.reused,
        "report": story.report_html,
        "release": dossier and dossier.json(),
    }


def _print_outcome(story: ChainStory, dossier: "Dossier | None", seconds: float) -> None:
    from ml_platform.cli.addresses import DAGSTER_PORT, GATEWAY_PORT, MLFLOW_PORT, url_of
    from ml_platform.cli.releases import print_gates

    if dossier is None:
        console().print("No release was registered.")
        return
    print_gates(dossier, LONGEST_REASON)
    minutes, rest = divmod(round(seconds), 60)
    prefix = short(dossier.record.release_id)
    print_pairs(
        [
            ("release", dossier.record.release_id),
            ("now", dossier.outcome),
            ("MLflow version", dossier.mlflow_version),
            ("report", story.report_html),
            ("details", f"mlp show {prefix}    mlp verify {prefix}    mlp status"),
            ("to look around", f"make up: Dagster {url_of(DAGSTER_PORT)}, MLflow {url_of(MLFLOW_PORT)}"),
            ("to ask it", f"make up: gateway {url_of(GATEWAY_PORT)}. README.md, Ask it"),
            ("took", f"{minutes}:{rest:02d}" + (f", reused: {', '.join(story.reused)}" if story.reused else "")),
        ]
    )


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (run, backfill):
        app.command(rich_help_panel="Runs")(command)
