"""Incidents: each in the ledger gets its post-mortem in a folder, completed once it is over; written again it is the
same, so that whoever is killed on the way leaves nothing undone. What people write into a page stays in it."""

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from ml_platform.contracts.decided import DecisionRecorded
from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.events import Event
from ml_platform.contracts.monitoring import Action, Decision, Seen
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import MlPlatformError, StorageError
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.replay import Replay
from ml_platform.monitoring.keeping import load_kept
from ml_platform.release.post_mortem import OPEN, Incident, tell_incident, tell_recovery
from ml_platform.release.traffic import Traffic

SETTLES = timedelta(seconds=5)
"""So long after a move answers of the old release may still come to the store."""

NEWEST = 50
"""So many of the newest decisions are looked at; older ones were tended long ago."""


@dataclass
class Incidents:
    """The post-mortems of one product, Markdown files below a folder."""

    folder: Path
    store: ArtifactStore
    _closed: set[int] = field(default_factory=set)

    def tend(self, replay: Replay, now: Decision, traffic: Traffic | None, wall: datetime) -> None:
        """Writes what is missing and completes what is over; `now` is what was decided last.

        Raises StorageError for a page that cannot be read or written, after all others.
        """
        failed: StorageError | None = None
        for event in replay.decisions[-NEWEST:]:
            if event.sequence in self._closed:
                continue
            decision = DecisionRecorded.model_validate(event.payload).decision
            try:
                if decision.incident is None or self._is_done(replay, event, decision, now, traffic, wall):
                    self._closed.add(event.sequence)
            except StorageError as error:
                failed = failed or error
        if failed:
            raise failed

    def _is_done(
        self, replay: Replay, event: Event, decision: Decision, now: Decision, traffic: Traffic | None, wall: datetime
    ) -> bool:
        """Whether a page is complete; writes it where it is missing, and its last line once the incident is over."""
        path = self.folder / f"{event.sequence:06d}-{decision.action}.md"
        known, line = _read(path), OPEN.encode()
        if known is not None and line not in known:
            return True
        if decision.action.stops:
            over = _last_answered(event, decision, traffic, wall)
        else:
            over = None if _goes_on(replay, event, decision, now) else wall
        if known is None:
            _write(path, tell_incident(self._incident(replay, event, decision, over)).encode())
        elif over is not None:
            told = tell_recovery(self._incident(replay, event, decision, over))
            _write(path, known.replace(line, told.encode(), 1))
        return False

    def _incident(self, replay: Replay, event: Event, decision: Decision, over: datetime | None) -> Incident:
        stays = replay.slots.get(SlotName.PRODUCTION)
        release = replay.releases.get(decision.release_id or "")
        promoted, seen = replay.promoted.get(decision.release_id or ""), self._seen(event.payload["kept_sha256"])
        first = min((one.answered_at for one in seen if one.release_id == decision.release_id), default=None)
        return Incident(
            event=event,
            release=release,
            stays=replay.releases.get(stays or ""),
            began=promoted.recorded_at if promoted else first,
            seen=seen,
            over=over,
        )

    def _seen(self, kept_sha256: str | None) -> tuple[Seen, ...]:
        if kept_sha256 is None:
            return ()
        try:
            return load_kept(self.store, kept_sha256)[1]
        except MlPlatformError:
            return ()  # the post-mortem then says that it does not know


def _last_answered(event: Event, decision: Decision, traffic: Traffic | None, wall: datetime) -> datetime | None:
    """When the last answer of a release came that was taken away; None as long as some may still come."""
    if traffic is None or wall - event.recorded_at < SETTLES:
        return None
    last = traffic.last_of(decision.release_id or "")
    return max(event.recorded_at, last.answered_at) if last else event.recorded_at


def _goes_on(replay: Replay, event: Event, decision: Decision, now: Decision) -> bool:
    """Whether what took nobody away still holds: the freeze, the pause, or what is said at each look."""
    if decision.action is Action.FREEZE:
        # The freeze is recorded right behind its decision; another one is none of this incident.
        return replay.frozen is not None and replay.frozen.sequence <= event.sequence + 1
    if decision.action is Action.PAUSE:
        return replay.states.get(decision.release_id or "") is ReleaseState.PAUSED
    return (now.incident, now.epoch) == (decision.incident, decision.epoch)


def _read(path: Path) -> bytes | None:
    """What stands in a page, in whatever encoding it was saved; None for no page."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"post-mortem {path}: {error}. Let the controller read and write it.") from error


def _write(path: Path, page: bytes) -> None:
    """Whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with aside.open("wb") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise StorageError(f"post-mortem {path}: {error}. The decision and its numbers are in the ledger.") from error
