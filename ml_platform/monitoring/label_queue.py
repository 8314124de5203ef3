"""The labelling queue of a product: what is worth a person's look, out of the stores; nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ml_platform.contracts.labelling import GivenLabel
from ml_platform.contracts.products import Product
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.families.lora.golden import load_golden_sets
from ml_platform.lineage.labels import LabelStore
from ml_platform.lineage.provenance import heard
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.monitoring.labelling import Queue, Worth


@dataclass(frozen=True)
class Request:
    """A question for a person: what it is worth, its record, and what the shadow made of it."""

    worth: Worth
    record: ProvenanceRecord


def next_requests(
    product: Product, answers: ProvenanceStore, labels: LabelStore, since: datetime, until: datetime, count: int
) -> list[Request]:
    """The `count` questions answered since then that are worth most, best first; the same each time until one is
    labelled. Raises StorageError when the store does not answer.
    """
    labelled = {label.response_id for label in labels.all(product.name)}
    reserved = {one.entity for examples in load_golden_sets(product).values() for one in examples}
    queue = Queue(product, labelled, reserved)
    for record in answers.scan(product.name, since, until):
        queue.see(record)
    for said in heard.said_since(answers, product.name, since):
        about = heard.records_of(answers, product.name, [one.response_id or "" for one in said])
        for one in said:
            if one.response_id in about:
                queue.hear(one, about[one.response_id])
    chosen = queue.next(count)
    records = heard.records_of(answers, product.name, [one.response_id for one in chosen])
    return [Request(one, records[one.response_id]) for one in chosen]


def labelled_rows(
    product: str, answers: ProvenanceStore, labels: LabelStore
) -> list[tuple[GivenLabel, ProvenanceRecord]]:
    """Every label that counts, the newest of each labeller, with the record that it is about, in the order given."""
    newest: dict[tuple[str, str], GivenLabel] = {}
    for label in labels.all(product):
        newest.pop((label.response_id, label.labeller), None)
        newest[label.response_id, label.labeller] = label
    records = heard.records_of(answers, product, [label.response_id for label in newest.values()])
    return [(label, records[label.response_id]) for label in newest.values() if label.response_id in records]


def contradicted(rows: Sequence[tuple[GivenLabel, ProvenanceRecord]]) -> set[str]:
    """The responses of which labellers say different things."""
    said: dict[str, set[str | None]] = {}
    for label, _ in rows:
        said.setdefault(label.response_id, set()).add(label.answer)
    return {response_id for response_id, answers in said.items() if len(answers) > 1}
