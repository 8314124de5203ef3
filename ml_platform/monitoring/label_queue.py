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
from ml_platform.monitoring.labelling import SAID, Queue, Worth


@dataclass(frozen=True)
class Request:
    """A question for a person: what a look at it is worth, and its record."""

    worth: Worth
    record: ProvenanceRecord


def next_requests(
    product: Product,
    answers: ProvenanceStore,
    labels: LabelStore,
    since: datetime,
    until: datetime,
    count: int,
    labeller: str | None = None,
) -> list[Request]:
    """The `count` questions answered since then that are worth most, best first; the same each time until one is
    labelled. None that `labeller` has labelled. Raises StorageError when the store does not answer.
    """
    reserved = {one.entity for examples in load_golden_sets(product).values() for one in examples}
    queue = Queue(product, newest_labels(product.name, labels), labeller=labeller, reserved=reserved)
    for record in answers.scan(product.name, since, until):
        queue.see(record)
    for said in heard.said_since(answers, product.name, since):
        about = heard.records_of(answers, product.name, [one.response_id or "" for one in said if one.kind in SAID])
        for one in said:
            if one.response_id in about:
                queue.hear(one, about[one.response_id])
    chosen = queue.next(count)
    records = heard.records_of(answers, product.name, [one.response_id for one in chosen])
    return [Request(one, records[one.response_id]) for one in chosen]


def newest_labels(product: str, labels: LabelStore) -> list[GivenLabel]:
    """The labels that count: of each labeller the newest of each response, in the order given."""
    newest: dict[tuple[str, str], GivenLabel] = {}
    for label in labels.all(product):
        newest.pop((label.response_id, label.labeller), None)
        newest[label.response_id, label.labeller] = label
    return list(newest.values())


def with_records(labels: Sequence[GivenLabel], answers: ProvenanceStore) -> list[tuple[GivenLabel, ProvenanceRecord]]:
    """Labels of one product with the records that they are about, in the same order."""
    product = labels[0].product if labels else ""
    records = heard.records_of(answers, product, [label.response_id for label in labels])
    return [(label, records[label.response_id]) for label in labels if label.response_id in records]
