"""The policy pin: an operator's word on which promotion policy counts for a product."""

from typing import Annotated

from pydantic import AwareDatetime, Field

from ml_platform.contracts.base import Contract, Name, SemanticVersion, Sha256


class PolicyPin(Contract):
    """The predicate of the in-toto statement that an operator signs; its subject is the policy of the product.

    `after_sha256` is the digest of the event that the pin follows: a pin counts at one place of one chain, so that
    nobody brings an older pin back, or one of another ledger.
    """

    product: Name
    policy_sha256: Sha256
    version: SemanticVersion
    reason: Annotated[str, Field(min_length=1)]
    pinned_at: AwareDatetime
    operator: Annotated[str, Field(min_length=1)]
    after_sha256: Sha256
