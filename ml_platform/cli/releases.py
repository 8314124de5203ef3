"""`mlp releases`, `mlp show`, `mlp diff`, `mlp verify`: one release or two of them, from the ledger."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.cli.output import AsJson, console, print_json, print_pairs, print_table, short

if TYPE_CHECKING:
    from ml_platform.cli.dossier import Dossier
    from ml_platform.release.history import ReleaseRecord

ReleaseId = Annotated[str, typer.Argument(help="A release id or its first digits, at least 4.", metavar="RELEASE")]


MARKS = {"ok": "✓", "note": "·", "broken": "✗"}


def releases(
    product: Annotated[str, typer.Argument(help="The product's name.")],
    as_json: AsJson = False,
) -> None:
    """List every release of a product, the newest first, with what holds it."""
    from ml_platform.cli.dossier import known_products, open_ledger, require_known
    from ml_platform.contracts.home import Home
    from ml_platform.release.history import release_history

    home = Home.from_environment()
    ledger = open_ledger(home)
    found = release_history(ledger, product)
    if not found:
        require_known(product, known_products(home, ledger))
    rows = [
        {
            "release_id": one.release_id,
            "as_of": one.as_of.isoformat(),
            "state": one.state.value,
            "registered_at": one.recorded_at.isoformat(),
            "verdicts": {gate: verdict.value if verdict else None for gate, verdict in one.verdicts.items()},
            "held_by": dict(one.held_by),
        }
        for one in found
    ]
    if as_json:
        print_json(rows)
        return
    headers = ("release", "as of", "state", "registered (UTC)", "held by")
    print_table(f"Releases of {product}", headers, [_row(one) for one in found])


def show(release: ReleaseId, as_json: AsJson = False) -> None:
    """Show a release: what it is made of, what its gates said, where it serves, where its files lie."""
    from ml_platform.cli.dossier import artifact_digests, artifact_path, read_dossier
    from ml_platform.contracts.home import Home

    home = Home.from_environment()
    dossier = read_dossier(home, release)
    paths = {kind: str(artifact_path(home, kind, sha)) for kind, sha in artifact_digests(dossier).items()}
    if as_json:
        print_json({**dossier.json(), "paths": paths})
        return
    record = dossier.record
    print_pairs(
        [
            ("release", record.release_id),
            ("product", record.release.product),
            ("now", dossier.outcome),
            ("registered", f"{record.recorded_at:%Y-%m-%d %H:%M} UTC by {record.actor}"),
            ("MLflow version", dossier.mlflow_version),
        ]
    )
    print_gates(dossier)
    print_table("What it is made of", ("part", "value"), flattened(record.release.model_dump(mode="json")))
    print_pairs(paths.items())


def diff(one: ReleaseId, other: ReleaseId, as_json: AsJson = False) -> None:
    """Show what differs between two releases."""
    from ml_platform.cli.dossier import open_ledger
    from ml_platform.contracts.home import Home
    from ml_platform.release.history import find_release

    ledger = open_ledger(Home.from_environment())
    first, second = (find_release(ledger, found) for found in (one, other))
    a, b = (dict(flattened(record.release.model_dump(mode="json"))) for record in (first, second))
    differences = [(key, a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
    if as_json:
        print_json(
            {
                "one": first.release_id,
                "other": second.release_id,
                "differences": [{"part": key, "one": left, "other": right} for key, left, right in differences],
            }
        )
    elif differences:
        headers = ("part", short(first.release_id), short(second.release_id))
        print_table(f"{len(differences)} parts differ", headers, differences)
    else:
        typer.echo("They are the same release.")


def verify(release: ReleaseId, as_json: AsJson = False) -> None:
    """Check a release again: the ledger's chain, every signature, every gate, every byte of its artifacts."""
    from ml_platform.cli.verifying import verify_everything
    from ml_platform.contracts.home import Home

    home = Home.from_environment()
    findings = list(verify_everything(home, release))
    whole = all(finding.state != "broken" for finding in findings)
    if as_json:
        print_json({"verified": whole, "findings": [vars(finding) for finding in findings]})
    else:
        rows = [(MARKS[finding.state], finding.what, finding.found) for finding in findings]
        print_table(f"Release {release}", ("", "what", "found"), rows)
        console().print("Everything verifies." if whole else "[red]Not everything verifies.[/red]")
    if not whole:
        raise typer.Exit(1)


def print_gates(dossier: "Dossier", longest_reason: int | None = None) -> None:
    """Prints the gates with their verdicts; reasons are cut at a word when they are longer than asked for."""

    def told(reason: str) -> str:
        if longest_reason is None or len(reason) <= longest_reason:
            return reason
        return reason[:longest_reason].rpartition(" ")[0] + " …"

    rows = [(row.gate, row.claim, row.verdict or "no evidence", told(row.reason)) for row in dossier.gates]
    print_table("Gates", ("gate", "claim", "verdict", "reason"), rows)


def flattened(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested mappings with its dotted name."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flattened(inner, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, value


def _row(one: "ReleaseRecord") -> tuple[Any, ...]:
    held = ", ".join(one.held_by) or None
    return short(one.release_id), one.as_of, one.state.value, f"{one.recorded_at:%Y-%m-%d %H:%M}", held


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (releases, show, diff, verify):
        app.command(rich_help_panel="Releases")(command)
