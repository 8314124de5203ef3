"""Errors as clients see them: OpenAI's shape, with the id that finds them in the log."""

from dataclasses import dataclass, field
from typing import Any

from ml_platform.errors import (
    DeadlineError,
    EngineBusyError,
    EngineError,
    InvalidInputError,
    MlPlatformError,
    NotServingError,
    OperationError,
    RefusedError,
    StorageError,
    UnknownEntityError,
    UnknownProductError,
)

INVALID = "invalid_request_error"
SERVER = "server_error"
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
RETRY_SOON = (("retry-after", "1"),)


@dataclass(eq=False)
class HttpError(MlPlatformError):
    """A refusal with its HTTP status; `code` is for programs, `message` for people, `param` names what was wrong."""

    status: int
    code: str
    message: str
    param: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    closes: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def body(self, response_id: str) -> dict[str, Any]:
        """The error as JSON, as OpenAI's clients read it."""
        kind = TYPES.get(self.status) or (SERVER if self.status >= 500 else INVALID)
        said = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": {**said, "response_id": response_id}}


_ANSWERS: tuple[tuple[type[MlPlatformError], int, str, str | None], ...] = (
    # The first that fits counts. Where a sentence stands, the message is for the log: it may name files and hosts.
    (UnknownProductError, 404, "product_not_found", None),
    (UnknownEntityError, 404, "entity_not_found", None),
    (InvalidInputError, 400, "invalid_request", None),
    (RefusedError, 403, "refused", None),
    (EngineBusyError, 429, "engine_busy", "every place at the model is taken. Try again in a moment."),
    (DeadlineError, 504, "deadline_exceeded", "the answer would have come too late. Allow it more time, or try later."),
    (NotServingError, 503, "not_serving", "no release of the product serves here at the moment. Try again later."),
    (EngineError, 503, "engine_unavailable", "the model does not answer at the moment. Try again later."),
    (StorageError, 503, "not_recorded", "nothing can be recorded at the moment, so nothing is done. Try again later."),
    (OperationError, 503, "unavailable", "a part of the service is down at the moment. Try again later."),
)


def http_error(error: MlPlatformError) -> HttpError:
    """What a client is told of an error of ours: its message where he can do something about it."""
    if isinstance(error, HttpError):
        return error
    for kind, status, code, sentence in _ANSWERS:
        if isinstance(error, kind):
            return HttpError(status, code, sentence or str(error), headers=RETRY_SOON if status in (429, 503) else ())
    return unexpected()


def unexpected() -> HttpError:
    """What a client is told of a mistake of ours: nothing but that it was one."""
    return HttpError(500, "internal_error", "something went wrong here; the response id finds it in the log.")
