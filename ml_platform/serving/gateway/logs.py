"""Log lines as JSON on stderr: one line an event, with the response id where there is one."""

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from ml_platform.serving.gateway.exchange import Exchange
from ml_platform.serving.question import Reply

logger = logging.getLogger(__name__)

FIELDS = ("response_id", "key_id", "product", "release_id", "status", "epoch", "cost_usd")
FOR_THE_KEY = frozenset({"invalid_api_key", "insufficient_scope", "product_not_allowed", "rate_limit_exceeded"})
"""The codes of errors that are about who asks: the log says whose key it was."""
LEAST_SECONDS_BETWEEN = 1.0


class JsonLines(logging.Formatter):
    """A record as one line; of a traceback, all of it, for the line is all there is."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": os.getpid(),
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def log_answer(reply: Reply, key_id: str) -> None:
    """One line on an answer: which, of what, whose key, how it went; what was asked and said is in its record alone."""
    record = reply.record
    logger.info(
        "%s in %.0f ms",
        reply.status.value,
        record.timings.total_ms,
        extra={
            "response_id": record.response_id,
            "key_id": key_id,
            "product": record.product,
            "release_id": record.release_id,
            "status": reply.status.value,
            "epoch": record.epoch,
            "cost_usd": record.cost_usd,
        },
    )


class TurnedAway:
    """Says whose requests are refused: a line a second for each key and code, for the refused must fill no disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at: dict[tuple[str | None, str], float] = {}
        self._unsaid: Counter[tuple[str | None, str]] = Counter()

    def tell(self, exchange: Exchange, code: str) -> None:
        """One line on a request that was refused for its key; a key that nobody here ever made has no id."""
        which, now = (exchange.key_id, code), self._clock()
        if now < self._said_at.get(which, float("-inf")) + LEAST_SECONDS_BETWEEN:
            self._unsaid[which] += 1
            return
        self._said_at[which] = now
        before = self._unsaid.pop(which, 0)
        more = f", and {before} more since the last line of it" if before else ""
        extra = {"response_id": exchange.response_id, "key_id": exchange.key_id}
        logger.warning("turned away: %s%s", code, more, extra=extra)


def log_as_json(level: int = logging.INFO) -> None:
    """Sets up this process's logging; libraries speak from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("ml_platform").setLevel(level)
    # A client that speaks no HTTP is told so; a line for each would let it fill the disk.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
