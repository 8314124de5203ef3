"""`mlp ledger verify` and `mlp ledger log`: the chain of events that decides what serves."""

from typing import Annotated

import typer

from ml_platform.cli.output import AsJson, print_json, print_table, short

commands = typer.Typer(help="Read and verify the ledger.", no_args_is_help=True)


@commands.command()
def verify(as_json: AsJson = False) -> None:
    """Check every event's digest and link, that the rules allow it, and every signature."""
    from ml_platform.cli.dossier import open_ledger
    from ml_platform.contracts.home import Home
    from ml_platform.lineage.keys import trusted_keys, trusted_operators

    home = Home.from_environment()
    chains = open_ledger(home).verify(trusted_keys(home), trusted_operators(home))
    if as_json:
        print_json({"verified": True, "chains": [vars(chain) for chain in chains]})
        return
    headers = ("product", "events", "epoch", "head")
    rows = [(chain.product, chain.events, chain.epoch, short(chain.head_sha256)) for chain in chains]
    print_table("Every event and every signature verifies", headers, rows)


@commands.command()
def log(
    product: Annotated[str | None, typer.Argument(help="Only the events of this product.")] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many events, counted from the end.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the events, the newest last; their digests are checked."""
    from ml_platform.cli.dossier import open_ledger
    from ml_platform.contracts.home import Home

    events = open_ledger(Home.from_environment()).events(product)[-last:]
    if as_json:
        print_json([{**event.model_dump(mode="json"), "event_sha256": event.sha256} for event in events])
        return
    rows = [
        (
            event.sequence,
            event.epoch,
            f"{event.recorded_at:%Y-%m-%d %H:%M:%S}",
            event.product,
            event.kind.value,
            _told(event.payload),
            event.actor,
        )
        for event in events
    ]
    print_table("Ledger", ("#", "epoch", "at (UTC)", "product", "event", "what", "actor"), rows)


def _told(payload: dict[str, object]) -> str:
    """The parts of a payload that people look for; digests short."""
    wanted = ("release_id", "gate", "verdict", "gates", "step", "exposure", "by", "to", "reason")
    told = []
    for name in wanted:
        value = payload.get(name)
        if isinstance(value, dict):
            told.append(f"{name}: {', '.join(value)}")
        elif isinstance(value, str) and len(value) == 64:  # a SHA-256
            told.append(short(value) if name == "release_id" else f"{name} {short(value)}")
        elif value is not None:
            told.append(f"{name} {value}" if name not in ("gate", "verdict") else str(value))
    return " ".join(told)


def add_to(app: typer.Typer) -> None:
    """Adds the group of this file."""
    app.add_typer(commands, name="ledger", rich_help_panel="Releases")
