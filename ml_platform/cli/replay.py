"""`mlp replay`: real days of the past, played to the gateway as they happened."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.addresses import GATEWAY_PORT, url_of
from ml_platform.cli.output import AsJson, console, print_json
from ml_platform.errors import InvalidInputError, OperationError

if TYPE_CHECKING:
    from ml_platform.cli.replay_view import ReplayView
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.products import Product
    from ml_platform.lineage.artifacts import Artifact, ArtifactStore
    from ml_platform.serving.replay.playing import Player, Publish
    from ml_platform.serving.replay.tally import Tally
    from ml_platform.serving.replay.travellers import GatewayClient

DAY = ["%Y-%m-%d"]
GATEWAY = url_of(GATEWAY_PORT)
FOUND_WITHIN_SECONDS = 60.0
"""Gateways look for a new publication each second; the first one that they open takes longer."""
INTERRUPTED = 130


def replay(
    product: Annotated[str, typer.Argument(help="The product's name: its folder below products/.")],
    first: Annotated[datetime, typer.Option("--from", formats=DAY, help="The first day, UTC.")],
    last: Annotated[datetime, typer.Option("--to", formats=DAY, help="The last day, included.")],
    speed: Annotated[
        float, typer.Option(min=0.0, help="Seconds of the past a second; 0 goes as fast as answers come.")
    ] = 0.0,
    limit: Annotated[int, typer.Option(min=0, help="So many questions, drawn evenly; 0 asks all.")] = 300,
    users: Annotated[int, typer.Option(min=1, help="Travellers who ask; each keeps its id.")] = 1000,
    at_once: Annotated[int, typer.Option(min=1, help="Questions under way at most; beyond that time waits.")] = 1,
    every_hours: Annotated[float, typer.Option(min=0.25, help="Hours of the past between publications.")] = 6.0,
    publish: Annotated[bool, typer.Option(help="Put features online as they were known, as time goes by.")] = True,
    url: Annotated[str, typer.Option(help="The gateway.")] = GATEWAY,
    key_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="An API key; by default this home's own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play real days to the gateway: people ask in words never trained on, and outcomes arrive when they did.

    The same arguments ask the same questions in the same order, and outcomes keep their keys: again does no harm.
    Exit code 1 when nothing was answered, or the gateway failed a question.
    """
    from ml_platform.cli.replay_view import ReplayView
    from ml_platform.serving.replay.playing import Pace, Player
    from ml_platform.serving.replay.tally import Tally
    from ml_platform.serving.replay.traffic import TrafficContext, make_traffic
    from ml_platform.serving.replay.travellers import GatewayClient

    with ReplayView(as_json=as_json) as view:
        client = GatewayClient(url, _api_key(key_file))
        asyncio.run(_require(client, product))
        view.say(f"{product} from {first.date()} to {last.date()}: taking what was known then …")
        past = take_past(product, first.date(), last.date(), publish=publish)
        context = TrafficContext(past.product, past.snapshot, past.first, past.until, users)
        traffic = make_traffic(context, limit or None)
        view.say(f"{len(traffic.questions):,} of {len(traffic.questions) + traffic.left_out:,} questions")
        sizes = len(traffic.questions), len(traffic.outcomes)
        tally = Tally(product, past.first, *sizes, past.product.spec.evaluation.cost)
        pace = Pace(speed or None, at_once, timedelta(hours=every_hours))
        player = Player(traffic, client, _publisher(past, client, view) if publish else None, pace, tally, view.show)
        interrupted = _run(player)
    _print_tally(tally, as_json=as_json)
    if interrupted:
        typer.echo("mlp: interrupted. The same command begins again; what was sent before is known already.", err=True)
        raise typer.Exit(INTERRUPTED)
    _raise_failure(tally)


@dataclass
class Past:
    """The days that are played, and what was known then.

    The snapshot sees a day further than the last one, so that outcomes which came later are there. `online` is the
    product as each release that serves knows it, with the features by that release's definitions.
    """

    product: "Product"
    home: "Home"
    snapshot: "Artifact"
    first: datetime
    until: datetime
    online: "Sequence[tuple[Product, Artifact | None]]"
    _going_back: bool = True

    async def publish(self, at: datetime) -> bool:
        """Puts online what was known at a moment, the first time even if what is online is newer; whether it is new."""
        from ml_platform.features.online import publish_online
        from ml_platform.features.publication import CURRENT, shelf_of

        began, new = time.time(), False
        for product, features in self.online:
            snapshot = self.snapshot if product.serving.lookups else None
            put = partial(publish_online, product, features, self.home, at, snapshot=snapshot)
            publication = await asyncio.to_thread(partial(put, going_back=self._going_back))
            shelf = shelf_of(self.home, product.name, publication.definitions_sha256, product.serving.lookups)
            new = new or (shelf / CURRENT).stat().st_mtime >= began
        self._going_back = False
        return new


def _publisher(past: Past, client: "GatewayClient", view: "ReplayView") -> "Publish":
    """Publishes, and waits until the gateway answers from it: what is asked next must not see another time."""

    async def publish(at: datetime) -> None:
        began = time.time()
        if await past.publish(at) and not await client.finds_features(
            past.product.name, began, seconds=FOUND_WITHIN_SECONDS
        ):
            view.say(
                f"the gateway did not open the features of {at:%Y-%m-%d %H:%M} in {FOUND_WITHIN_SECONDS:.0f} s: some "
                "answers may rest on others. Its log says why."
            )

    return publish


def take_past(name: str, first: date, last: date, *, publish: bool) -> Past:
    """The days of a product from `first` to `last`, with their snapshot and features; found again if made before.

    Raises InvalidInputError for days in the wrong order, AsOfOutsideDataError for days that the sources do not cover.
    """
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.products import find_product
    from ml_platform.lineage.object_store import artifact_store
    from ml_platform.snapshots.extract import take_snapshot

    if last < first:
        raise InvalidInputError(f"--to {last} is before --from {first}. Swap them.")
    home, product = Home.from_environment(), find_product(name)
    store = artifact_store(home)
    snapshot = take_snapshot(product, last + timedelta(days=1), store)
    begin, end = (datetime.combine(day, datetime.min.time(), UTC) for day in (first, last + timedelta(days=1)))
    return Past(product, home, snapshot, begin, end, _online(product, home, snapshot, store) if publish else [])


def _online(
    product: "Product", home: "Home", snapshot: "Artifact", store: "ArtifactStore"
) -> "list[tuple[Product, Artifact | None]]":
    """What there is to publish for the releases that serve, once for those with the same definitions.

    Raises OperationError for a release whose features this code cannot compute: it would be asked without facts.
    """
    from ml_platform.features.build import build_features
    from ml_platform.features.definitions import definitions_sha256
    from ml_platform.features.online import has_online
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.release.publishing import as_released

    known = Ledger(home.ledger_url).replay(product.name)
    found: dict[str, tuple[Product, Artifact | None]] = {}
    for release in (known.releases[release_id] for release_id in known.slots.values()):
        judged = as_released(product, release, store)
        now = None if judged.features is None else definitions_sha256(judged)
        wanted = None if release.features is None else release.features.definitions_sha256
        if now != wanted:
            raise OperationError(
                f"release {release.release_id[:12]} was judged with features by definitions {str(wanted)[:12]}, this "
                f"code gives {str(now)[:12]}: they cannot be published for it. Bring up a release of this code "
                f"(mlp run {product.name}), or play with --no-publish what is online."
            )
        if has_online(judged):
            built = build_features(judged, snapshot, store) if judged.features else None
            found[f"{now} {judged.serving.lookups}"] = (judged, built)
    return list(found.values())


def _api_key(path: Path | None) -> str:
    from ml_platform.contracts.home import Home
    from ml_platform.serving.gateway.access import ensure_local_key

    return (path or ensure_local_key(Home.from_environment())).read_text(encoding="utf-8").strip()


async def _require(client: "GatewayClient", product: str) -> None:
    async with client:
        await client.require_product(product)


def _run(player: "Player") -> bool:
    """Plays; whether somebody interrupted it."""

    async def play() -> None:
        async with player.gateway:
            await player.play()

    try:
        asyncio.run(play())
    except KeyboardInterrupt:
        return True
    return False


def _print_tally(tally: "Tally", *, as_json: bool) -> None:
    from ml_platform.cli.replay_view import tally_table

    if as_json:
        print_json(tally.json())
    else:
        console().print(tally_table(tally))


def _raise_failure(tally: "Tally") -> None:
    """Raises OperationError when a question failed by our fault, or no release answered any."""
    from ml_platform.serving.question import ReplyStatus

    if tally.failed:
        told = ", ".join(f"{count:,} x {what}" for what, count in tally.failed.most_common(3))
        raise OperationError(f"{tally.failed.total():,} of {tally.asked:,} questions failed: {told}.")
    if not tally.replies:
        told = ", ".join(f"{count:,} x {what}" for what, count in tally.refused.most_common(3))
        raise OperationError(f"none of {tally.asked:,} questions was answered: {told or 'none was asked'}.")
    if tally.count(ReplyStatus.FALLBACK) == tally.replies:
        raise OperationError(
            f"all {tally.replies:,} replies were the fallback: no release answered. `mlp status` shows whether one is "
            "in production (`mlp promote` puts it there), the gateway's /readyz what it lacks."
        )


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(rich_help_panel="Runs")(replay)
