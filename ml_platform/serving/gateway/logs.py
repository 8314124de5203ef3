"""Log lines as JSON on stderr: one line an event, with the response id where there is one."""

import logging
import os
import sys
from datetime import UTC, datetime

import orjson

from ml_platform.serving.question import Reply

logger = logging.getLogger(__name__)

FIELDS = ("response_id", "product", "release_id", "status", "epoch")


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


def log_answer(reply: Reply) -> None:
    """One line on an answer: which, of what, how it went; what was asked and said is in its record alone."""
    record = reply.record
    logger.info(
        "%s in %.0f ms",
        reply.status.value,
        record.timings.total_ms,
        extra={
            "response_id": record.response_id,
            "product": record.product,
            "release_id": record.release_id,
            "status": reply.status.value,
            "epoch": record.epoch,
        },
    )


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
