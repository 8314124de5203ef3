"""The reference: the release in production, which candidates are compared with and which must itself be proven."""

from datetime import datetime

from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.errors import EvidenceError
from ml_platform.lineage.ledger import Reading
from ml_platform.lineage.standing import Standing, Trust


def find_reference(view: Reading, trust: Trust, now: datetime) -> Release | None:
    """The release that candidates are compared with, None where nothing is in production.

    Raises EvidenceError where nobody proved what is there: "no worse than that" would say nothing.
    """
    if reason := why_no_reference(view, trust, now):
        raise EvidenceError(reason)
    production = view.replay.slots.get(SlotName.PRODUCTION)
    return view.replay.releases[production] if production else None


def why_no_reference(view: Reading, trust: Trust, now: datetime) -> str:
    """Why nothing may be compared with what is in production, and what to do; empty where it may."""
    replay, production = view.replay, view.replay.slots.get(SlotName.PRODUCTION)
    if production is None:
        return ""
    standing = Standing(replay, tuple(view.envelopes(production)), view.pins(), trust, production)
    reason = standing.why_never_proven(replay.promoted[production])
    if not reason or standing.is_proven_anew(now):
        return ""
    return (
        f"production {production[:12]} was never proven, so nothing is compared with it. Roll back first: "
        f"`mlp rollback {replay.product} --reason …`. If its key was taken off a list of trusted keys, list it as "
        f"revoked. {reason}"
    )
