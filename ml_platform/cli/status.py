"""`mlp status`: what serves now, from the ledger; and what the controller last saw, decided and waits for."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.cli.output import AsJson, percent, print_json, print_table, short
from ml_platform.errors import LedgerCorruptError

if TYPE_CHECKING:
    from ml_platform.cli.readings import LastLook
    from ml_platform.contracts.home import Home
    from ml_platform.lineage.ledger import Ledger


def status(
    product: Annotated[str | None, typer.Argument(help="Only this product.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what serves: slots, exposure, epoch and newest release of each product; of one, every reading, too."""
    from ml_platform.cli.dossier import has_ledger, known_products, require_known
    from ml_platform.cli.readings import last_looks, print_readings
    from ml_platform.contracts.home import Home
    from ml_platform.lineage.ledger import Ledger

    home = Home.from_environment()
    ledger = Ledger(home.ledger_url) if has_ledger(home) else None
    known = known_products(home, ledger)
    if product is not None:
        require_known(product, known)
    found = [_status_of(ledger, name) for name in ([product] if product else known)]
    seen = last_looks(home, [one["product"] for one in found], datetime.now(UTC))
    if as_json:
        print_json({"home": str(home.root), "products": [one | seen[one["product"]].json() for one in found]})
    else:
        _print(home, found, seen)
        if product is not None:
            print_readings(seen[product])
        if not known:
            typer.echo("No product here: change into a checkout, or name folders in ML_PLATFORM_PRODUCTS.")
    if any(one["damaged"] for one in found):
        raise typer.Exit(1)


def _print(home: "Home", found: "list[dict[str, Any]]", seen: "dict[str, LastLook]") -> None:
    from ml_platform.cli.readings import print_controller

    headers = ("product", "production", "canary", "epoch", "releases", "newest release", "its state", "held by")
    print_table(f"What serves · {home.root}", headers, [_row(one) for one in found])
    for one in found:
        if one["damaged"]:
            typer.echo(f"{one['product']}: {one['damaged']}")
        if shadow := one["slots"].get("shadow"):
            typer.echo(f"{one['product']}: release {short(shadow)} is the shadow; nobody sees what it answers.")
        for said in (*([one["alert"]] if one["alert"] else ()), *one["refused"]):
            typer.echo(f"{_moment(said['at'])} {one['product']}: {said['what']}")
        if one["frozen"]:
            typer.echo(
                f"{one['product']}: FROZEN: {one['frozen']}. `mlp unfreeze {one['product']} --reason …` ends it."
            )
        print_controller(seen[one["product"]])


def _status_of(ledger: "Ledger | None", product: str) -> dict[str, Any]:
    nothing: dict[str, Any] = {"slots": {}, "exposure": 0.0, "releases": 0, "newest": None, "alert": None}
    nothing |= {"product": product, "epoch": 0, "refused": [], "frozen": None, "damaged": None}
    if ledger is None:
        return nothing
    try:
        return nothing | _told(ledger, product)
    except LedgerCorruptError as error:
        return nothing | {"epoch": None, "releases": None, "damaged": str(error)}


def _told(ledger: "Ledger", product: str) -> dict[str, Any]:
    from ml_platform.lineage.story import tell
    from ml_platform.release.history import release_history

    state, history, replay = ledger.state(product), release_history(ledger, product), ledger.replay(product)
    alert = replay.alert
    newest = history[0] if history else None
    return {
        "epoch": state.epoch,
        "slots": {slot.value: release_id for slot, release_id in state.slots.items()},
        "exposure": state.exposure,
        "frozen": state.frozen,
        "releases": len(history),
        "alert": alert and {"at": alert.recorded_at.isoformat(), "what": tell(alert), "seen_by": alert.actor},
        "refused": [
            {"at": event.recorded_at.isoformat(), "what": tell(event), **event.payload} for event in replay.refusals
        ],
        "newest": newest
        and {
            "release_id": newest.release_id,
            "as_of": newest.as_of.isoformat(),
            "state": newest.state.value,
            "registered_at": newest.recorded_at.isoformat(),
            "held_by": dict(newest.held_by) if newest.state.value == "held" else {},
        },
    }


def _row(found: dict[str, Any]) -> tuple[Any, ...]:
    slots, newest = found["slots"], found["newest"] or {}
    canary = f"{short(slots['canary'])} at {percent(found['exposure'])}" if "canary" in slots else None
    registered = newest and f"{short(newest['release_id'])} of {newest['as_of']}, {_moment(newest['registered_at'])}"
    return (
        found["product"],
        short(slots["production"]) if "production" in slots else None,
        canary,
        found["epoch"],
        found["releases"],
        registered or None,
        newest.get("state") or (found["damaged"] and "its chain is damaged"),
        ", ".join(newest.get("held_by", ())) or None,
    )


def _moment(iso: str) -> str:
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M} UTC"


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(rich_help_panel="Releases")(status)
