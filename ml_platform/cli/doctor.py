"""`mlp doctor`: what this machine has, what is missing, and how to get it."""

import typer

from ml_platform.cli.output import AsJson, print_json, print_table

MARKS = {"ok": "✓", "note": "·", "missing": "✗"}


def doctor(as_json: AsJson = False) -> None:
    """Say what is missing on this machine and how to get it; exit code 1 when something needed is missing."""
    from ml_platform.cli.machine import examine_machine

    examined = examine_machine()
    missing = [one for one in examined if one.state == "missing"]
    if as_json:
        print_json({"ok": not missing, "examined": [vars(one) for one in examined]})
    else:
        rows = [(MARKS[one.state], one.what, one.found, one.remedy or None) for one in examined]
        print_table("This machine", ("", "what", "found", "what to do"), rows)
        count = "1 thing is" if len(missing) == 1 else f"{len(missing)} things are"
        needed = f"{count} missing." if missing else "Nothing that is needed is missing."
        typer.echo(needed)
    if missing:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(rich_help_panel="Machine")(doctor)
