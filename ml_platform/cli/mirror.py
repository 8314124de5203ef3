"""`mlp mirror`: MLflow's aliases put back to what the slots hold, once or for as long as it runs."""

import signal
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.output import AsJson, print_json
from ml_platform.errors import InvalidInputError, LedgerCorruptError, MlPlatformError

if TYPE_CHECKING:
    from ml_platform.contracts.home import Home
    from ml_platform.registry.aliases import Mirrored

ACTOR = "mlp mirror"


def mirror(
    product: Annotated[str | None, typer.Argument(help="Only this product.")] = None,
    every: Annotated[
        float | None, typer.Option(min=0.1, help="Go on, with so many seconds in between, until stopped.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put MLflow's aliases back to what the slots hold; an edit by hand becomes an alert in the ledger."""
    from ml_platform.cli.dossier import known_products, require_known
    from ml_platform.contracts.home import Home

    if as_json and every is not None:
        raise InvalidInputError("--json is one document, and --every has no end. Leave out one of them.")
    home = Home.from_environment()
    if product is not None:
        require_known(product, known_products(home))
    if every is not None:
        _go_on(home, product, every)
        return
    done, damaged = _mirror_all(home, product)
    if as_json:
        print_json({name: {"changes": one.changes, "warning": one.warning} for name, one in done.items()})
    else:
        for name, one in done.items():
            typer.echo(f"{name}: {one.warning or '; '.join(one.changes) or 'every alias is what its slot holds'}")
    if damaged:
        raise LedgerCorruptError("\n".join(damaged.values()))


def _go_on(home: "Home", product: str | None, every: float) -> None:
    """Tells what is news, and outlives what fails: the next round looks again."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    typer.echo(f"Looking every {every:g} s whether MLflow's aliases are what the slots hold.")
    complained = ""
    while not ended.is_set():
        try:
            done, damaged = _mirror_all(home, product)
            said = [f"{name}: {'; '.join(one.changes)}" for name, one in done.items() if one.changes]
            warnings = {name: one.warning for name, one in done.items() if one.warning} | damaged
            wrong = "\n".join(f"{name}: {warning}" for name, warning in warnings.items())
        except MlPlatformError as error:
            said, wrong = [], str(error)
        for line in [*said, *([wrong] if wrong != complained and wrong else [])]:
            typer.echo(line)
        complained = wrong
        ended.wait(every)


def _mirror_all(home: "Home", product: str | None) -> "tuple[dict[str, Mirrored], dict[str, str]]":
    """What was changed, by product, and which chains are damaged, how; nothing where nothing was ever run."""
    from ml_platform.cli.dossier import has_ledger
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.registry.mlflow_registry import MlflowRegistry
    from ml_platform.release.assemble import gate_producer
    from ml_platform.release.controller import Controller
    from ml_platform.release.mirroring import mirror_slots

    if not has_ledger(home):
        return {}, {}
    controller = Controller(Ledger(home.ledger_url), {}, gate_producer())
    registry = MlflowRegistry(home.mlflow_url, home.mlflow_artifacts)
    names = [product] if product else controller.ledger.products()
    done: dict[str, Mirrored] = {}
    damaged: dict[str, str] = {}
    for name in names:
        try:
            done[name] = mirror_slots(controller, registry, name, datetime.now(UTC), ACTOR)
        except LedgerCorruptError as error:
            damaged[name] = str(error)
    return done, damaged


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(rich_help_panel="Releases")(mirror)
