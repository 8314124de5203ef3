"""`mlp up`: every process of the Procfile, on loopback, until Ctrl-C."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.addresses import (
    DAGSTER_PORT,
    ENGINE_PORT,
    GATEWAY_PORT,
    LOOPBACK,
    MLFLOW_PORT,
    require_free,
    url_of,
)
from ml_platform.cli.output import AsJson, print_json, print_pairs
from ml_platform.errors import InvalidInputError, OperationError

if TYPE_CHECKING:
    from ml_platform.contracts.home import Home


def up(
    host: Annotated[str, typer.Option(help="The address to bind to; nothing asks for a password.")] = LOOPBACK,
    dagster_port: Annotated[int, typer.Option(min=1, max=65535, help="The Dagster UI.")] = DAGSTER_PORT,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="The MLflow UI.")] = MLFLOW_PORT,
    gateway_port: Annotated[int, typer.Option(min=1, max=65535, help="Where products answer.")] = GATEWAY_PORT,
    engine_port: Annotated[int, typer.Option(min=1, max=65535, help="The model; for the gateway.")] = ENGINE_PORT,
    as_json: AsJson = False,
) -> None:
    """Start the Dagster UI, its daemon, MLflow, the engine and the gateway; Ctrl-C stops them all."""
    from ml_platform.cli.environment import child_environment, find_checkout
    from ml_platform.contracts.home import Home
    from ml_platform.serving.gateway.access import ensure_local_key

    home, checkout = Home.from_environment(), find_checkout()
    ports = {"dagster": dagster_port, "mlflow": mlflow_port, "gateway": gateway_port}
    require_free(host, {f"--{name}-port": port for name, port in ports.items()} | {"--engine-port": engine_port})
    _prepare(home, checkout, child_environment(home))
    environment = child_environment(home) | {
        "MLP_WORKSPACE": str(checkout / "workspace.yaml"),
        "MLP_HOST": host,
        "MLP_DAGSTER_PORT": str(dagster_port),
        "MLP_MLFLOW_PORT": str(mlflow_port),
        "MLP_GATEWAY_PORT": str(gateway_port),
        "MLP_ENGINE_PORT": str(engine_port),
        # Whoever reaches the engine could ask past the gateway, so it stays on loopback whatever the host is.
        "MLP_ENGINE_HOST": LOOPBACK,
        "MLP_MLFLOW_URL": home.mlflow_url,
        "MLP_MLFLOW_ARTIFACTS": str(home.mlflow_artifacts),
    }
    addresses = {name: url_of(port, host) for name, port in ports.items()} | {
        "console": f"{url_of(gateway_port, host)}/console",
        "api_key": str(ensure_local_key(home)),
        "home": str(home.root),
    }
    if as_json:
        print_json(addresses)
    else:
        print_pairs(addresses.items())
        typer.echo(f"Sign in to the console with the key that lies there: cat {addresses['api_key']}")
    sys.stdout.flush()
    raise typer.Exit(_supervise(checkout, environment, quiet=as_json))


def _prepare(home: "Home", checkout: Path, environment: Mapping[str, str]) -> None:
    """The folders that the processes expect, and a Dagster instance in which no dead run counts as living.

    Webserver and daemon would else create its databases at the same moment, which leaves them unusable.
    """
    home.mlflow_artifacts.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(checkout / "launch.py"), "tidy"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OperationError(f"the Dagster instance in {home.dagster} cannot be opened: {done.stderr.strip()[-500:]}")


def _supervise(checkout: Path, environment: dict[str, str], *, quiet: bool) -> int:
    try:
        from ml_platform.cli.procfile import run_procfile
    except ModuleNotFoundError as error:
        raise InvalidInputError(f"{error.name} is not installed. Install the Dagster layer: `make install`.") from None
    return run_procfile(checkout, environment, quiet=quiet)


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(rich_help_panel="Machine")(up)
