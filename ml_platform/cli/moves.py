"""`mlp promote|pause|resume|abort|rollback|shadow|freeze|unfreeze|sign-off`: operators use the door of everybody."""

import getpass
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.output import AsJson, print_json, short
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import InvalidInputError, RefusedError

if TYPE_CHECKING:
    from ml_platform.contracts.home import Home
    from ml_platform.lineage.replay import Replay
    from ml_platform.release.controller import Controller
    from ml_platform.release.moves import Held, Move

    AttemptedMove = Callable[[Controller, str, datetime, str], Move | Held]

ProductName = Annotated[str, typer.Argument(help="The product's name.", metavar="PRODUCT")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for those who ask later.")]


def promote(product: ProductName, reason: Reason, as_json: AsJson = False) -> None:
    """Put the canary into production now; its gates and its evidence are checked again."""

    def move(door: "Controller", canary: str, now: datetime, actor: str) -> "Move | Held":
        return door.promote(product, canary, now, actor, reason=_said(reason))

    _do(product, SlotName.CANARY, move, as_json=as_json)


def pause(product: ProductName, reason: Reason, as_json: AsJson = False) -> None:
    """Let the canary keep its users and go no further."""

    def move(door: "Controller", canary: str, now: datetime, actor: str) -> "Move | Held":
        return door.pause_canary(product, canary, _said(reason), now, actor)

    _do(product, SlotName.CANARY, move, as_json=as_json)


def resume(product: ProductName, reason: Reason, as_json: AsJson = False) -> None:
    """Let a paused canary go on."""

    def move(door: "Controller", canary: str, now: datetime, actor: str) -> "Move | Held":
        return door.resume_canary(product, canary, _said(reason), now, actor)

    _do(product, SlotName.CANARY, move, as_json=as_json)


def abort(product: ProductName, reason: Reason, as_json: AsJson = False) -> None:
    """Take the canary away; production answers all users, and the release is quarantined."""

    def move(door: "Controller", canary: str, now: datetime, actor: str) -> "Move | Held":
        return door.abort_canary(product, canary, _said(reason), now, actor)

    _do(product, SlotName.CANARY, move, as_json=as_json)


def rollback(
    product: ProductName,
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="Back to this release; default: the one that served before.")] = None,
    away: Annotated[
        str | None, typer.Option("--from", help="Away from this release, if it still serves; after a rollback, say it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take production back to an earlier release, whole: weights, prompt, guardrails, thresholds, features."""

    def move(door: "Controller", _: str, now: datetime, actor: str) -> "Move | Held":
        earlier, meant = (None if one is None else _named(one) for one in (to, away))
        replay = door.ledger.replay(product)
        _require_meant(replay, meant)
        return door.roll_back(product, _said(reason), now, actor, to=earlier, expected_epoch=replay.epoch)

    _do(product, SlotName.PRODUCTION, move, as_json=as_json)


def shadow(
    product: ProductName,
    reason: Reason,
    release: Annotated[str | None, typer.Argument(help="The release that becomes the shadow.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Take the shadow away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a proven release answer copies of users' questions, which nobody sees; or take it away again."""
    if (release is None) != off:
        raise InvalidInputError("expected either a release, which becomes the shadow, or --off, which takes it away.")

    def open_it(door: "Controller", _: str, now: datetime, actor: str) -> "Move | Held":
        return door.open_shadow(product, _named(release or ""), _said(reason), now, actor)

    def close_it(door: "Controller", serving: str, now: datetime, actor: str) -> "Move | Held":
        return door.close_shadow(product, serving, _said(reason), now, actor)

    _do(product, *((SlotName.SHADOW, close_it) if off else (SlotName.PRODUCTION, open_it)), as_json=as_json)


def freeze(product: ProductName, reason: Reason, as_json: AsJson = False) -> None:
    """Let nothing go forward, and no training start by itself; aborts, rollbacks and pauses still do what they do."""
    _set_frozen(product, _said(reason), frozen=True, as_json=as_json)


def unfreeze(product: ProductName, reason: Reason, as_json: AsJson = False) -> None:
    """Let a frozen product go on."""
    _set_frozen(product, _said(reason), frozen=False, as_json=as_json)


def sign_off(
    product: ProductName,
    reason: Reason,
    release: Annotated[
        str | None, typer.Argument(help="The canary that you looked at; default: whichever is there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Agree to the promotion of the canary, with an operator's key: for releases whose policy wants that."""
    from ml_platform.contracts.home import Home
    from ml_platform.lineage.keys import operator_key

    home = Home.from_environment()
    door, key = _door(home), operator_key(home)
    if key is None:
        raise RefusedError(
            "no operator's key is here, and others are named as operators. Sign where one is, or name its file in "
            "ML_PLATFORM_OPERATOR_KEY_FILE."
        )
    canary = door.state(product).slots.get(SlotName.CANARY)
    if canary is None:
        raise RefusedError(f"no release of {product} is the canary: there is nothing to sign.")
    if release is not None and _named(release) != canary:
        raise RefusedError(f"the canary of {product} is release {short(canary)}, not {release}. Nothing was signed.")
    door.sign_off(product, canary, key, _said(reason), datetime.now(UTC), _actor())
    if as_json:
        print_json({"product": product, "release_id": canary, "operator_key": key.key_id})
        return
    typer.echo(f"{product}: the promotion of release {short(canary)} is signed; it goes once its metrics are proven.")


def _set_frozen(product: str, reason: str, *, frozen: bool, as_json: bool) -> None:
    from ml_platform.cli.dossier import known_products, require_known
    from ml_platform.contracts.home import Home

    home = Home.from_environment()
    door = _door(home)
    require_known(product, known_products(home, door.ledger))
    change = door.freeze if frozen else door.unfreeze
    changed = change(product, reason, datetime.now(UTC), _actor())
    if as_json:
        print_json({"product": product, "changed": changed, "frozen": door.state(product).frozen})
        return
    said = "is frozen: nothing goes forward until `mlp unfreeze`" if frozen else "goes on"
    typer.echo(f"{product}: {said}." if changed else f"{product}: was {'frozen' if frozen else 'not frozen'} before.")


def _do(product: str, slot: SlotName, move: "AttemptedMove", *, as_json: bool) -> None:
    from ml_platform.contracts.home import Home
    from ml_platform.release.moves import Held

    door = _door(Home.from_environment())
    serving = door.state(product).slots.get(slot)
    if serving is None:
        raise RefusedError(f"no release of {product} is in the slot {slot}. `mlp status` shows what serves.")
    done = move(door, serving, datetime.now(UTC), _actor())
    if isinstance(done, Held):
        reasons = "".join(f"\n  {gate}: {why}" for gate, why in done.reasons.items())
        raise RefusedError(f"release {short(done.release_id)} stays where it is, {done.sentence}.{reasons}")
    if as_json:
        print_json({**vars(done), "sentence": done.sentence})
        return
    typer.echo(f"{product}: release {short(done.release_id)}: {done.sentence}. Epoch {done.epoch}.")


def _require_meant(replay: "Replay", meant: str | None) -> None:
    """Raises RefusedError where what serves may be another release than the one that people want to be rid of.

    Two who are paged for one release roll back one after the other: the second would take away the healthy one.
    """
    from ml_platform.contracts.events import EventKind
    from ml_platform.lineage.story import tell

    serving, came = replay.slots.get(SlotName.PRODUCTION, ""), replay.served
    if meant == serving or came is None or (meant is None and came.kind is not EventKind.RELEASE_ROLLED_BACK):
        return
    since = (
        f"release {short(serving)} serves since {came.recorded_at:%Y-%m-%d %H:%M:%S} UTC, {came.actor}: {tell(came)}"
    )
    raise RefusedError(
        f"{since}.\nNothing was moved. If release {short(serving)} is what harms: "
        f"`mlp rollback {replay.product} --from {short(serving)} --reason …`."
    )


def _door(home: "Home") -> "Controller":
    from ml_platform.cli.dossier import open_ledger
    from ml_platform.lineage.keys import trusted_keys, trusted_operators
    from ml_platform.release.assemble import gate_producer
    from ml_platform.release.controller import Controller

    return Controller(open_ledger(home), trusted_keys(home), gate_producer(), trusted_operators(home))


def _actor() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _said(reason: str) -> str:
    if not reason.strip():
        raise InvalidInputError("--reason is empty. Say why in a sentence: it stands in the ledger for ever.")
    return reason.strip()


def _named(release: str) -> str:
    from ml_platform.cli.dossier import read_dossier
    from ml_platform.contracts.home import Home

    return read_dossier(Home.from_environment(), release, with_mlflow=False).record.release_id


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (promote, pause, resume, abort, rollback, shadow, freeze, unfreeze, sign_off):
        app.command(rich_help_panel="Releases")(command)
