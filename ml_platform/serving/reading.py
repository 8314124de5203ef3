"""Reading the ledger for a gateway: what a product's slots hold, and what speaks against it."""

from datetime import datetime

from ml_platform.contracts.release import Release
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.standing import Trust
from ml_platform.serving.admission import assess_admission
from ml_platform.serving.wanted import Place, Wanted


def read_wanted(ledger: Ledger, product: str, trust: Trust, now: datetime) -> Wanted:
    """What the ledger wants to serve of a product, with what speaks against each of it.

    The release that production would be taken back to is the one that served last of those that may, as the
    controller would choose it. Raises LedgerCorruptError for a chain that does not verify, StorageError, BusyError.
    """
    with ledger.read(product) as view:
        replay, state = view.replay, view.state
        pins = view.pins()
        places: dict[Place, Release] = {}
        refused: dict[Place, str] = {}

        def look(release_id: str, place: Place) -> bool:
            places[place] = replay.releases[release_id]
            envelopes = view.envelopes(release_id)
            reasons = assess_admission(replay, envelopes, pins, trust, release_id, place, now)
            refused.pop(place, None)
            if reasons:
                refused[place] = " ".join(f"{name}: {why}" for name, why in reasons.items())
            return not reasons

        for slot, release_id in state.slots.items():
            look(release_id, slot)
        for release_id in replay.superseded:
            if look(release_id, None):
                break
        return Wanted(state, places, refused)
