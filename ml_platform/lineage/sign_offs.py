"""Which sign-off of a promotion counts; pure."""

from collections.abc import Iterable

from ml_platform.contracts.decided import SignOff
from ml_platform.contracts.events import Event
from ml_platform.errors import EvidenceError
from ml_platform.lineage.key_values import TrustedKeys
from ml_platform.lineage.statements import verify_sign_off


def counting_sign_off(
    recorded: Iterable[tuple[Event, bytes]], operators: TrustedKeys, release_id: str
) -> SignOff | None:
    """The newest sign-off of a release that a trusted operator signed for the very place where it stands.

    Others are passed over: whoever can append to the ledger, but has no operator's key, changes nothing.
    """
    for event, envelope in reversed(tuple(recorded)):
        try:
            said = verify_sign_off(envelope, operators)
        except EvidenceError:
            continue
        if (said.product, said.release_id, said.after_sha256) == (event.product, release_id, event.previous_sha256):
            return said
    return None
