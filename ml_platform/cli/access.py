"""`mlp access grant|list|revoke`: who may ask, say and operate."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from ml_platform.cli.output import AsJson, print_json, print_table
from ml_platform.serving.gateway.access import ApiKey, Scope

ALL = "all"
commands = typer.Typer(help="Grant, list and revoke API keys.", no_args_is_help=True)


@commands.command()
def grant(
    product: Annotated[str, typer.Argument(help=f"The product that it is for, or '{ALL}'.")],
    name: Annotated[str, typer.Option(help="Who has it, e.g. website.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; repeat it.")] = [Scope.ASK, Scope.FEEDBACK],  # noqa: B006 - typer copies it
    expires_days: Annotated[float | None, typer.Option(min=0.0, help="Days until it counts no more.")] = None,
    rate: Annotated[float, typer.Option(help="Requests a second.")] = 50.0,
    burst: Annotated[int, typer.Option(min=1, help="How many of them at once.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it this once; only its digest is kept."""
    from ml_platform.cli.dossier import known_products, require_known
    from ml_platform.contracts.home import Home
    from ml_platform.serving.gateway.access import grant as make

    home, now = Home.from_environment(), datetime.now(UTC)
    if product != ALL:
        require_known(product, known_products(home))
    token, key = make(
        home,
        name,
        None if product == ALL else product,
        scope,
        now=now,
        expires_at=None if expires_days is None else now + timedelta(days=expires_days),
        rate_per_second=rate,
        burst=burst,
    )
    if as_json:
        print_json({"token": token, **_plain(key, now)})
        return
    typer.echo(token)
    typer.echo("Keep it now: it is shown this once.", err=True)


@commands.command("list")
def list_all(
    product: Annotated[str | None, typer.Argument(help="Only keys that open this product.")] = None,
    as_json: AsJson = False,
) -> None:
    """List keys by what they may do; the keys themselves are nowhere."""
    from ml_platform.contracts.home import Home
    from ml_platform.serving.gateway.access import read_keys

    now = datetime.now(UTC)
    found = [key for key in read_keys(Home.from_environment()).keys if product in (None, key.product or product)]
    if as_json:
        print_json([_plain(key, now) for key in found])
        return
    rows = [
        (
            key.name,
            key.key_id,
            key.product or ALL,
            ", ".join(key.scopes),
            key.state(now),
            f"{key.created_at:%Y-%m-%d %H:%M}",
            f"{key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else None,
            f"{key.rate_per_second:g}/s",
        )
        for key in found
    ]
    headers = ("name", "id", "product", "scopes", "", "granted (UTC)", "expires (UTC)", "rate")
    print_table("API keys", headers, rows)
    if not found:
        typer.echo("No key yet: `mlp access grant PRODUCT --name NAME` makes one.")


@commands.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's name, or the first digits of its id.", metavar="KEY_ID")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who ask later.")] = "",
    as_json: AsJson = False,
) -> None:
    """Let a key count no more; gateways follow within a second."""
    from ml_platform.contracts.home import Home
    from ml_platform.serving.gateway.access import revoke as take_away

    now = datetime.now(UTC)
    revoked = take_away(Home.from_environment(), key, now, reason)
    if as_json:
        print_json([_plain(one, now) for one in revoked])
        return
    for one in revoked:
        typer.echo(f"The key '{one.name}' ({one.key_id}) counts no more.")


def _plain(key: ApiKey, now: datetime) -> dict[str, Any]:
    """A key as JSON, by the first digits of its digest."""
    plain = key.model_dump(mode="json")
    del plain["key_sha256"]
    return {"key_id": key.key_id, "state": key.state(now), **plain}


def add_to(app: typer.Typer) -> None:
    """Adds the group of this file."""
    app.add_typer(commands, name="access", rich_help_panel="Machine")
