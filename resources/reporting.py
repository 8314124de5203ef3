"""How the domain speaks in Dagster: progress as log events, refusals as failures that people can read."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dagster import Failure

from ml_platform.contracts.progress import Progress, Reporter
from ml_platform.errors import MlPlatformError, OperationError

SECONDS_BETWEEN_SENTENCES = 1.0


def report_to(log: logging.Logger) -> Reporter:
    """A reporter that writes progress sentences to the event log: at most one a second and stage.

    The first and the last sentence of a stage always come through.
    """
    spoken: dict[str, float] = {}

    def report(progress: Progress) -> None:
        now = time.monotonic()
        quiet_since = now - spoken.get(progress.stage, float("-inf"))
        if progress.share >= 1.0 or quiet_since >= SECONDS_BETWEEN_SENTENCES:
            spoken[progress.stage] = now
            log.info(progress.sentence())

    return report


@contextmanager
def readable_failures() -> Iterator[None]:
    """Turns errors of the domain into failures whose description is the error's own message.

    Wrong input, broken integrity and refusals stay wrong when tried again; only operations may be retried.
    """
    try:
        yield
    except MlPlatformError as error:
        raise Failure(
            description=str(error),
            metadata={"error": type(error).__name__},
            allow_retries=isinstance(error, OperationError),
        ) from error
