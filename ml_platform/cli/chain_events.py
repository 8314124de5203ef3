"""What a run tells while it goes on: the JSON lines of launch.py as values, and the story that they add up to."""

import json
from dataclasses import dataclass, field
from typing import Any

from ml_platform.contracts.progress import Progress


@dataclass(frozen=True)
class ChainEvent:
    """One line of launch.py. `asset` is the last part of an asset key; `passed` is that of a check."""

    kind: str
    message: str = ""
    asset: str | None = None
    run_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    check: str | None = None
    passed: bool | None = None

    @property
    def progress(self) -> Progress | None:
        """The progress that a log line tells, or None."""
        return Progress.parse(self.message) if self.kind == "log" else None


def parse_event(line: str) -> ChainEvent | None:
    """The event of a line, or None for a line that is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("event"), str):
        return None
    return ChainEvent(
        kind=found["event"],
        message=str(found.get("message") or ""),
        asset=found.get("asset"),
        run_id=found.get("run_id"),
        metadata=found.get("metadata") or {},
        check=found.get("check"),
        passed=found.get("passed"),
    )


@dataclass
class ChainStory:
    """What is known of the runs of one command so far."""

    run_ids: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    failures: list[ChainEvent] = field(default_factory=list)
    materialized: dict[str, dict[str, Any]] = field(default_factory=dict)
    succeeded: bool = False
    refusal: str = ""

    def add(self, event: ChainEvent) -> None:
        """Takes in the next event."""
        if event.run_id and event.run_id not in self.run_ids:
            self.run_ids.append(event.run_id)
        if event.kind == "step_success" and event.asset:
            self.finished.append(event.asset)
        elif event.kind == "materialization" and event.asset:
            self.materialized[event.asset] = event.metadata
            if event.metadata.get("reused") is True:
                self.reused.append(event.asset)
        elif event.kind == "step_failure" or (event.kind == "check" and event.passed is False):
            self.failures.append(event)
        elif event.kind == "run_success":
            self.succeeded = True
        elif event.kind == "run_failure":
            self.succeeded = False
            self.refusal = event.message

    @property
    def release_id(self) -> str | None:
        """The release that the last run registered, as its metadata says."""
        for asset in ("registered_release", "canary_alias", "gate_verdict"):
            found = self.materialized.get(asset, {}).get("release_id")
            if isinstance(found, str):
                return found
        return None

    @property
    def report_html(self) -> str | None:
        """The path of the evaluation report of the last run."""
        found = self.materialized.get("eval_report", {}).get("report_html")
        return found if isinstance(found, str) else None
