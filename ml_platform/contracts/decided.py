"""Events of deciding: what was decided of live traffic and on which numbers, freezes, and operators' sign-offs."""

from typing import Annotated

from pydantic import AwareDatetime, Field

from ml_platform.contracts.base import Contract, Name, Sha256
from ml_platform.contracts.monitoring import Decision

LONGEST_REASON = 4_000
Reason = Annotated[str, Field(min_length=1, max_length=LONGEST_REASON)]


class ProductFrozen(Contract):
    """From here on nothing of the product goes forward, and no training starts by itself; what stops still stops."""

    reason: Reason


class ProductUnfrozen(Contract):
    """The product goes on."""

    reason: Reason


class DecisionRecorded(Contract):
    """What was decided at one look, with its numbers, before the move that follows it in the same transaction.

    `kept_sha256` names the artifact that holds every answer that the decision used, None where none could be kept.
    """

    decision: Decision
    kept_sha256: Sha256 | None


class PromotionSigned(Contract):
    """An operator agreed to the promotion of the canary; the signed envelope is kept beside the events."""

    release_id: Sha256
    envelope_sha256: Sha256


class SignOff(Contract):
    """The predicate of the in-toto statement that an operator signs; its subject is the release that may be promoted.

    `after_sha256` is the digest of the event that it follows: a sign-off counts at one place of one chain.
    """

    product: Name
    release_id: Sha256
    reason: Reason
    signed_at: AwareDatetime
    operator: Annotated[str, Field(min_length=1)]
    after_sha256: Sha256
