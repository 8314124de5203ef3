"""The last step before an answer leaves: its record is on the disk, or the product's policy decides."""

import logging

from ml_platform.contracts.provenance import Feedback, LoggedContract, Outcome, ProvenanceRecord, UnrecordedPolicy
from ml_platform.errors import StorageError
from ml_platform.lineage.provenance.frames import Kind
from ml_platform.lineage.provenance.wal import WriteAheadLog

logger = logging.getLogger(__name__)

KINDS: dict[type[LoggedContract], Kind] = {
    ProvenanceRecord: Kind.RESPONSE,
    Feedback: Kind.FEEDBACK,
    Outcome: Kind.OUTCOME,
}


class Recorder:
    """Records what is logged; `unrecorded` counts the answers that left without a record, for the alert on it."""

    def __init__(self, log: WriteAheadLog) -> None:
        self._log = log
        self.unrecorded = 0

    async def record(self, record: ProvenanceRecord, policy: UnrecordedPolicy) -> bool:
        """Whether the record is durable: once this is True the answer may leave.

        When it cannot be, REFUSE raises StorageError, and ANSWER_UNRECORDED says so aloud and returns False.
        """
        try:
            await self._log.append(record.log_bytes(), Kind.RESPONSE)
        except StorageError as error:
            refused = policy is UnrecordedPolicy.REFUSE
            what = "is refused" if refused else "leaves without a record"
            logger.critical("answer %s of %s %s: %s", record.response_id, record.product, what, error)
            if refused:
                raise
            self.unrecorded += 1
            return False
        return True

    async def take(self, said: Feedback | Outcome) -> None:
        """Returns once feedback or an outcome is durable. Raises StorageError: then whoever sent it sends it again."""
        await self._log.append(said.log_bytes(), KINDS[type(said)])
