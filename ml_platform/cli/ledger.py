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
    from ml_platform.cli.dossier import known_products, open_ledger, require_known
    from ml_platform.contracts.home import Home

    home = Home.from_environment()
    ledger = open_ledger(home)
    if product is not None:
        require_known(product, known_products(home, ledger))
    told = ledger.log(product)[-last:]
    if as_json:
        print_json(
            [{**event.model_dump(mode="json"), "event_sha256": event.sha256, "told": words} for event, words in told]
        )
        return
    rows = [
        (
            event.sequence,
            f"{event.recorded_at:%Y-%m-%d %H:%M:%S}",
            event.product,
            words,
            event.epoch,
            _brief(event.actor),
        )
        for event, words in told
    ]
    print_table("Ledger", ("#", "at (UTC)", "product", "what happened", "epoch", "by"), rows)


def _brief(actor: str) -> str:
    """Who did it, a run by the first digits of its id, as the Dagster UI shows it."""
    kind, _, run_id = actor.rpartition("dagster run ")
    return f"dagster run {run_id[:8]}" if not kind and run_id != actor else actor


def add_to(app: typer.Typer) -> None:
    """Adds the group of this file."""
    app.add_typer(commands, name="ledger", rich_help_panel="Releases")
