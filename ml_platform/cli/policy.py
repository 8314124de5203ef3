"""`mlp policy pin|show`: which promotion policy counts for a product."""

import getpass
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.cli.output import AsJson, print_json, print_pairs, print_table, short

if TYPE_CHECKING:
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.pin import PolicyPin
    from ml_platform.contracts.policy import PromotionPolicy
    from ml_platform.lineage.ledger import Ledger

commands = typer.Typer(help="Pin the promotion policy that counts, and show it.", no_args_is_help=True)

ProductName = Annotated[str, typer.Argument(help="The product's name.", metavar="PRODUCT")]


@commands.command()
def pin(
    product: ProductName,
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who ask later.")],
    as_json: AsJson = False,
) -> None:
    """Let the policy of the working copy count from now on, signed with the operator's key."""
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.products import find_product
    from ml_platform.errors import RefusedError
    from ml_platform.lineage.keys import operator_key, trusted_operators
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.release.assemble import gate_producer
    from ml_platform.release.controller import Controller

    home, policy = Home.from_environment(), find_product(product).promotion_policy
    key = operator_key(home)
    if key is None:
        raise RefusedError(
            "no operator's key is here, and others are named as operators. Pin where one is, or name its file in "
            "ML_PLATFORM_OPERATOR_KEY_FILE."
        )
    ledger = Ledger(home.ledger_url)
    changes = _changes(_pinned_policy(home, ledger, product), policy)
    controller = Controller(ledger, {}, gate_producer(), trusted_operators(home))
    actor = f"{getpass.getuser()}@{socket.gethostname()}"
    said = controller.pin_policy(product, policy, key, reason, datetime.now(UTC), actor)
    if as_json:
        print_json({"changed": said is not None, "pin": said or controller.pinned(product), "changes": changes})
        return
    if said is None:
        typer.echo(f"Policy {policy.version}, {short(policy.sha256)}, is the pinned one already.")
        return
    if changes:
        _print_changes("What changed", changes, "before")
    typer.echo(f"Policy {said.version}, {short(said.policy_sha256)}, counts for {product} from now on.")
    typer.echo("Releases that were judged under another one are held until they are judged again: `mlp run`.")


@commands.command()
def show(product: ProductName, as_json: AsJson = False) -> None:
    """Show the pinned policy, who pinned it and why, and how the working copy differs."""
    from ml_platform.cli.dossier import has_ledger
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.products import find_product
    from ml_platform.lineage.ledger import Ledger

    home, policy = Home.from_environment(), find_product(product).promotion_policy
    ledger = Ledger(home.ledger_url) if has_ledger(home) else None
    said = _pin(home, ledger, product) if ledger else None
    changes = _changes(_pinned_policy(home, ledger, product), policy) if ledger else []
    same = said is not None and said.policy_sha256 == policy.sha256
    if as_json:
        working = {"version": policy.version, "policy_sha256": policy.sha256}
        print_json({"pin": said, "working_copy": working, "same": same, "differences": changes})
        return
    if said is None:
        typer.echo(f"No policy of {product} is pinned by a trusted operator: no release can serve.")
        typer.echo(f"`mlp policy pin {product} --reason …` pins {policy.version}, {short(policy.sha256)}.")
        return
    print_pairs(
        [
            ("pinned", f"{said.version}, {said.policy_sha256}"),
            ("since", f"{said.pinned_at:%Y-%m-%d %H:%M} UTC by {said.operator}"),
            ("reason", said.reason),
            ("working copy", "the same" if same else f"{policy.version}, {policy.sha256}: counts once it is pinned"),
        ]
    )
    if changes:
        _print_changes("How the working copy differs", changes, "pinned")


def _pin(home: "Home", ledger: "Ledger", product: str) -> "PolicyPin | None":
    from ml_platform.lineage.keys import trusted_operators
    from ml_platform.lineage.pins import counting_pin

    return counting_pin(ledger.pins(product), trusted_operators(home))


def _pinned_policy(home: "Home", ledger: "Ledger", product: str) -> "PromotionPolicy | None":
    said = _pin(home, ledger, product)
    return ledger.replay(product).policies[said.policy_sha256] if said else None


def _changes(before: "PromotionPolicy | None", after: "PromotionPolicy") -> list[dict[str, Any]]:
    """Every value that differs, gates by their names; [] where there was nothing before."""
    if before is None:
        return []
    old, new = _values(before), _values(after)
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return [{"part": name, "before": old.get(name), "after": new.get(name)} for name in names]


def _values(policy: "PromotionPolicy") -> dict[str, Any]:
    from ml_platform.cli.releases import flattened

    plain = policy.model_dump(mode="json")
    plain["gates"] = {gate["gate"]: gate for gate in plain["gates"]}
    return dict(flattened(plain))


def _print_changes(title: str, changes: list[dict[str, Any]], before: str) -> None:
    rows = [(one["part"], one["before"], one["after"]) for one in changes]
    print_table(title, ("part", before, "working copy"), rows)


def add_to(app: typer.Typer) -> None:
    """Adds the group of this file."""
    app.add_typer(commands, name="policy", rich_help_panel="Releases")
