"""Reading the ledger for a gateway: what a product's slots hold, and what speaks against it."""

from datetime import datetime

from ml_platform.contracts.release import Release
from ml_platform.lineage.ledger import Ledger, Reading
from ml_platform.lineage.quarantine import falls_of
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.standing import Trust
from ml_platform.serving.admission import assess_admission, let_in_by, why_off_plan
from ml_platform.serving.wanted import Place, Wanted

Known = tuple[object, ...]


class LedgerReader:
    """Reads products, by any thread; what was once found good is not verified again while nothing of it changed.

    So a rollback to a release that is known costs no signature, and is as fast as reading one event.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._good: dict[str, frozenset[Known]] = {}

    def read(self, product: str, trust: Trust, now: datetime) -> Wanted:
        """What the ledger wants to serve of a product, with what speaks against each of it.

        The release that production would be taken back to is the one that served last of those that may, as the
        controller would choose it. Raises LedgerCorruptError for a chain that does not verify, StorageError, BusyError.
        """
        with self._ledger.read(product) as view:
            replay, state = view.replay, view.state
            places: dict[Place, Release] = {slot: replay.releases[one] for slot, one in state.slots.items()}
            good: set[Known] = set()
            reasons: dict[Place, dict[str, str]] = {}
            for slot, release_id in state.slots.items():
                reasons[slot] = self._reasons(view, trust, release_id, slot, now, good)
            for release_id in replay.superseded:
                places[None] = replay.releases[release_id]
                reasons[None] = self._reasons(view, trust, release_id, None, now, good)
                if not reasons[None]:
                    break
            self._good[product] = frozenset(good)
        refused = {place: " ".join(f"{name}: {why}" for name, why in said.items()) for place, said in reasons.items()}
        return Wanted(state, places, {place: reason for place, reason in refused.items() if reason})

    def _reasons(
        self, view: Reading, trust: Trust, release_id: str, place: Place, now: datetime, good: set[Known]
    ) -> dict[str, str]:
        known = _known(view.replay, trust, release_id, place)
        if known in self._good.get(view.replay.product, ()):
            good.add(known)
            return why_off_plan(view.replay, place)
        envelopes, pins = view.envelopes(release_id), view.pins()
        reasons = assess_admission(view.replay, envelopes, pins, trust, release_id, place, now)
        if not reasons:
            good.add(known)
        return reasons


def _known(replay: Replay, trust: Trust, release_id: str, place: Place) -> Known:
    """All that an admission rests on: as long as this is the same, a release that was admitted still may serve."""
    let_in = let_in_by(replay, release_id, place)
    roles = (trust.evidence, trust.operators)
    keys = tuple(tuple((key.key_id, key.revoked) for key in role.values()) for role in roles)
    return (
        release_id,
        let_in.sequence if let_in else None,
        len(replay.evidence.get(release_id, ())),
        len(replay.pins),
        len(falls_of(replay, release_id)),
        keys,
    )
