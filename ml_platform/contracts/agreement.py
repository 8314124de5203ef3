"""Agreement: what one file of a product says of another is true; asked where a product's folder is read."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ml_platform.contracts.mandatory import why_in_name_only
from ml_platform.contracts.reach import unreached
from ml_platform.errors import ContractError

if TYPE_CHECKING:
    from ml_platform.contracts.products import Product


def require_agreement(product: "Product") -> None:
    """Raises ContractError with every name and gate in a product's files that the others give no meaning, one a line.

    What ledgers and releases keep is not asked: it was in order when it was read, by the rules of its day.
    """
    if problems := [*_of_gates(product), *_of_requests(product)]:
        raise ContractError("\n".join(problems))


def _of_gates(product: "Product") -> Iterator[str]:
    where = product.folder / product.spec.files.promotion_policy
    if wrong := why_in_name_only(product.promotion_policy):
        yield f"{where}: {wrong}. Correct the gates, or rename them and add the mandatory ones."


def _of_requests(product: "Product") -> Iterator[str]:
    where = product.folder / (product.spec.files.serving or "product.yaml")
    shown = product.action_policy.shown_as if product.action_policy else None
    facts = tuple(fact for fact in product.spec.examples.facts if fact != shown)
    yield from unreached(where, product.serving, product.spec.sources, product.features, facts)
