"""`mlp keys list|rotate|revoke`: whose evidence and whose policy pins count."""

from typing import Annotated

import typer

from ml_platform.cli.output import AsJson, print_json, print_table, short

commands = typer.Typer(help="List, rotate and revoke keys.", no_args_is_help=True)


@commands.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List the keys that are trusted, revoked ones among them."""
    from ml_platform.contracts.home import Home
    from ml_platform.lineage.key_rotation import list_keys

    found = list_keys(Home.from_environment())
    if as_json:
        print_json(
            [
                {"role": one.role.name, "signs_here": one.signs, "trusted": one.trusted, **one.key.model_dump()}
                for one in found
            ]
        )
        return
    rows = [
        (
            one.role.name,
            short(one.key.key_id),
            f"revoked: {one.key.revoked_because}" if one.key.revoked else "trusted" if one.trusted else "not trusted",
            "yes" if one.signs else None,
            one.key.comment or None,
        )
        for one in found
    ]
    print_table("Keys: `signing` signs evidence, `operator` pins policies", ("for", "key", "", "here", "comment"), rows)
    if not found:
        typer.echo("No key yet: the first `mlp run` makes them.")


@commands.command()
def rotate(
    operator: Annotated[
        bool, typer.Option("--operator", help="The operator's key instead of the signing key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a new key that signs from now on; the old one stays trusted until it is revoked."""
    from ml_platform.contracts.home import Home
    from ml_platform.lineage.key_rotation import rotate_key
    from ml_platform.lineage.keys import OPERATOR, SIGNING

    role = OPERATOR if operator else SIGNING
    key = rotate_key(Home.from_environment(), role)
    if as_json:
        print_json({"role": role.name, "key_id": key.key_id, "public_key": key.public.public_key})
        return
    typer.echo(f"From now on the {role.name} key is {short(key.key_id)}, public key {key.public.public_key}.")
    typer.echo("What the old one signed still counts. Once nothing needs it: `mlp keys revoke KEY_ID --reason …`.")


@commands.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id or its first digits, at least 4.", metavar="KEY_ID")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who ask later.")],
    as_json: AsJson = False,
) -> None:
    """Let nothing count any more that a key signed, whenever it did."""
    from ml_platform.contracts.home import Home
    from ml_platform.lineage.key_rotation import revoke_key

    revoked, successor = revoke_key(Home.from_environment(), key_id, reason)
    if as_json:
        print_json({"revoked": revoked.key_id, "successor": successor and successor.key_id})
        return
    typer.echo(f"Key {short(revoked.key_id)} is revoked: what it proved or pinned no longer counts.")
    typer.echo("`mlp run` proves releases again, `mlp policy pin` pins policies again.")
    if successor:
        typer.echo(f"Its successor here is {short(successor.key_id)}.")


def add_to(app: typer.Typer) -> None:
    """Adds the group of this file."""
    app.add_typer(commands, name="keys", rich_help_panel="Releases")
