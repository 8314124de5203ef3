"""Which pin of a promotion policy counts; pure."""

from collections.abc import Iterable

from ml_platform.contracts.events import Event, PolicyPinned
from ml_platform.contracts.pin import PolicyPin
from ml_platform.errors import EvidenceError
from ml_platform.lineage.keys import TrustedKeys
from ml_platform.lineage.statements import verify_pin


def counting_pin(recorded: Iterable[tuple[Event, bytes]], operators: TrustedKeys) -> PolicyPin | None:
    """The newest pin that a trusted operator signed for the very place in the chain where it stands; None without any.

    Other pins are passed over: whoever can append to the ledger, but has no operator's key, changes nothing.
    """
    for event, envelope in reversed(tuple(recorded)):
        try:
            pin = verify_pin(envelope, operators)
        except EvidenceError:
            continue
        said = PolicyPinned.model_validate(event.payload)
        if (pin.product, pin.policy_sha256, pin.after_sha256) == (
            event.product,
            said.policy_sha256,
            event.previous_sha256,
        ):
            return pin
    return None


def why_not_pinned(product: str, policy_sha256: str, pin: PolicyPin | None) -> str:
    """Why releases under this policy may not serve; empty when it is the pinned one."""
    command = f"`mlp policy pin {product} --reason …`"
    if pin is None:
        return (
            f"No promotion policy of {product} is pinned by a trusted operator, the release was judged under "
            f"{policy_sha256[:12]}. An operator pins one with {command}."
        )
    if pin.policy_sha256 == policy_sha256:
        return ""
    return (
        f"The release was judged under promotion policy {policy_sha256[:12]}, pinned is {pin.policy_sha256[:12]} "
        f"(version {pin.version}, since {pin.pinned_at:%Y-%m-%d %H:%M} UTC). Judge it under the pinned policy, or an "
        f"operator pins the other one with {command}."
    )
