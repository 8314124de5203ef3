"""`mlp engine`: the embedded model server, for the gateway of this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ml_platform.cli.addresses import ENGINE_PORT, LOOPBACK, url_of
from ml_platform.cli.output import AsJson, print_json, print_pairs
from ml_platform.errors import InvalidInputError


def engine(
    host: Annotated[str, typer.Option(help="The address to bind to.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = ENGINE_PORT,
    base: Annotated[
        str | None,
        typer.Option(envvar="ML_PLATFORM_ENGINE_BASE", help="The base model; by default the one of the products."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=256, help="How many answers are generated at once.")] = 16,
    max_queue: Annotated[int, typer.Option(min=1, help="How many more may wait; then 429.")] = 64,
    context: Annotated[int, typer.Option(min=16, help="The most tokens of a prompt and its answer.")] = 1024,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default the physical cores.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="The secret of its clients; made if missing.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serve a base model and its adapters over vLLM's protocol; SIGTERM finishes what has begun."""
    from ml_platform.contracts.home import Home
    from ml_platform.families.lora.base_model import ensure_base
    from ml_platform.serving.engine.app import EngineApp
    from ml_platform.serving.engine.server import bind, serve
    from ml_platform.serving.engine.service import Engine, EngineLimits
    from ml_platform.serving.engine.token import engine_token, token_path

    home = Home.from_environment()
    secret = (token_file or token_path(home)).resolve()
    token = engine_token(secret)
    with bind(host, port) as listener:
        model = ensure_base(base or _base_of_products(), home)
        running = Engine(model, EngineLimits(batch, context, max_queue), threads)
        url = url_of(listener.getsockname()[1], host)
        serve(EngineApp(running, token), listener, lambda: _tell(url, model.reference, secret, as_json))


def _tell(url: str, base: str, secret: Path, as_json: bool) -> None:
    if as_json:
        print_json({"url": url, "base": base, "token_file": str(secret)})
    else:
        print_pairs([("engine", url), ("base", base), ("token", secret)])
    sys.stdout.flush()


def _base_of_products() -> str:
    """The base model that all products share; raises InvalidInputError where there is not exactly one."""
    from ml_platform.contracts.products import load_product, product_folders

    products = [load_product(folder) for folder in product_folders().values()]
    names = sorted({product.spec.training.base_model for product in products})
    if len(names) != 1:
        raise InvalidInputError(
            f"the products have the base models {', '.join(names) or '(none)'}; an engine serves one. "
            "Name it: --base, or ML_PLATFORM_ENGINE_BASE."
        )
    return names[0]


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(rich_help_panel="Machine")(engine)
