"""`mlp controller`: what watches the releases that serve, and moves them on or takes them back."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.monitoring import Look
    from ml_platform.release.controlling import ControllerLoop


def controller(
    product: Annotated[str | None, typer.Argument(help="Only this product.")] = None,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 0.5,
    once: Annotated[bool, typer.Option("--once", help="Look once, do what is decided, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch what serves: canaries go on, into production or away by what is seen of them; production is taken back.

    Several may run: of those for all products one works, and of those for the same product; the others stand by. Beside
    each other they do no harm. Kill any at any time: the next one reads on and decides the same.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    home = _home_of(product)
    if once:
        _look_once(home, product, as_json=as_json)
        return
    loop = _loop(home, product, lambda _: None)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    if not as_json:
        typer.echo(f"Looking at what serves every {every:g} s.")
    loop.run(every, ended)


def _home_of(product: str | None) -> "Home":
    """The home to watch. Raises UnknownProductError for a product that is nowhere, before anything is made for it."""
    from ml_platform.cli.dossier import known_products, require_known
    from ml_platform.contracts.home import Home

    home = Home.from_environment()
    if product is not None:
        require_known(product, known_products(home))
    return home


def _look_once(home: "Home", product: str | None, *, as_json: bool) -> None:
    looks: list[Look] = []
    loop = _loop(home, product, looks.append if as_json else _tell, patient=True)
    if not loop.round():
        typer.echo("Another controller leads; `mlp status` shows what it saw.", err=True)
    loop.close()
    if as_json:
        print_json(looks)


def _loop(
    home: "Home", product: str | None, tell: Callable[["Look"], None], *, patient: bool = False
) -> "ControllerLoop":
    from ml_platform.lineage.keys import trusted_keys, trusted_operators
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.lineage.looks import LookStore
    from ml_platform.lineage.object_store import artifact_store
    from ml_platform.lineage.standing import Trust
    from ml_platform.release.assemble import gate_producer
    from ml_platform.release.controller import Controller
    from ml_platform.release.controlling import ControllerLoop

    def trust() -> Trust:
        return Trust(trusted_keys(home), trusted_operators(home))

    ledger = Ledger(home.ledger_url, keep_connections=True)
    door = Controller(ledger, {}, gate_producer()).believing(trust())
    actor = f"controller {os.getpid()}@{socket.gethostname()}"
    return ControllerLoop(
        home, door, artifact_store(home), LookStore(home.monitoring_url), actor, product, tell, patient, trust
    )


def _tell(look: "Look") -> None:
    decision = look.decision
    typer.echo(f"{look.product}: {decision.action.replace('_', ' ')}: {decision.reason}")
    for one in decision.waits_for:
        typer.echo(f"  waits for {one}")


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(rich_help_panel="Machine")(controller)
