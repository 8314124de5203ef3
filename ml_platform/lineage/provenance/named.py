"""Answers by their names."""

from collections.abc import Iterable

from sqlalchemy import select

from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.errors import IntegrityError
from ml_platform.lineage.provenance.schema import responses
from ml_platform.lineage.provenance.store import PAGE, Answered, ProvenanceStore, record_of


def find_answers(store: ProvenanceStore, product: str, response_ids: Iterable[str]) -> list[Answered]:
    """The answers of a product with these names, with all that was said of them.

    What the store does not have, and records that were changed, are left out. Raises what the store raises.
    """
    records: dict[str, ProvenanceRecord] = {}
    names = sorted(set(response_ids))
    for first in range(0, len(names), PAGE):
        query = select(responses.c.content, responses.c.sha256, responses.c.response_id)
        named = responses.c.response_id.in_(names[first : first + PAGE])
        for row in store.rows(query.where(responses.c.product == product, named)):
            try:
                records[row.response_id] = record_of(row.content, row.sha256, row.response_id)
            except IntegrityError:
                continue
    known = [*records.values()]
    return [one for first in range(0, len(known), PAGE) for one in store.join(known[first : first + PAGE])]
