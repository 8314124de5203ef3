"""`mlp label next|put|export`: questions that were really asked, and what the right answer would have been."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.cli.output import AsJson, print_json, print_pairs
from ml_platform.errors import ContractError, InvalidInputError

if TYPE_CHECKING:
    from ml_platform.contracts.labelling import GivenLabel
    from ml_platform.contracts.products import Product
    from ml_platform.contracts.provenance import ProvenanceRecord
    from ml_platform.lineage.labels import LabelStore
    from ml_platform.lineage.provenance.store import ProvenanceStore
    from ml_platform.monitoring.label_queue import Request

commands = typer.Typer(help="Label questions that were really asked.", no_args_is_help=True)
ProductName = Annotated[str, typer.Argument(help="The product's name.", metavar="PRODUCT")]


@commands.command("next")
def next_(
    product: ProductName,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 10,
    days: Annotated[float, typer.Option(min=0.01, help="Answered in so many last days, by our clock.")] = 30.0,
    by: Annotated[str | None, typer.Option(help="Who looks: none that they have labelled.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the questions that are most worth a label: where releases disagree, or a user was not content.

    At most one of each user and of each wording; the same ones until they are labelled.
    """
    from ml_platform.contracts.products import find_product
    from ml_platform.monitoring.label_queue import next_requests

    found, now = find_product(product), datetime.now(UTC)
    with _stores() as (answers, labels):
        requests = next_requests(found, answers, labels, now - timedelta(days=days), now, count, by)
    if as_json:
        print_json([_request(one) for one in requests])
        return
    for one in requests:
        record = one.record
        facts = ", ".join(f"{name} {value}" for name, value in record.facts.items())
        typer.echo(record.response_id)
        why, asked = ("why", "; ".join(one.worth.reasons)), ("asked", record.utterance)
        print_pairs([why, asked, ("facts", facts), ("answered", record.answer), ("", "")])
    typer.echo(
        f"{len(requests)} to label: mlp label put RESPONSE_ID --by YOU --answer '…'"
        if requests
        else "Nothing needs a label."
    )


@commands.command()
def put(
    by: Annotated[str, typer.Option(help="Who says so: a handle, no address.")],
    response_id: Annotated[str | None, typer.Argument(help="The response whose question it answers.")] = None,
    answer: Annotated[str | None, typer.Option(help="The right answer, as the product answers: JSON or text.")] = None,
    cannot: Annotated[str | None, typer.Option(help="Why nobody could answer it, in place of an answer.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON lines with response_id and answer or cannot; one label each.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Keep the right answer to a question; put again it changes nothing, another one takes its place."""
    if (file is None) == (response_id is None):
        raise typer.BadParameter("give either RESPONSE_ID with --answer or --cannot, or --file")
    said = [{"response_id": response_id, "answer": answer, "cannot": cannot}]
    wanted = said if file is None else _from_file(file)
    from ml_platform.contracts.products import find_product

    products = cache(find_product)
    with _stores() as (answers, labels):
        made = [_label(one, by, answers, products, where) for where, one in enumerate(wanted, start=1)]
        kept = [(label.response_id, labels.put(label).value) for label in made]
    if as_json:
        print_json([{"response_id": name, "kept": how} for name, how in kept])
    else:
        for name, how in kept:
            typer.echo(f"{name}: {how}")


@commands.command()
def export(
    product: ProductName,
    out: Annotated[Path | None, typer.Option(help="The file to write; default: stdout.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write every label that counts as JSON lines, with its question, its facts and the answer that was given."""
    from ml_platform.contracts.products import find_product
    from ml_platform.monitoring.label_queue import newest_labels, with_records
    from ml_platform.monitoring.labelling import disputed as find_disputed

    found = find_product(product)
    with _stores() as (answers, labels):
        newest = newest_labels(found.name, labels)
        rows = with_records(newest, answers)
    disputed = find_disputed(found, newest)
    exported = [_exported(label, record, disputed) for label, record in rows]
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in exported)
    if out is not None:
        out.write_text(lines, encoding="utf-8")
    if as_json:
        print_json(exported)
    elif out is None:
        typer.echo(lines, nl=False)
    else:
        typer.echo(f"{len(exported)} labels in {out}, {len(disputed)} questions disputed.")


@contextmanager
def _stores() -> "Iterator[tuple[ProvenanceStore, LabelStore]]":
    from ml_platform.contracts.home import Home
    from ml_platform.lineage.databases import read_url
    from ml_platform.lineage.labels import LabelStore
    from ml_platform.lineage.provenance.store import ProvenanceStore

    home = Home.from_environment()
    url = read_url(home.provenance_url, "store")
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise InvalidInputError(
            f"nothing was answered yet in {home.root}: `mlp up`, ask, and `mlp ship` brings it here."
        )
    answers, labels = ProvenanceStore(home.provenance_url), LabelStore(home.provenance_url)
    with closing(answers), closing(labels):
        yield answers, labels


def _label(
    one: dict[str, Any], by: str, answers: "ProvenanceStore", products: "Callable[[str], Product]", number: int
) -> "GivenLabel":
    """The label that a person means. Raises InvalidInputError where it could not teach."""
    from ml_platform.contracts.labelling import GivenLabel
    from ml_platform.lineage.answered import known_at
    from ml_platform.monitoring.labelling import label_problem
    from ml_platform.serving.guardrails.personal_data import redact

    unknown = sorted(set(one) - {"response_id", "answer", "cannot"})
    where = f"label {number} ('{one.get('response_id')}')"
    if unknown:
        raise InvalidInputError(f"{where}: unknown keys {', '.join(unknown)}. Give response_id, and answer or cannot.")
    record = answers.find(str(one.get("response_id")))
    if record is None:
        raise InvalidInputError(f"{where}: there is no such answer in {answers.name}. `mlp label next` shows ids.")
    product, now = products(record.product), datetime.now(UTC)
    given, cannot = (None if one.get(key) is None else redact(_text(one[key]))[0] for key in ("answer", "cannot"))
    if given is not None and (problem := label_problem(product, record, given)):
        raise InvalidInputError(f"{where}: {problem}. Correct the answer, or say with --cannot why there is none.")
    return GivenLabel.parse(
        {
            "product": record.product,
            "response_id": record.response_id,
            "labeller": by,
            "answer": given,
            "reason": cannot,
            "labelled_at": now,
            "known_at": known_at(answers, record, now, product.serving.time),
        },
        where=where,
    )


def _text(value: Any) -> str:
    """An answer as the product would write it; files may hold JSON answers as objects."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _from_file(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}.") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                one = json.loads(line)
            except ValueError as error:
                raise ContractError(
                    f"{path}, line {number}: is not JSON ({error}). Expected one label a line."
                ) from None
            if not isinstance(one, dict):
                raise ContractError(f"{path}, line {number}: is no object. Expected response_id, and answer or cannot.")
            found.append(one)
    return found


def _request(one: "Request") -> dict[str, Any]:
    return {
        "response_id": one.record.response_id,
        "score": one.worth.score,
        "reasons": one.worth.reasons,
        "utterance": one.record.utterance,
        "facts": one.record.facts,
        "answer": one.record.answer,
    }


def _exported(label: "GivenLabel", record: "ProvenanceRecord", disputed: set[str]) -> dict[str, Any]:
    return {
        "response_id": label.response_id,
        "release_id": record.release_id,
        "utterance": record.utterance,
        "facts": record.facts,
        "answered": record.answer,
        "label": label.answer,
        "cannot": label.reason,
        "labeller": label.labeller,
        "labelled_at": label.labelled_at.isoformat(),
        "known_at": label.known_at.isoformat(),
        "disputed": label.response_id in disputed,
    }


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.add_typer(commands, name="label", rich_help_panel="Runs")
