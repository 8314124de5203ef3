"""Every error that ml_platform raises on purpose, in one tree.

MlPlatformError
├── InvalidInputError            something that a person or a source handed in is wrong
│   ├── ContractError            a YAML or JSON file does not fit its contract
│   ├── UnknownProductError      no folder of products has that name
│   ├── UnknownEntityError       a question is about something that is in no table
│   ├── SourceDataError          a source file is malformed, truncated, empty or of the wrong shape
│   └── AsOfOutsideDataError     the sources do not cover the cutoff that was asked for
├── IntegrityError               bytes are not what their digest or signature says
│   ├── ArtifactCorruptError     a stored artifact does not verify
│   ├── EvidenceError            an envelope, a key or a statement does not verify
│   └── LedgerCorruptError       the hash chain of the ledger is broken
├── RefusedError                 a rule of the platform says no
│   ├── LeakageError             training data would see what it must not see
│   ├── NotEligibleError         a release has not passed every gate of its policy
│   └── EpochConflictError       somebody else moved a slot first
└── OperationError               the work could not be finished
    ├── BusyError                another process is doing the same work
    ├── NotServingError          no release of the product is loaded here
    ├── EngineError              the engine did not answer, or not as it should
    │   ├── EngineBusyError      its queue is full, or it is shutting down
    │   ├── PromptTooLongError   prompt and answer do not fit into the model
    │   ├── DeadlineError        the answer would come too late
    │   └── AdapterMissingError  it holds no adapter of that name
    ├── StorageError             a disk or an object store failed
    └── TrainingError            training ended before its last step

Messages say what was found, what was expected and what to do.
"""


class MlPlatformError(Exception):
    """The root: catch it to show the message without a traceback."""


class InvalidInputError(MlPlatformError):
    """Something that a person or a source handed in is wrong."""


class ContractError(InvalidInputError):
    """A YAML or JSON file does not fit its contract."""


class UnknownProductError(InvalidInputError):
    """No folder of products has that name."""


class UnknownEntityError(InvalidInputError):
    """A question is about something that is in no table."""


class SourceDataError(InvalidInputError):
    """A source is malformed, truncated, empty or of the wrong shape."""


class AsOfOutsideDataError(InvalidInputError):
    """The sources do not cover the cutoff that was asked for."""


class IntegrityError(MlPlatformError):
    """Bytes are not what their digest or signature says."""


class ArtifactCorruptError(IntegrityError):
    """A stored artifact does not verify against its manifest."""


class EvidenceError(IntegrityError):
    """An envelope, a key or a statement does not verify."""


class LedgerCorruptError(IntegrityError):
    """The hash chain of the ledger is broken."""


class RefusedError(MlPlatformError):
    """A rule of the platform says no."""


class LeakageError(RefusedError):
    """Training data would see what it must not see."""


class NotEligibleError(RefusedError):
    """A release has not passed every gate of its policy."""


class EpochConflictError(RefusedError):
    """Somebody else moved a slot first."""


class OperationError(MlPlatformError):
    """The work could not be finished."""


class BusyError(OperationError):
    """Another process is doing the same work."""


class NotServingError(OperationError):
    """No release of the product is loaded here."""


class EngineError(OperationError):
    """The engine did not answer, or not as it should."""


class EngineBusyError(EngineError):
    """The engine's queue is full, or it is shutting down; `retry_after_seconds` is what it asks for."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineError(EngineError):
    """The answer would come too late."""


class PromptTooLongError(EngineError):
    """Prompt and answer together have more tokens than the model takes."""


class AdapterMissingError(EngineError):
    """The engine holds no adapter of that name."""


class StorageError(OperationError):
    """A disk or an object store failed."""


class TrainingError(OperationError):
    """Training ended before its last step."""
