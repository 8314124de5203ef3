"""Dagster's events as JSON lines, for the command line and for whoever else wants to follow a run."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from dagster import (
    DagsterEventType,
    EventLogEntry,
    JobDefinition,
    MetadataValue,
    TableMetadataValue,
)

MAX_CHARACTERS = 4_000
"""Longer metadata, such as pictures, stays in the UI."""

KINDS = {
    DagsterEventType.RUN_START: "run_start",
    DagsterEventType.RUN_SUCCESS: "run_success",
    DagsterEventType.RUN_FAILURE: "run_failure",
    DagsterEventType.RUN_CANCELED: "run_failure",
    DagsterEventType.STEP_START: "step_start",
    DagsterEventType.STEP_SUCCESS: "step_success",
    DagsterEventType.STEP_FAILURE: "step_failure",
    DagsterEventType.ASSET_MATERIALIZATION: "materialization",
    DagsterEventType.ASSET_CHECK_EVALUATION: "check",
}


BLOCKED = "Step blocked by limit"
"""How Dagster begins to say that a pool is full; every further time it says "still"."""


class EventLines:
    """Turns the event log of one job into lines; events that tell people nothing give none."""

    def __init__(self, job: JobDefinition) -> None:
        self._assets: dict[str, str] = {}
        for definition in job.asset_layer.asset_graph.assets_defs:
            keys = [*definition.keys, *(check.asset_key for check in definition.check_keys)]
            self._assets[definition.node_def.name] = " + ".join(sorted({key.path[-1] for key in keys}))

    def line(self, entry: EventLogEntry) -> str | None:
        """One line of JSON without its end, or None."""
        content = self._log(entry) if entry.dagster_event is None else self._event(entry)
        return None if content is None else json.dumps(content, ensure_ascii=False, allow_nan=False)

    def _log(self, entry: EventLogEntry) -> dict[str, Any]:
        return {
            "event": "log",
            "run_id": entry.run_id,
            "asset": self._asset(entry.step_key),
            "message": entry.user_message,
            "metadata": {"level": entry.level},
        }

    def _event(self, entry: EventLogEntry) -> dict[str, Any] | None:
        event = entry.get_dagster_event()
        if event.event_type is DagsterEventType.ENGINE_EVENT:
            return self._waiting(entry, event.engine_event_data.metadata)
        kind = KINDS.get(event.event_type)
        if kind is None:
            return None
        line: dict[str, Any] = {
            "event": kind,
            "run_id": entry.run_id,
            "asset": self._asset(entry.step_key),
            "message": event.message or "",
            "metadata": {},
        }
        if event.event_type is DagsterEventType.STEP_FAILURE:
            line["message"] = _failure(event)
        elif event.event_type is DagsterEventType.ASSET_MATERIALIZATION:
            found = event.step_materialization_data.materialization
            line |= {
                "asset": found.asset_key.path[-1],
                "message": found.description or "",
                "partition": found.partition,
            }
            line["metadata"] = plain_metadata(found.metadata)
        elif event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            line |= {"asset": check.asset_key.path[-1], "check": check.check_name, "passed": check.passed}
            line |= {"message": check.description or "", "metadata": plain_metadata(check.metadata)}
            line["severity"] = check.severity.value
        return line

    def _waiting(self, entry: EventLogEntry, metadata: Mapping[str, MetadataValue[Any]]) -> dict[str, Any] | None:
        """That a step waits for a place that another run holds, told once: nothing else would say why nothing moves."""
        if "pool" not in metadata or not (entry.get_dagster_event().message or "").startswith(BLOCKED):
            return None
        asset = self._asset(entry.step_key)
        return {
            "event": "log",
            "run_id": entry.run_id,
            "asset": asset,
            "message": f"{asset} waits until another run lets go of {metadata['pool'].value}. The UI's Runs page shows "
            "which one; this run goes on by itself.",
            "metadata": {"level": logging.WARNING},
        }

    def _asset(self, step_key: str | None) -> str | None:
        return None if step_key is None else self._assets.get(step_key, step_key)


def plain_metadata(metadata: Mapping[str, MetadataValue[Any]]) -> dict[str, Any]:
    """The values that JSON knows; tables as lists of rows, and nothing that is longer than MAX_CHARACTERS."""
    found: dict[str, Any] = {}
    for name, value in metadata.items():
        plain = [dict(row.data) for row in value.records] if isinstance(value, TableMetadataValue) else value.value
        try:
            text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):
            continue
        if len(text) <= MAX_CHARACTERS:
            found[name] = plain
    return found


def _failure(event: Any) -> str:
    """The words that were meant for people, without the traceback that the event log keeps."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return str(error.message).strip() if error is not None else str(event.message)
