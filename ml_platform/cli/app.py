"""The commands put together, and how errors reach people: one message on stderr, no traceback."""

import sys
import traceback
from typing import Annotated

import typer

from ml_platform import __version__
from ml_platform.cli import (
    access,
    controller,
    demo,
    doctor,
    engine,
    gateway,
    keys,
    label,
    ledger,
    mirror,
    moves,
    policy,
    releases,
    replay,
    run_chain,
    schemas,
    skew,
    status,
    trace,
    up,
)
from ml_platform.cli.environment import prepare_environment
from ml_platform.errors import MlPlatformError

DEBUG = "--debug"

app = typer.Typer(
    name="mlp",
    help="Fresh machine-learning products, and no unproven change in front of a user.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    run_chain,
    demo,
    replay,
    skew,
    status,
    releases,
    moves,
    policy,
    keys,
    label,
    ledger,
    mirror,
    doctor,
    up,
    engine,
    gateway,
    controller,
    access,
    trace,
    schemas,
):
    group.add_to(app)


@app.callback(invoke_without_command=True)
def mlp(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show tracebacks of errors; works behind any command.")] = False,
) -> None:
    """Fresh machine-learning products, and no unproven change in front of a user."""
    del debug  # taken out of the arguments before they are parsed
    if version:
        typer.echo(__version__)
        raise typer.Exit


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code: 0 done, 1 refused or failed, 2 wrong usage."""
    prepare_environment()
    debug = DEBUG in arguments
    try:
        app([argument for argument in arguments if argument != DEBUG], prog_name="mlp")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except MlPlatformError as error:
        _complain(str(error), debug=debug)
    except Exception as error:  # noqa: BLE001 - the last resort: people get a sentence, --debug the traceback
        _complain(f"unexpected {type(error).__name__}: {error}\nRun again with {DEBUG} to see where.", debug=debug)
    return 1


def _complain(message: str, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"mlp: {message}", file=sys.stderr)
