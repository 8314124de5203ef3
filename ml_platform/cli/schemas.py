"""`mlp schemas`: the JSON Schemas of the contracts, for editors and for other languages."""

from pathlib import Path
from typing import Annotated

import typer

from ml_platform.cli.output import AsJson, print_json
from ml_platform.errors import RefusedError


def schemas(
    folder: Annotated[Path | None, typer.Option(help="Where to write; default: the folder inside the package.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when a file is not current.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export the JSON Schemas of the contracts."""
    from ml_platform.contracts.schema_export import export_schemas, outdated_schemas

    if check:
        stale = outdated_schemas(folder)
        if stale:
            raise RefusedError(f"these schemas are not current: {', '.join(stale)}. Run `mlp schemas` and commit them.")
        written = []
    else:
        written = export_schemas(folder)
    if as_json:
        print_json({"written": written})
    else:
        typer.echo(f"{len(written)} schemas written." if not check else "The schemas are current.")


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(rich_help_panel="Machine")(schemas)
