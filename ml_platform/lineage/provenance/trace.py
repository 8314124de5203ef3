"""One answer, wherever its record is: in the store, or still in the log."""

from pathlib import Path

from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.errors import StorageError
from ml_platform.lineage.provenance.frames import Kind, frame_around
from ml_platform.lineage.provenance.segments import read_bytes, segments_in
from ml_platform.lineage.provenance.store import Answered, ProvenanceStore


def trace(response_id: str, store: ProvenanceStore, folder: Path) -> Answered | None:
    """The record of an answer with what was said of it, None where there is none.

    The log is read where the store has nothing yet, and where it is down: then without what was said.
    Raises StorageError when the store is down and the log has nothing.
    """
    try:
        record = store.find(response_id)
        if record is None:
            # Shipped between the two looks, it is in the store by the second.
            record = find_in_log(response_id, folder, store) or store.find(response_id)
        return None if record is None else store.join([record])[0]
    except StorageError:
        record = find_in_log(response_id, folder, None)
        if record is None:
            raise
        return Answered(record, (), ())


def find_in_log(response_id: str, folder: Path, store: ProvenanceStore | None) -> ProvenanceRecord | None:
    """The record of an answer in the part of the log that the store does not have, newest segments first."""
    # Quotes inside of texts are escaped, so only the key itself looks like this.
    needle = f'"response_id":"{response_id}"'.encode(errors="replace")
    for path in reversed(segments_in(folder)):
        offset = 0 if store is None else store.shipped_until(path.name)
        data, place = read_bytes(path, offset), -1
        while (place := data.find(needle, place + 1)) >= 0:
            frame = frame_around(data, place, offset)
            # Feedback names responses, too; and a write that was cut short was never acknowledged.
            if frame is not None and frame.kind is Kind.RESPONSE:
                return ProvenanceRecord.from_log(frame.payload)
    return None
