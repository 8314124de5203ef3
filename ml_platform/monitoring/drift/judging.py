"""From columns to a verdict: of each part, then of all of them; pure."""

from collections.abc import Sequence

from ml_platform.contracts.drift import ColumnDrift, DriftPart, Moved, PartDrift
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import DriftPolicy

NAMED = 4
_WORST_FIRST = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.PASS)


def judge_part(part: DriftPart, columns: Sequence[ColumnDrift], policy: DriftPolicy) -> PartDrift:
    """Drift is proven when enough of the tested columns drifted, and disproven when not even the unclear ones suffice.

    Nothing tested proves nothing. A part of a single column, such as the meaning of prompts, drifts with it.
    """
    count = {moved: sum(one.moved is moved for one in columns) for moved in Moved}
    drifted, unclear = count[Moved.DRIFTED], count[Moved.UNCLEAR]
    tested = drifted + unclear + count[Moved.STEADY]
    if not tested:
        why = next((one.reason for one in columns if one.reason), "there is nothing to compare")
        return PartDrift(part=part, verdict=Verdict.INCONCLUSIVE, reason=f"no column could be tested: {why}")
    found = {"part": part, "tested": tested, "drifted": drifted, "unclear": unclear}
    effect = drifted / tested / max(policy.share_of_columns, 1.0 / tested)
    moved = f"{drifted} of {tested} drifted" + (f": {named(columns)}" if drifted else "")
    if drifted and drifted / tested >= policy.share_of_columns:
        return PartDrift(verdict=Verdict.FAIL, reason=moved, effect=effect, **found)
    if unclear and (drifted + unclear) / tested >= policy.share_of_columns:
        reason = f"{moved}; {unclear} more look moved, which so few independent rows cannot prove"
        return PartDrift(verdict=Verdict.INCONCLUSIVE, reason=reason, effect=effect, **found)
    reason = f"{moved}; {policy.share_of_columns:.0%} of them make drift"
    return PartDrift(verdict=Verdict.PASS, reason=reason, effect=effect, **found)


def named(columns: Sequence[ColumnDrift]) -> str:
    """The columns that drifted, the farthest first, a few by name."""
    found = farthest_first(columns)
    names = ", ".join(one.name for one in found[:NAMED])
    return names + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")


def farthest_first(columns: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """The columns that drifted, the farthest beyond its threshold first."""
    found = [one for one in columns if one.moved is Moved.DRIFTED]
    return sorted(found, key=lambda one: (-one.times_threshold, one.name))


def overall(parts: Sequence[PartDrift]) -> tuple[Verdict, str, float]:
    """The worst verdict of all parts with its reason, and the largest effect: one part that drifted is drift."""
    if not parts:
        return Verdict.INCONCLUSIVE, "there is nothing to compare", 0.0
    verdict = next(one for one in _WORST_FIRST if any(part.verdict is one for part in parts))
    reason = "; ".join(f"{part.part}: {part.reason}" for part in parts if part.verdict is verdict)
    return verdict, reason, max(part.effect for part in parts)
