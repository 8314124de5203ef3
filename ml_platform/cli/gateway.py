"""`mlp gateway` and `mlp ship`: what answers, and what brings the records of it to the store."""

import sys
from typing import Annotated

import typer

from ml_platform.cli.addresses import ENGINE_PORT, GATEWAY_PORT, LOOPBACK, url_of
from ml_platform.cli.output import AsJson, print_json, print_pairs


def gateway(
    host: Annotated[str, typer.Option(help="The address to bind to.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = GATEWAY_PORT,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that answer.")] = 1,
    engine_url: Annotated[
        str, typer.Option(envvar="ML_PLATFORM_ENGINE_URL", help="The model server, ours or vLLM.")
    ] = url_of(ENGINE_PORT),
    judge_url: Annotated[
        str | None, typer.Option(envvar="ML_PLATFORM_JUDGE_URL", help="The judge, for guardrails that ask one.")
    ] = None,
    traces_url: Annotated[
        str | None,
        typer.Option(envvar=["ML_PLATFORM_TRACES_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"], help="Where traces go."),
    ] = None,
    user_rate: Annotated[float, typer.Option(help="Requests a second of each user id, over all workers.")] = 20.0,
    user_burst: Annotated[int, typer.Option(min=1, help="How many of them at once.")] = 40,
    body_kib: Annotated[int, typer.Option(min=1, max=16_384, help="The largest body.")] = 64,
    drain_seconds: Annotated[int, typer.Option(min=1, help="To finish what has begun after SIGTERM.")] = 10,
    log_answers: Annotated[bool, typer.Option("--log-answers", help="A line in the log for each answer.")] = False,
    as_json: AsJson = False,
) -> None:
    """Serve the products: OpenAI's API before the admitted releases; SIGTERM finishes what has begun."""
    from ml_platform.contracts.home import Home
    from ml_platform.serving.gateway.settings import GatewaySettings
    from ml_platform.serving.gateway.supervisor import run_gateway

    given = {
        "host": host,
        "port": port,
        "workers": workers,
        "engine_url": engine_url,
        "judge_url": judge_url,
        "traces_url": traces_url,
        "user_rate": user_rate,
        "user_burst": user_burst,
        "body_bytes": body_kib << 10,
        "drain_seconds": drain_seconds,
        "log_answers": log_answers,
    }
    settings = GatewaySettings.parse(given, where="mlp gateway")

    def tell(url: str) -> None:
        if as_json:
            print_json({"url": url, "workers": workers, "engine": engine_url})
        else:
            print_pairs([("gateway", url), ("workers", workers), ("engine", engine_url)])
        sys.stdout.flush()

    run_gateway(Home.from_environment(), settings, tell)


def ship(as_json: AsJson = False) -> None:
    """Bring the records of answers from the log to the store, until stopped, and then once more."""
    from ml_platform.contracts.home import Home
    from ml_platform.lineage.provenance.shipping import ship_until_terminated
    from ml_platform.lineage.provenance.store import ProvenanceStore

    home = Home.from_environment()
    home.root.mkdir(parents=True, exist_ok=True)
    name = ProvenanceStore(home.provenance_url).name
    if as_json:
        print_json({"log": str(home.provenance_log), "store": name})
    else:
        print_pairs([("log", home.provenance_log), ("store", name)])
    sys.stdout.flush()
    ship_until_terminated(home.provenance_log, home.provenance_url)


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (gateway, ship):
        app.command(rich_help_panel="Machine")(command)
